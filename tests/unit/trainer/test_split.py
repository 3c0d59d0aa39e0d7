"""Splits in time: whole groups, the newest part for the gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.config import DatasetConfig
from trainer.data.split import Split, require_classes, split_by_time
from trainer.errors import NotEnoughDataError

CONFIG = DatasetConfig()
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
    split = split_by_time(names, range(10), CONFIG)
    assert parts(split) == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]


def test_time_decides_not_the_order_of_the_windows() -> None:
    split = split_by_time(["new", "old", "middle", "old"], [30, 10, 20, 11], CONFIG)
    assert parts(split) == [[1, 3], [2], [0]]


def test_a_group_lies_where_its_last_window_lies() -> None:
    # The campaign began first and goes on: to train on its beginning would show the gate its cast.
    split = split_by_time(["campaign", "a", "b", "campaign"], [0, 1, 2, 3], CONFIG)
    assert parts(split) == [[1], [2], [0, 3]]


@given(windows, shares)
def test_each_window_is_on_one_side_with_its_whole_group_and_in_time(
    drawn: list[tuple[int, int]], config: DatasetConfig
) -> None:
    groups = [f"G{group}" for group, _ in drawn]
    ends = np.array([end for _, end in drawn])
    if len(set(groups)) < 3:
        with pytest.raises(NotEnoughDataError, match="cannot be split"):
            split_by_time(groups, ends, config)
        return
    sides = parts(split_by_time(groups, ends, config))
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
    train, validation, _ = parts(split_by_time(groups, range(len(groups)), config))
    total = len(groups)
    assert abs(len(train) - config.train_share * total) <= max(sizes)
    # Each part has at least one group, which may push the second cut on by one more.
    both = config.train_share + config.validation_share
    assert abs(len(train) + len(validation) - both * total) <= 2 * max(sizes)


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a", "b"]])
def test_fewer_than_three_groups_say_how_many_there_are(groups: list[str]) -> None:
    with pytest.raises(NotEnoughDataError, match=f"{len(set(groups))} groups of casts .* wait for 3"):
        split_by_time(groups, range(len(groups)), CONFIG)


@pytest.mark.parametrize(
    ("y_N", "message"),
    [
        ([0, 0, 0, 1, 0, 1], "the train part has no defective window among 2"),
        ([0, 1, 1, 1, 0, 1], "the validation part has no good window among 2"),
        ([0, 1, 0, 1, 0, 0], "the gate part has no defective window among 2"),
    ],
)
def test_a_part_of_one_class_is_named_with_what_it_lacks(y_N: list[int], message: str) -> None:
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    with pytest.raises(NotEnoughDataError, match=message):
        require_classes(split, np.array(y_N, dtype=np.bool_))
    require_classes(split, np.array([0, 1, 0, 1, 0, 1], dtype=np.bool_))
