"""Labelled windows, and parts of them.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.integer[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPart:
    """One part of a split.

    Attributes:
        x_NTF: Raw values with NaN for missing.
        mask_NT: Valid steps.
        y_N: 1 or True for a defective window.
        index_N: Which of these windows are the part, in its order; None: all.
        order_N: Rank in time of the group of each window; windows of one group are no independent evidence. None:
            each window is a group of its own, and they stand in the order of time.
    """

    x_NTF: npt.NDArray[np.float32]
    mask_NT: npt.NDArray[np.bool_]
    y_N: npt.NDArray[np.generic]
    index_N: Places | None = None
    order_N: Ints | None = None

    @property
    def labels(self) -> npt.NDArray[np.generic]:
        """Of the windows of the part alone."""
        return self.y_N if self.index_N is None else self.y_N[self.index_N]

    @property
    def ranks(self) -> Ints:
        """Ranks in time of the groups of the windows of the part alone."""
        order_N = np.arange(len(self.y_N)) if self.order_N is None else self.order_N
        return order_N if self.index_N is None else order_N[self.index_N]

    @property
    def groups(self) -> Ints:
        """Numbers of their groups, from 0 on."""
        return np.asarray(np.unique(self.ranks, return_inverse=True)[1], dtype=np.int64)

    def at(self, index_N: Places) -> LabelledPart:
        """Another part of the same windows."""
        return replace(self, index_N=index_N)


def ranks_through(parts: Iterable[LabelledPart]) -> Ints:
    """rank_N of the windows of all parts; windows without a group come after those of the parts before."""
    ranks, begin = [np.empty(0, np.int64)], 0
    for part in parts:
        ranks.append(part.ranks + (begin if part.order_N is None else 0))
        begin = max(begin, int(ranks[-1].max(initial=-1)) + 1)
    return np.concatenate(ranks)
