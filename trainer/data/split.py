"""Splits windows into train, validation and gate: by time, whole groups, the newest part for the gate.

Shape suffixes: N windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from trainer.data.config import DatasetConfig
from trainer.errors import NotEnoughDataError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices into the windows of a data set; no group is in two of them."""

    train_N: IntArray
    validation_N: IntArray
    gate_N: IntArray


def split_by_time(groups: Sequence[str], end_N: npt.ArrayLike, config: DatasetConfig) -> Split:
    """Cuts the groups, in the order of their last windows, at the shares of the configuration.

    A group goes to the side on which most of it lies, so that no window of one group is on two sides.

    Args:
        groups: Group of each window.
        end_N: End of each window on the step grid.
        config: Shares of the windows.

    Raises:
        NotEnoughDataError: There are fewer than three groups.
    """
    ends = np.asarray(end_N, dtype=np.int64)
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 3:
        raise NotEnoughDataError(
            f"{len(names)} groups of casts cannot be split into train, validation and gate; wait for 3"
        )
    last_G = np.full(len(names), np.iinfo(np.int64).min)
    np.maximum.at(last_G, group_N, ends)
    size_G = np.bincount(group_N, minlength=len(names))
    order_G = np.lexsort((names, last_G))
    # Share of windows up to the middle of each group, in order.
    middle_G = (np.cumsum(size_G[order_G]) - size_G[order_G] / 2) / len(ends)
    cuts = _cuts(middle_G, config)
    rank_G = np.empty(len(names), dtype=np.int64)
    rank_G[order_G] = np.arange(len(names))
    rank_N = rank_G[group_N]
    parts = [np.flatnonzero((rank_N >= low) & (rank_N < high)) for low, high in pairwise(cuts)]
    return Split(*parts)


def _cuts(middle_G: npt.NDArray[np.float64], config: DatasetConfig) -> tuple[int, int, int, int]:
    num_groups = len(middle_G)
    first = int(np.searchsorted(middle_G, config.train_share))
    second = int(np.searchsorted(middle_G, config.train_share + config.validation_share))
    # Every part gets at least one group.
    first = min(max(first, 1), num_groups - 2)
    second = min(max(second, first + 1), num_groups - 1)
    return 0, first, second, num_groups


def require_classes(split: Split, y_N: npt.NDArray[np.bool_]) -> None:
    """Checks that each part has defective and good windows.

    Raises:
        NotEnoughDataError: A part has one class only; the message names it.
    """
    for name, index_N in (
        ("train", split.train_N),
        ("validation", split.validation_N),
        ("gate", split.gate_N),
    ):
        num_defects, total = int(y_N[index_N].sum()), len(index_N)
        if num_defects in (0, total):
            missing = "defective" if num_defects == 0 else "good"
            raise NotEnoughDataError(
                f"the {name} part has no {missing} window among {total}; wait for casts of that kind"
            )
