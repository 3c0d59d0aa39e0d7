"""Windows in memory, handed out in batches, and what training asks of any loader.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.engine.batch import check_weights
from trainer.learn.model.rows import windows_a_pass


class BatchLoader(Protocol):
    """Anything that hands out what `Batch.of` reads, again on every iteration."""

    def __iter__(self) -> Iterator[Any]: ...


class WindowLoader:
    """Slices tensors in memory: no workers, no collation.

    The order depends on seed and epoch alone, so a resumed run sees the batches that it would have seen.

    Args:
        x_NTF: Raw values, float32, NaN = missing. Not copied.
        mask_NT: bool, True = valid step.
        y_N: 1 = defective, 0 = good.
        index_N: Which of these windows are loaded, in which order; None: all. Parts of a split share the arrays so.
        batch_size: Windows a batch; the last batch may be smaller.
        shuffle: False: in the order given.
        seed: Of the shuffling.
        weight_N: What each window that is loaded counts in the loss; None: 1.

    Raises:
        ModelInputError: Shapes, types, labels or places do not fit.
        NotEnoughDataError: There is no window.
    """

    def __init__(
        self,
        x_NTF: npt.NDArray[np.float32],
        mask_NT: npt.NDArray[np.bool_],
        y_N: npt.NDArray[np.generic],
        *,
        index_N: npt.NDArray[np.integer[Any]] | None = None,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        weight_N: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        _check_arrays(x_NTF, mask_NT, y_N)
        if batch_size < 1:
            raise ModelInputError(f"batch_size must be at least 1, got {batch_size}")
        if seed < 0:
            raise ModelInputError(f"seed must not be negative, got {seed}")
        self.x_NTF = _tensor(x_NTF, np.float32)
        self.mask_NT = _tensor(mask_NT, np.bool_)
        self.y_N = _tensor(y_N if index_N is None else y_N[_places(index_N, len(y_N))], np.float32)
        self.index_N = None if index_N is None else _tensor(index_N, np.int64)
        self.weight_N = None if weight_N is None else _tensor(weight_N, np.float32)
        if self.weight_N is not None:
            check_weights(self.weight_N, self.y_N)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = 0

    def to(self, device: torch.device) -> None:
        """Keeps the windows on a device: of arrays that it shares, its part alone."""
        if self.index_N is not None and device.type != self.x_NTF.device.type:
            self.x_NTF, self.mask_NT = (
                _copied(each, self.index_N, device) for each in (self.x_NTF, self.mask_NT)
            )
            self.index_N = None
        self.x_NTF, self.mask_NT, self.y_N = (
            each.to(device) for each in (self.x_NTF, self.mask_NT, self.y_N)
        )
        self.weight_N = None if self.weight_N is None else self.weight_N.to(device)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.y_N) / self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.starting_at(0)

    def starting_at(self, batch: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of this epoch from one of them on."""
        of_part = [self.y_N] if self.weight_N is None else [self.y_N, self.weight_N]
        for index_B in torch.split(self._order(), self._batch_size)[batch:]:
            place_B = index_B if self.index_N is None else self.index_N[index_B]
            yield self.x_NTF[place_B], self.mask_NT[place_B], *(each[index_B] for each in of_part)

    def _order(self) -> Tensor:
        order_N = torch.arange(len(self.y_N))
        if self._shuffle:
            rng = np.random.default_rng([self._seed, self._epoch])
            order_N = torch.from_numpy(rng.permutation(len(self.y_N)))
        return order_N.to(self.y_N.device)


def _places(index_N: npt.NDArray[np.integer[Any]], num_windows: int) -> npt.NDArray[np.integer[Any]]:
    if index_N.ndim != 1 or index_N.dtype.kind not in "iu":
        raise ModelInputError(f"expected places [N] of windows, got {index_N.dtype} {index_N.shape}")
    if len(index_N) == 0:
        raise NotEnoughDataError("no window to load")
    if index_N.min() < 0 or index_N.max() >= num_windows:
        raise ModelInputError(f"places {index_N.min()} to {index_N.max()} of {num_windows} windows")
    return index_N


def _copied(source: Tensor, index_N: Tensor, device: torch.device) -> Tensor:
    """These windows on a device; some at a time, so that there is no copy of them here."""
    part = torch.empty((len(index_N), *source.shape[1:]), dtype=source.dtype, device=device)
    size = windows_a_pass(*source.shape[1:])
    for place_B, part_B in zip(torch.split(index_N, size), torch.split(part, size), strict=True):
        part_B.copy_(source[place_B])
    return part


def _tensor(array: npt.NDArray[np.generic], dtype: type[np.generic]) -> Tensor:
    array = np.ascontiguousarray(array, dtype=dtype)
    # torch warns about memory it may not write to, such as an array mapped from a file.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _check_arrays(
    x_NTF: npt.NDArray[np.float32], mask_NT: npt.NDArray[np.bool_], y_N: npt.NDArray[np.generic]
) -> None:
    if x_NTF.ndim != 3 or mask_NT.shape != x_NTF.shape[:2] or y_N.shape != x_NTF.shape[:1]:
        raise ModelInputError(
            f"expected x [N, T, F], mask [N, T], y [N]; got {x_NTF.shape}, {mask_NT.shape}, {y_N.shape}"
        )
    if x_NTF.dtype != np.float32 or mask_NT.dtype != np.bool_:
        raise ModelInputError(f"expected float32 values and a bool mask, got {x_NTF.dtype}, {mask_NT.dtype}")
    if len(y_N) == 0:
        raise NotEnoughDataError("no window to load")
    if not np.isin(y_N, (0, 1)).all():
        raise ModelInputError("labels must be 0 (good) or 1 (defective)")
