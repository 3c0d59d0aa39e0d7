"""Windows in memory, handed out in batches, and what training asks of any loader.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from trainer.errors import ModelInputError, NotEnoughDataError


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows with their labels.

    Attributes:
        x_NTF: Raw values, float32, NaN = missing.
        mask_NT: bool, True = valid step; None: all are.
        y_N: float32, 1 = defective, 0 = good.
        weight_N: float32, what each window counts in the loss; None: 1.
    """

    x_NTF: Tensor
    mask_NT: Tensor | None
    y_N: Tensor
    weight_N: Tensor | None = None

    @classmethod
    def of(cls, item: Any) -> Self:
        """Reads what a loader handed out: ``(x, y)``, ``(x, mask, y)`` or ``(x, mask, y, weight)``.

        Raises:
            ModelInputError: It is something else, or its shapes, types or labels do not fit.
        """
        if not isinstance(item, tuple | list) or not 2 <= len(item) <= 4:
            raise ModelInputError(
                f"a loader hands out (x, y), (x, mask, y) or (x, mask, y, weight), got {type(item).__name__}"
                + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
            )
        if not all(isinstance(each, Tensor) for each in item):
            raise ModelInputError(f"a loader hands out tensors, got {[type(each).__name__ for each in item]}")
        x_NTF, *middle, y_N = item[:3]
        mask_NT, weight_N = (middle[0] if middle else None), (item[3] if len(item) == 4 else None)
        _check_batch(x_NTF, mask_NT, y_N, weight_N)
        return cls(x_NTF, mask_NT, y_N.float(), None if weight_N is None else weight_N.float())

    def __len__(self) -> int:
        return len(self.y_N)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        mask_NT = None if self.mask_NT is None else self.mask_NT.to(device, non_blocking=True)
        weight_N = None if self.weight_N is None else self.weight_N.to(device, non_blocking=True)
        return Batch(
            self.x_NTF.to(device, non_blocking=True),
            mask_NT,
            self.y_N.to(device, non_blocking=True),
            weight_N,
        )

    def slices(self, number: int) -> list[Batch]:
        """Cuts it into so many parts, as equal as can be, the same for everybody; empty ones are left out."""
        parts = zip(
            torch.tensor_split(self.x_NTF, number),
            _split(self.mask_NT, number),
            torch.tensor_split(self.y_N, number),
            _split(self.weight_N, number),
            strict=True,
        )
        return [Batch(*part) for part in parts if len(part[2])]


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
            _check_weights(self.weight_N, self.y_N)
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


class Feed:
    """One loader as training reads it: epoch by epoch, from any batch on, each batch checked.

    Attributes:
        is_exact: Whether the middle of an epoch can be found again. An iterable data set has no positions, so a
            resumed run begins its epoch anew.
        num_good: Good windows in one pass.
        num_defects: Defective windows in one pass.

    Args:
        name: What the loader is called in messages.

    Raises:
        NotEnoughDataError: It hands out no windows, or windows of one class only.
        ModelInputError: Its batches do not fit.
    """

    def __init__(self, loader: BatchLoader, name: str) -> None:
        self._loader = loader
        self.is_exact = _has_positions(loader)
        self.num_good, self.num_defects = self._count(name)

    def to(self, device: torch.device) -> None:
        """Keeps windows in memory on a device."""
        if isinstance(self._loader, WindowLoader):
            self._loader.to(device)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from one of them on; those before it are drawn at once and left out."""
        if isinstance(self._loader, WindowLoader):
            self._loader.set_epoch(epoch)
            return map(Batch.of, self._loader.starting_at(first))
        batches = self._read(epoch)
        for _ in itertools.islice(batches, first):
            pass
        return map(Batch.of, batches)

    def windows(self) -> tuple[Tensor, Tensor | None]:
        """All values and their mask, to fit normalisation on.

        Raises:
            NotEnoughDataError: It cannot be read again.
            ModelInputError: Its batches differ in the number of sensors.
        """
        if isinstance(self._loader, WindowLoader):
            return self._loader.x_NTF, self._loader.mask_NT
        batches = list(map(Batch.of, self._read(0)))
        if not batches:
            raise NotEnoughDataError("a loader hands out nothing when it is read again, as each epoch does")
        sensors = {batch.x_NTF.shape[2] for batch in batches}
        if len(sensors) > 1:
            found = " and of ".join(map(str, sorted(sensors)))
            raise ModelInputError(f"a loader handed out windows of {found} sensors")
        steps = max(batch.x_NTF.shape[1] for batch in batches)
        masks = [
            torch.ones(batch.x_NTF.shape[:2], dtype=torch.bool) if batch.mask_NT is None else batch.mask_NT
            for batch in batches
        ]
        x_NTF = torch.cat([_padded(batch.x_NTF, steps, torch.nan) for batch in batches])
        return x_NTF, torch.cat([_padded(mask_NT, steps, False) for mask_NT in masks])

    def _read(self, epoch: int) -> Iterator[Any]:
        """One pass over a loader of somebody else's."""
        if callable(set_epoch := getattr(getattr(self._loader, "sampler", None), "set_epoch", None)):
            set_epoch(epoch)
        # The global generator is seeded for each epoch; one of the loader's own would go on from the passes before,
        # which a resumed run has not made.
        for generator in _own_generators(self._loader):
            generator.manual_seed(int(torch.randint(2**62, ())))
        return iter(self._loader)

    def _count(self, name: str) -> tuple[int, int]:
        labels: Iterable[Tensor]
        if isinstance(self._loader, WindowLoader):
            labels = [self._loader.y_N]
        else:
            labels = [batch.y_N for batch in map(Batch.of, self._read(0))]
        num_windows = sum(len(y_N) for y_N in labels)
        num_defects = int(sum(float(y_N.sum()) for y_N in labels))
        if num_defects in (0, num_windows):
            raise NotEnoughDataError(
                f"the {name} part needs defective and good windows, "
                f"got {num_defects} defective and {num_windows - num_defects} good"
            )
        return num_windows - num_defects, num_defects


def _has_positions(loader: BatchLoader) -> bool:
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset)
    return isinstance(loader, WindowLoader | Sequence)


def _own_generators(loader: BatchLoader) -> list[torch.Generator]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())


def _padded(each: Tensor, steps: int, value: float) -> Tensor:
    short = steps - each.shape[1]
    shape = (each.shape[0], short, *each.shape[2:])
    return torch.cat([each, each.new_full(shape, value)], dim=1) if short else each


def _split(each: Tensor | None, number: int) -> Sequence[Tensor | None]:
    return [None] * number if each is None else torch.tensor_split(each, number)


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


def _check_batch(x_NTF: Tensor, mask_NT: Tensor | None, y_N: Tensor, weight_N: Tensor | None) -> None:
    if x_NTF.ndim != 3 or y_N.shape != x_NTF.shape[:1]:
        raise ModelInputError(
            f"expected x [N, T, F] and y [N], got {list(x_NTF.shape)} and {list(y_N.shape)}"
        )
    if len(y_N) == 0:
        raise ModelInputError("a loader handed out a batch without a window")
    if x_NTF.dtype != torch.float32:
        raise ModelInputError(f"expected float32 values, got {x_NTF.dtype}")
    if mask_NT is not None and (mask_NT.dtype != torch.bool or mask_NT.shape != x_NTF.shape[:2]):
        raise ModelInputError(
            f"expected a bool mask {list(x_NTF.shape[:2])}, got {mask_NT.dtype} {list(mask_NT.shape)}"
        )
    # Looking at labels that lie on a GPU would wait for it at each batch.
    if not y_N.is_cuda and not bool(((y_N == 0) | (y_N == 1)).all()):
        raise ModelInputError("labels must be 0 (good) or 1 (defective)")
    if weight_N is not None:
        _check_weights(weight_N, y_N)


def _check_weights(weight_N: Tensor, y_N: Tensor) -> None:
    if weight_N.shape != y_N.shape:
        raise ModelInputError(f"expected a weight a window, got {list(weight_N.shape)} for {len(y_N)}")
    if not weight_N.is_cuda and not bool((torch.isfinite(weight_N) & (weight_N >= 0)).all()):
        raise ModelInputError("weights must be finite and not negative")
