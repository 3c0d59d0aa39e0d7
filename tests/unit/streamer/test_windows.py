"""Windows are addresses, labels decide them. Steps are seconds."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.config import WindowsConfig
from streamer.schema import Label
from streamer.timeline import Grid
from streamer.windows import Address, valid_steps, windows_between, winning_labels

GRID = Grid(1000)


def spans(
    begin: int, sealed: int, *, first: int = 100, ended: bool = False, **spec: Any
) -> list[tuple[int, int]]:
    config = WindowsConfig(**{"size_steps": 10, "hop_steps": 10, **spec})
    found = windows_between(config, "C", first_step=first, begin=begin, sealed=sealed, ended=ended)
    return [(window.start, window.end) for window in found]


@pytest.mark.parametrize(
    ("begin", "sealed", "spec", "expected"),
    [
        # steps    100       110       120       130
        # sealed   |--------|                            one short of a window
        (100, 109, {}, []),
        # sealed   |---------|
        # tumbling [=========)
        (100, 110, {}, [(100, 110)]),
        # sealed   |.........|-------------------|       given out before up to 110
        # tumbling           [=========)[========)
        (110, 130, {}, [(110, 120), (120, 130)]),
        # sealed   |..........|-------|                  nothing new
        (111, 119, {}, []),
        # sealed   |-----------------|
        # sliding  [=========)
        #              [=========)
        #                  [=========)
        (100, 118, {"hop_steps": 4}, [(100, 110), (104, 114), (108, 118)]),
        # sealed   |.............|---|
        #                  [=========)
        (114, 118, {"hop_steps": 4}, [(108, 118)]),
        # sealed   |-------|                             every step begins one
        # sliding  [=====)[=====)...
        (100, 108, {"size_steps": 6, "hop_steps": 1}, [(100, 106), (101, 107), (102, 108)]),
        # sealed   |---------------------------------------|
        # sparse   [=========)              [=========)  the steps between belong to none
        (100, 140, {"hop_steps": 25}, [(100, 110), (125, 135)]),
        # sealed   |.....................|-----|         still between two windows
        (122, 128, {"hop_steps": 25}, []),
        # sealed before the first step
        (95, 97, {}, []),
        (95, 110, {}, [(100, 110)]),
        # sealed   |--------------------------------|    a whole cast is final with its end, not before
        (100, 133, {"size_steps": "cast"}, []),
    ],
)
def test_windows_are_final_when_their_end_is(
    begin: int, sealed: int, spec: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    assert spans(begin, sealed, **spec) == expected


@pytest.mark.parametrize(
    ("sealed", "spec", "expected"),
    [
        # steps  100       110       120
        # cast   |------|                        a cast of 7 steps: one short window, or none
        # pad    [======)
        (107, {}, [(100, 107)]),
        (107, {"short_casts": "drop"}, []),
        (107, {"tail": "align_end"}, [(100, 107)]),
        # cast   |---------|                     exactly one window
        #        [=========)
        (110, {"tail": "align_end"}, [(100, 110)]),
        # cast   |----------------|              its last 7 steps are dropped, or a window ends with it
        # drop   [=========)
        # align  [=========)
        #               [=========)
        (117, {}, [(100, 110)]),
        (117, {"tail": "align_end"}, [(100, 110), (107, 117)]),
        (117, {"tail": "align_end", "hop_steps": 7}, [(100, 110), (107, 117)]),
        (115, {"tail": "align_end", "hop_steps": 20}, [(100, 110), (105, 115)]),
        # cast   |--------------|                the window that ends with it begins between two others
        # align  [=========)    .    [=========) too late for the cast
        #             [=========)
        (115, {"tail": "align_end", "hop_steps": 16}, [(100, 110), (105, 115)]),
        # cast   |----------------------|        whole: whatever hop, tail and short_casts say
        #        [======================)
        (123, {"size_steps": "cast"}, [(100, 123)]),
        (123, {"size_steps": "cast", "hop_steps": 5, "tail": "align_end"}, [(100, 123)]),
        (101, {"size_steps": "cast", "short_casts": "drop"}, [(100, 101)]),
        # a cast without a step
        (100, {}, []),
        (100, {"size_steps": "cast"}, []),
    ],
)
def test_the_end_of_a_cast_adds_what_the_spec_says(
    sealed: int, spec: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    assert spans(100, sealed, ended=True, **spec) == expected


@given(
    size=st.integers(2, 12) | st.just("cast"),
    hop=st.integers(1, 15),
    cuts=st.lists(st.integers(-5, 60), min_size=1, max_size=8),
    tail=st.sampled_from(["drop", "align_end"]),
    short=st.sampled_from(["pad", "drop"]),
)
def test_windows_given_out_step_by_step_are_those_of_the_whole(
    size: int | str, hop: int, cuts: list[int], tail: str, short: str
) -> None:
    spec = {"size_steps": size, "hop_steps": hop, "tail": tail, "short_casts": short}
    edges = sorted({100 + cut for cut in cuts})
    pieces = [spans(low, high, **spec) for low, high in pairwise([100, *edges])]
    last = spans(edges[-1], edges[-1], ended=True, **spec)
    whole = spans(100, edges[-1], ended=True, **spec)
    assert [window for piece in pieces for window in piece] + last == whole
    assert len(set(whole)) == len(whole)


def test_an_address_reads_as_it_writes() -> None:
    address = Address("C:1.a-b_c", 1_763_796_000, 300)
    assert Address.parse(str(address)) == address
    assert str(address) == "C:1.a-b_c/1763796000/300"


def label(defect: bool | None, at: int, low: int | None = None, high: int | None = None) -> Label:
    """A verdict over steps low to high, both included."""
    return Label("C", defect, at, None if low is None else low * 1000, None if high is None else high * 1000)


@pytest.mark.parametrize(
    ("labels", "winners"),
    [
        ([], []),
        ([label(False, 1)], [(1, 0)]),
        ([label(False, 1), label(True, 2)], [(2, 1)]),
        ([label(False, 1), label(True, 2, 11, 12)], [(1, 0), (2, 1)]),
        ([label(False, 3), label(True, 2, 11, 12)], [(3, 0)]),
        # said twice, by two inspectors, with other words
        ([label(True, 2), Label("C", True, 2, defect_type="crack")], [(2, 1)]),
        # a tie: the defect wins
        ([label(False, 2), label(True, 2), label(None, 2)], [(2, 1)]),
        # covered by two together
        ([label(False, 1, 10, 19), label(True, 2, 10, 14), label(True, 2, 15, 19)], [(2, 1), (2, 1)]),
        ([label(False, 1, 10, 19), label(True, 2, 10, 14), label(True, 2, 16, 19)], [(1, 0), (2, 1), (2, 1)]),
        # both say it of step 12, and neither was there first
        ([label(True, 2, 10, 12), label(True, 2, 12, 14)], [(2, 1), (2, 1)]),
        # a withdrawal wins as well: the steps are unlabelled by its word
        ([label(True, 1), label(None, 2)], [(2, -1)]),
        # from after to: no step
        ([label(True, 1, 12, 11)], []),
    ],
)
def test_the_label_revision_is_what_wins_somewhere_in_any_order(
    labels: list[Label], winners: list[tuple[int, int]]
) -> None:
    found = {tuple(winning_labels(order, GRID)) for order in permutations(labels)}
    assert len(found) == 1
    assert [winner[:2] for winner in found.pop()] == winners


def test_the_label_revision_of_a_window_heeds_its_own_steps() -> None:
    labels = [label(False, 1), label(True, 2, 11, 12), label(None, 3, 20)]
    assert winning_labels(labels, GRID, (0, 11)) == [(1, 0, None, None)]
    assert winning_labels(labels, GRID, (11, 13)) == [(2, 1, 11_000, 12_000)]
    assert winning_labels(labels, GRID, (12, 14)) == [(1, 0, None, None), (2, 1, 11_000, 12_000)]
    assert winning_labels(labels, GRID, (20, 30)) == [(3, -1, 20_000, None)]


def test_a_step_is_valid_if_one_sensor_spoke() -> None:
    x_TF = np.array([[np.nan, np.nan], [np.nan, 1], [1, 1]], dtype=np.float32)
    assert valid_steps(x_TF).tolist() == [False, True, True]
    assert valid_steps(np.stack([x_TF, x_TF[::-1]])).tolist() == [[False, True, True], [True, True, False]]
