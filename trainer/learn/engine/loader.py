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
        batch_size: Windows a batch; the last batch may be smaller.
        shuffle: False: in the order given.
        seed: Of the shuffling.
        weight_N: What each window counts in the loss; None: 1.

    Raises:
        ModelInputError: Shapes, types or labels do not fit.
        NotEnoughDataError: There is no window.
    """

    def __init__(
        self,
        x_NTF: npt.NDArray[np.float32],
        mask_NT: npt.NDArray[np.bool_],
        y_N: npt.NDArray[np.generic],
        *,
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
        self.y_N = _tensor(y_N, np.float32)
        self.weight_N = None if weight_N is None else _tensor(weight_N, np.float32)
        if self.weight_N is not None:
            check_weights(self.weight_N, self.y_N)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = 0

    def to(self, device: torch.device) -> None:
        """Keeps the windows on a device."""
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
        tensors = [self.x_NTF, self.mask_NT, self.y_N] + ([] if self.weight_N is None else [self.weight_N])
        for index_B in torch.split(self._order(), self._batch_size)[batch:]:
            yield tuple(each[index_B] for each in tensors)

    def _order(self) -> Tensor:
        order_N = torch.arange(len(self.y_N))
        if self._shuffle:
            rng = np.random.default_rng([self._seed, self._epoch])
            order_N = torch.from_numpy(rng.permutation(len(self.y_N)))
        return order_N.to(self.y_N.device)


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
