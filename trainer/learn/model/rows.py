"""Training rows as a normalisation is fitted to them: a column at a time, or some rows at a time, never all at once.

Shapes: N windows, B windows of a pass, T steps, F sensors, R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Bounds memory and changes no result. Smaller: more calls. Larger: what a pass computes counts beside the data.
VALUES_A_PASS = 262_144


class Rows(Protocol):
    """Rows to fit to; NaN where there is no value."""

    @property
    def num_columns(self) -> int:
        """C."""

    def values(self, column: int, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
        """The finite values of a column, in order, in an array that the caller may write to."""

    def parts(self) -> Iterator[Tensor]:
        """rows_RC, some at a time."""


class ArrayRows:
    """Rows of an array."""

    def __init__(self, rows_RC: npt.NDArray[np.float32]) -> None:
        self._rows_RC = rows_RC

    @property
    def num_columns(self) -> int:
        """C."""
        return len(self._rows_RC.T)

    def values(self, column: int, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
        """Copies one column."""
        column_R = self._rows_RC[:, column]
        return column_R[np.isfinite(column_R)].astype(dtype, copy=False)

    def parts(self) -> Iterator[Tensor]:
        """Splits them."""
        yield from torch.split(torch.from_numpy(self._rows_RC), windows_a_pass(self.num_columns))


class WindowRows:
    """The valid steps of windows, sensor by sensor a column.

    Args:
        x_NTF: Raw values.
        mask_NT: True = valid step.
        index_N: Which of the windows, in which order; None: all.
    """

    def __init__(self, x_NTF: Tensor, mask_NT: Tensor, index_N: Tensor | None = None) -> None:
        self._x_NTF, self._mask_NT, self._index_N = x_NTF, mask_NT, index_N

    @property
    def num_columns(self) -> int:
        """F."""
        return self._x_NTF.shape[2]

    def values(self, column: int, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
        """Copies what one sensor said."""
        num_windows = len(self._x_NTF if self._index_N is None else self._index_N)
        # As long as can be: pages that nothing is written to take no memory.
        values_R = np.empty(num_windows * self._x_NTF.shape[1], dtype)
        end = 0
        for x_BT, mask_BT in passes(self._x_NTF[:, :, column], self._mask_NT, self._index_N):
            seen = x_BT[mask_BT & (x_BT.abs() < torch.inf)].cpu().numpy()
            begin, end = end, end + len(seen)
            values_R[begin:end] = seen
        return values_R[:end]

    def parts(self) -> Iterator[Tensor]:
        """Those of some windows at a time."""
        for x_BTF, mask_BT in passes(self._x_NTF, self._mask_NT, self._index_N):
            yield x_BTF[mask_BT]


def passes(x_NTF: Tensor, mask_NT: Tensor, index_N: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Values and masks of some windows at a time, in order; without an index nothing is copied."""
    size = windows_a_pass(*x_NTF.shape[1:])
    if index_N is None:
        yield from zip(torch.split(x_NTF, size), torch.split(mask_NT, size), strict=True)
        return
    for index_B in torch.split(index_N, size):
        yield x_NTF[index_B], mask_NT[index_B]


def windows_a_pass(*shape: int) -> int:
    """How many windows, or rows, of this shape are computed at once."""
    return max(1, VALUES_A_PASS // max(1, math.prod(shape)))
