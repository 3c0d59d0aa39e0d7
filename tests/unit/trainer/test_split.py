"""Splits in time: whole groups, the newest part for the gate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.config import DatasetConfig
from trainer.data.split import ENOUGH, Split, require_classes, split_by_time
from trainer.errors import NotEnoughDataError

CONFIG = DatasetConfig()
ALTERNATING = np.arange(100) % 2 == 0
windows = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 10_000)), min_size=3, max_size=80)
shares = st.tuples(st.floats(0.1, 0.6), st.floats(0.1, 0.3)).map(
    lambda pair: DatasetConfig(train_share=pair[0], validation_share=pair[1])
)


def parts(split: Split) -> list[list[int]]:
    return [split.train_N.tolist(), split.validation_N.tolist(), split.gate_N.tolist()]


def test_equal_casts_are_cut_at_the_shares() -> None:
    """
    time   0  1  2  3  4  5 | 6  7 | 8  9
           train            | val  | gate
    """
    names = [f"C{number}" for number in range(10)]
    split = split_by_time(names, range(10), ALTERNATING[:10], CONFIG)
    assert parts(split) == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]


def test_time_decides_not_the_order_of_the_windows() -> None:
    split = split_by_time(["new", "old", "middle", "old"], [30, 10, 20, 11], ALTERNATING[:4], CONFIG)
    assert parts(split) == [[1, 3], [2], [0]]


def test_a_group_lies_where_its_last_window_lies() -> None:
    # The campaign began first and goes on: to train on its beginning would show the gate its cast.
    split = split_by_time(["campaign", "a", "b", "campaign"], [0, 1, 2, 3], np.zeros(4, np.bool_), CONFIG)
    assert parts(split) == [[1], [2], [0, 3]]


@given(windows, shares)
def test_each_window_is_on_one_side_with_its_whole_group_and_in_time(
    drawn: list[tuple[int, int]], config: DatasetConfig
) -> None:
    groups = [f"G{group}" for group, _ in drawn]
    ends = np.array([end for _, end in drawn])
    y_N = ends % 3 == 0
    if len(set(groups)) < 3:
        with pytest.raises(NotEnoughDataError, match="cannot be split"):
            split_by_time(groups, ends, y_N, config)
        return
    sides = parts(split_by_time(groups, ends, y_N, config))
    assert sorted(number for side in sides for number in side) == list(range(len(drawn)))
    assert all(sides)
    of_side = [{groups[number] for number in side} for side in sides]
    assert sum(map(len, of_side)) == len(set(groups))
    last = [[max(ends[np.array(groups) == group]) for group in side] for side in of_side]
    assert max(last[0]) <= min(last[1])
    assert max(last[1]) <= min(last[2])


@given(st.lists(st.integers(1, 5), min_size=10, max_size=60), shares)
def test_shares_are_met_to_within_a_group(sizes: list[int], config: DatasetConfig) -> None:
    groups = [f"G{number:03d}" for number, size in enumerate(sizes) for _ in range(size)]
    train, validation, _ = parts(
        split_by_time(groups, range(len(groups)), np.zeros(len(groups), np.bool_), config)
    )
    total = len(groups)
    assert abs(len(train) - config.train_share * total) <= max(sizes)
    # Each part has at least one group, which may push the second cut on by one more.
    both = config.train_share + config.validation_share
    assert abs(len(train) + len(validation) - both * total) <= 2 * max(sizes)


def test_defects_that_come_late_are_shared_among_the_parts() -> None:
    """
    time     0 ... 59 | 60 ... 99
    defects  none     | every second: train would have none
    """
    names = [f"C{number:03d}" for number in range(100)]
    y_N = (np.arange(100) >= 60) & ALTERNATING
    split = split_by_time(names, range(100), y_N, CONFIG)
    assert [int(y_N[index_N].sum()) for index_N in (split.train_N, split.validation_N, split.gate_N)] == [
        5,
        5,
        10,
    ]


def test_defects_that_came_early_are_shared_too() -> None:
    names = [f"C{number:03d}" for number in range(100)]
    y_N = (np.arange(100) < 60) & ALTERNATING
    split = split_by_time(names, range(100), y_N, CONFIG)
    assert [int(y_N[index_N].sum()) for index_N in (split.train_N, split.validation_N, split.gate_N)] == [
        20,
        5,
        5,
    ]


def test_a_part_that_would_have_to_give_up_most_of_its_windows_waits_for_defects() -> None:
    names = [f"C{number:03d}" for number in range(100)]
    y_N = (np.arange(100) < 20) & ALTERNATING
    split = split_by_time(names, range(100), y_N, CONFIG)
    assert [len(index_N) for index_N in (split.train_N, split.validation_N, split.gate_N)] == [60, 20, 20]
    with pytest.raises(NotEnoughDataError, match="the validation part has no defective window among 20"):
        require_classes(split, y_N)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=3, max_size=14), shares)
def test_cuts_are_the_nearest_at_which_each_part_has_enough(
    drawn: list[tuple[int, int]], config: DatasetConfig
) -> None:
    sizes = [(size, min(size, defects)) for size, defects in drawn]
    groups = [f"G{number:03d}" for number, (size, _) in enumerate(sizes) for _ in range(size)]
    y_N = np.array([place < defects for size, defects in sizes for place in range(size)], dtype=np.bool_)
    none_N = np.zeros(len(y_N), np.bool_)
    wanted = parts(split_by_time(groups, range(len(groups)), none_N, config))
    found = parts(split_by_time(groups, range(len(groups)), y_N, config))
    before = np.cumsum([0, *(size for size, _ in sizes)])

    def least(cuts: tuple[int, ...]) -> int:
        ends = (0, *cuts, len(y_N))
        counts = [(y_N[a:b].sum(), (~y_N[a:b]).sum()) for a, b in itertools.pairwise(ends)]
        return int(min(map(min, counts)))

    def moved(cuts: tuple[int, ...]) -> int:
        return abs(cuts[0] - len(wanted[0])) + abs(cuts[1] - len(wanted[0]) - len(wanted[1]))

    def keeps_half(cuts: tuple[int, ...]) -> bool:
        kept = np.diff([0, *cuts, len(y_N)])
        return all(2 * size >= len(part) for size, part in zip(kept, wanted, strict=True))

    possible = [(int(a), int(b)) for a, b in itertools.combinations(before[1:-1], 2)]
    possible = [each for each in possible if keeps_half(each)]
    enough = next((each for each in ENOUGH if any(least(cuts) >= each for cuts in possible)), None)
    cuts = (len(found[0]), len(found[0]) + len(found[1]))
    if enough is None:
        assert found == wanted
    else:
        assert least(cuts) >= enough
        assert moved(cuts) == min(moved(each) for each in possible if least(each) >= enough)


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a", "b"]])
def test_fewer_than_three_groups_say_how_many_there_are(groups: list[str]) -> None:
    with pytest.raises(NotEnoughDataError, match=f"{len(set(groups))} groups of casts .* wait for 3"):
        split_by_time(groups, range(len(groups)), np.zeros(len(groups), np.bool_), CONFIG)


@pytest.mark.parametrize(
    ("y_N", "message"),
    [
        ([0, 0, 0, 1, 0, 1], "the train part has no defective window among 2"),
        ([0, 1, 1, 1, 0, 1], "the validation part has no good window among 2"),
        ([0, 1, 0, 1, 0, 0], "the gate part has no defective window among 2"),
    ],
)
def test_a_part_of_one_class_is_named_with_what_it_lacks(y_N: list[int], message: str) -> None:
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]), np.arange(6))
    with pytest.raises(NotEnoughDataError, match=message):
        require_classes(split, np.array(y_N, dtype=np.bool_))
    require_classes(split, np.array([0, 1, 0, 1, 0, 1], dtype=np.bool_))
