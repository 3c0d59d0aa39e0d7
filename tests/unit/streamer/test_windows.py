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
from streamer.windows import Address, Verdict, decide, step_verdicts, valid_steps, windows_between

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
        # sealed   100 ......... 109|            one short of a window
        (100, 109, {}, []),
        # sealed   100 ......... 110|
        (100, 110, {}, [(100, 110)]),
        # given out before up to 110; now to 130
        (110, 130, {}, [(110, 120), (120, 130)]),
        (111, 119, {}, []),
        # every 4 steps: [100,110) [104,114) [108,118)
        (100, 118, {"hop_steps": 4}, [(100, 110), (104, 114), (108, 118)]),
        (114, 118, {"hop_steps": 4}, [(108, 118)]),
        # steps between windows: [100,110) [125,135)
        (100, 140, {"hop_steps": 25}, [(100, 110), (125, 135)]),
        # the watermark stands before the first step
        (95, 97, {}, []),
        (95, 110, {}, [(100, 110)]),
    ],
)
def test_windows_are_final_when_their_end_is(
    begin: int, sealed: int, spec: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    assert spans(begin, sealed, **spec) == expected


@pytest.mark.parametrize(
    ("sealed", "spec", "expected"),
    [
        # a cast of 7 steps
        (107, {}, [(100, 107)]),
        (107, {"short_casts": "drop"}, []),
        (107, {"tail": "align_end"}, [(100, 107)]),
        # a cast of exactly one window
        (110, {"tail": "align_end"}, [(100, 110)]),
        # a cast of 17 steps: its last 7 are dropped, or the last window ends with it
        (117, {}, [(100, 110)]),
        (117, {"tail": "align_end"}, [(100, 110), (107, 117)]),
        (117, {"tail": "align_end", "hop_steps": 7}, [(100, 110), (107, 117)]),
        (115, {"tail": "align_end", "hop_steps": 20}, [(100, 110), (105, 115)]),
        # a cast without a step
        (100, {}, []),
    ],
)
def test_the_end_of_a_cast_adds_what_the_spec_says(
    sealed: int, spec: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    assert spans(100, sealed, ended=True, **spec) == expected


@given(
    size=st.integers(2, 12),
    hop=st.integers(1, 15),
    cuts=st.lists(st.integers(-5, 60), min_size=1, max_size=8),
    tail=st.sampled_from(["drop", "align_end"]),
    short=st.sampled_from(["pad", "drop"]),
)
def test_windows_given_out_step_by_step_are_those_of_the_whole(
    size: int, hop: int, cuts: list[int], tail: str, short: str
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


NO, OK, BAD = Verdict.UNLABELLED, Verdict.GOOD, Verdict.DEFECTIVE


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # steps                                                  10  11   12   13
        ([], [NO, NO, NO, NO]),
        ([label(False, 1)], [OK, OK, OK, OK]),
        ([label(False, 1), label(True, 2)], [BAD, BAD, BAD, BAD]),
        ([label(False, 1), label(True, 2, 11, 12)], [OK, BAD, BAD, OK]),
        ([label(False, 3), label(True, 2, 11, 12)], [OK, OK, OK, OK]),
        ([label(True, 2, None, 11)], [BAD, BAD, NO, NO]),
        ([label(True, 2, 12)], [NO, NO, BAD, BAD]),
        ([label(True, 2, 0, 10), label(False, 2, 13, 99)], [BAD, NO, NO, OK]),
        ([label(True, 2, 0, 9), label(True, 2, 14, 20)], [NO, NO, NO, NO]),
        # a tie: the defect wins, also against a withdrawal
        ([label(False, 2), label(True, 2)], [BAD, BAD, BAD, BAD]),
        ([label(True, 2), label(None, 2), label(False, 2)], [BAD, BAD, BAD, BAD]),
        ([label(None, 2), label(False, 2)], [OK, OK, OK, OK]),
        # withdrawn: not back to what was said before
        ([label(False, 1), label(True, 2), label(None, 3)], [NO, NO, NO, NO]),
        ([label(True, 2), label(None, 3, 11, 11)], [BAD, NO, BAD, BAD]),
        ([label(None, 3), label(False, 4, 12, 12)], [NO, NO, OK, NO]),
    ],
)
def test_the_newest_verdict_of_a_step_wins_in_any_order(labels: list[Label], expected: list[Verdict]) -> None:
    for order in permutations(labels):
        assert step_verdicts(order, GRID, 10, 4).tolist() == expected


@pytest.mark.parametrize(
    ("valid", "verdicts", "expected"),
    [
        ("1111", [OK, OK, OK, OK], OK),
        ("1111", [OK, OK, BAD, OK], BAD),
        ("1111", [NO, NO, BAD, NO], BAD),
        ("1111", [OK, OK, NO, OK], NO),
        # a step without values has no say
        ("1101", [OK, OK, NO, OK], OK),
        ("1101", [OK, OK, BAD, OK], OK),
        ("1101", [NO, OK, BAD, OK], NO),
        # too few valid steps to train on
        ("1100", [OK, OK, OK, OK], NO),
        ("1100", [BAD, BAD, BAD, BAD], NO),
        ("0000", [BAD, BAD, BAD, BAD], NO),
    ],
)
def test_a_window_is_decided_by_its_valid_steps(
    valid: str, verdicts: list[Verdict], expected: Verdict
) -> None:
    valid_T = np.array([char == "1" for char in valid])
    assert decide(valid_T, np.array(verdicts, dtype=np.int8), 0.75) is expected


def test_a_window_without_values_is_never_decided() -> None:
    assert decide(np.zeros(3, dtype=bool), np.ones(3, dtype=np.int8), 0.0) is NO


def test_a_step_is_valid_if_one_sensor_spoke() -> None:
    x_TF = np.array([[np.nan, np.nan], [np.nan, 1], [1, 1]], dtype=np.float32)
    assert valid_steps(x_TF).tolist() == [False, True, True]
