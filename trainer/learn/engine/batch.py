"""A batch of windows, as every loader hands it out.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from trainer.errors import ModelInputError


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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """All windows of a part of the data, for what is fitted to them at once.

    Attributes:
        x_NTF: As of a batch, with windows of other parts among them where there is an index.
        mask_NT: The same.
        y_N: As of a batch, of the part alone.
        weight_N: The same.
        index_N: Which of the windows are the part, in its order; None: all.
    """

    x_NTF: Tensor
    mask_NT: Tensor
    y_N: Tensor
    weight_N: Tensor | None
    index_N: Tensor | None = None

    def to(self, device: torch.device) -> Part:
        """The same on a device."""
        x_NTF, mask_NT, y_N = (each.to(device) for each in (self.x_NTF, self.mask_NT, self.y_N))
        weight_N, index_N = (
            None if each is None else each.to(device) for each in (self.weight_N, self.index_N)
        )
        return Part(x_NTF, mask_NT, y_N, weight_N, index_N)


def check_weights(weight_N: Tensor, y_N: Tensor) -> None:
    """Checks what each window counts in the loss.

    Raises:
        ModelInputError: It is not one number a window, finite and not negative.
    """
    if weight_N.shape != y_N.shape:
        raise ModelInputError(f"expected a weight a window, got {list(weight_N.shape)} for {len(y_N)}")
    if not weight_N.is_cuda and not bool((torch.isfinite(weight_N) & (weight_N >= 0)).all()):
        raise ModelInputError("weights must be finite and not negative")


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
        check_weights(weight_N, y_N)


def _split(each: Tensor | None, number: int) -> Sequence[Tensor | None]:
    return [None] * number if each is None else torch.tensor_split(each, number)
