"""Splits windows into train, validation and gate: by time, whole groups, the newest part for the gate.

Shape suffixes: N windows, G groups in the order of time, C cuts between them.
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
# Windows of a class that each part should have, from the best on; the first that all parts can have counts. More: the
# parts leave their shares sooner. Fewer: what is fitted to a part, or decided by it, hangs on single windows.
ENOUGH = (10, 5, 2, 1)
# Of its windows, that each part keeps. Smaller: a model is fitted to a few windows, or judged by most of them.
LEAST_KEPT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices into the windows of a data set; no group is in two of them.

    Attributes:
        rank_N: Of each window of the data set: rank in time of its group.
    """

    train_N: IntArray
    validation_N: IntArray
    gate_N: IntArray
    rank_N: IntArray


def split_by_time(
    groups: Sequence[str], end_N: npt.ArrayLike, y_N: npt.NDArray[np.bool_], config: DatasetConfig
) -> Split:
    """Cuts the groups, in the order of their last windows, at the shares of the configuration.

    Where that leaves a part with few windows of a class (`ENOUGH`), the cuts are moved to the nearest places at which
    each part has as many as all can have and keeps half of its windows: defects come in stretches, and a part without
    any would have to wait for the next one.

    Args:
        groups: Group of each window; all windows of a group lie in one part.
        end_N: End of each window on the step grid.
        y_N: True = defective.
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
    rank_G = np.empty(len(names), dtype=np.int64)
    rank_G[order_G] = np.arange(len(names))
    rank_N = rank_G[group_N]
    defects_G = np.bincount(rank_N, weights=y_N, minlength=len(names)).astype(np.int64)
    cuts = _cuts(size_G[order_G], defects_G, config)
    train_N, validation_N, gate_N = (
        np.flatnonzero((rank_N >= low) & (rank_N < high)) for low, high in pairwise(cuts)
    )
    return Split(train_N, validation_N, gate_N, rank_N)


def _cuts(size_G: IntArray, defects_G: IntArray, config: DatasetConfig) -> tuple[int, int, int, int]:
    """Where the parts begin and end, by ranks of groups; every part gets at least one."""
    num_groups = len(size_G)
    # Share of windows up to the middle of each group, in order.
    middle_G = (np.cumsum(size_G) - size_G / 2) / size_G.sum()
    first = int(np.searchsorted(middle_G, config.train_share))
    second = int(np.searchsorted(middle_G, config.train_share + config.validation_share))
    first = min(max(first, 1), num_groups - 2)
    second = min(max(second, first + 1), num_groups - 1)
    # Defective windows, good ones and all before each cut.
    seen_3C = np.zeros((3, num_groups + 1), dtype=np.int64)
    np.cumsum(np.stack([defects_G, size_G - defects_G, size_G]), axis=1, out=seen_3C[:, 1:])
    least_P = np.ceil(LEAST_KEPT * np.diff(seen_3C[2, [0, first, second, num_groups]])).astype(np.int64)
    for enough in ENOUGH:
        if (found := _nearest(seen_3C, (first, second), enough, least_P)) is not None:
            return 0, *found, num_groups
    return 0, first, second, num_groups


def _nearest(
    seen_3C: IntArray, wanted: tuple[int, int], enough: int, least_P: IntArray
) -> tuple[int, int] | None:
    """The cuts that move the fewest windows, so that each part has enough of both classes; None: none do.

    Args:
        seen_3C: Defective windows, good ones and all before each cut.
        least_P: Of all windows, that each part has at least.
    """
    num_seen_C = seen_3C[2]
    firsts_C = np.arange(1, len(num_seen_C) - 2)
    first_3, middle_3, last_3 = ((enough, enough, least) for least in least_P)
    # Behind each first cut: from where on the middle part has enough, and up to where the last one has.
    lowest_C = np.max(
        [
            np.searchsorted(seen_C, seen_C[firsts_C] + least)
            for seen_C, least in zip(seen_3C, middle_3, strict=True)
        ],
        axis=0,
        initial=2,
    )
    highest = min(
        int(np.searchsorted(seen_C, seen_C[-1] - least, side="right")) - 1
        for seen_C, least in zip(seen_3C, last_3, strict=True)
    )
    possible_C = (seen_3C[:, firsts_C] >= np.array(first_3)[:, None]).all(axis=0) & (lowest_C <= highest)
    if not possible_C.any():
        return None
    seconds_C = np.clip(wanted[1], lowest_C, max(highest, 2))
    moved_C = np.abs(num_seen_C[firsts_C] - num_seen_C[wanted[0]]) + np.abs(
        num_seen_C[np.minimum(seconds_C, len(num_seen_C) - 1)] - num_seen_C[wanted[1]]
    )
    best = int(np.argmin(np.where(possible_C, moved_C, np.iinfo(np.int64).max)))
    return int(firsts_C[best]), int(seconds_C[best])


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
