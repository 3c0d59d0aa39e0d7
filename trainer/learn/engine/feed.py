"""Loaders as training reads them: epoch by epoch, from any batch on.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.engine.batch import Batch, Part
from trainer.learn.engine.loader import BatchLoader, WindowLoader


class Feed(Protocol):
    """One loader as training reads it, each batch checked.

    Attributes:
        is_exact: Whether the middle of an epoch can be found again. An iterable data set has no positions, so a
            resumed run begins its epoch anew.
        num_good: Good windows in one pass.
        num_defects: Defective windows in one pass.
    """

    is_exact: bool
    num_good: int
    num_defects: int

    def to(self, device: torch.device) -> None:
        """Keeps windows in memory on a device."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from one of them on."""

    def windows(self) -> Part:
        """All windows at once, for what is fitted before the first step.

        Raises:
            NotEnoughDataError: The loader cannot be read again.
            ModelInputError: Its batches differ in the number of sensors.
        """


def feed_of(loader: BatchLoader, name: str) -> Feed:
    """Makes the feed that reads a loader.

    Args:
        name: What the loader is called in messages.

    Raises:
        NotEnoughDataError: It hands out no windows, or windows of one class only.
        ModelInputError: Its batches do not fit.
    """
    return MemoryFeed(loader, name) if isinstance(loader, WindowLoader) else BatchFeed(loader, name)


class MemoryFeed:
    """Reads windows in memory."""

    is_exact = True

    def __init__(self, loader: WindowLoader, name: str) -> None:
        self._loader = loader
        self.num_good, self.num_defects = _count([loader.y_N], name)

    def to(self, device: torch.device) -> None:
        """Moves the windows to a device."""
        self._loader.to(device)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Slices those of an epoch, from one of them on."""
        self._loader.set_epoch(epoch)
        return map(Batch.of, self._loader.starting_at(first))

    def windows(self) -> Part:
        """Hands out the windows as they lie there."""
        loader = self._loader
        return Part(loader.x_NTF, loader.mask_NT, loader.y_N, loader.weight_N, loader.index_N)


class BatchFeed:
    """Reads a loader of somebody else's."""

    def __init__(self, loader: BatchLoader, name: str) -> None:
        self._loader = loader
        self.is_exact = _has_positions(loader)
        self.num_good, self.num_defects = _count([batch.y_N for batch in self.batches(0)], name)

    def to(self, device: torch.device) -> None:
        """Does nothing: each batch is moved when it is computed."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Reads those of an epoch from one of them on; the ones before it are drawn at once and left out."""
        if callable(set_epoch := getattr(getattr(self._loader, "sampler", None), "set_epoch", None)):
            set_epoch(epoch)
        # The global generator is seeded for each epoch; one of the loader's own would go on from the passes before,
        # which a resumed run has not made.
        for generator in _own_generators(self._loader):
            generator.manual_seed(int(torch.randint(2**62, ())))
        drawn = iter(self._loader)
        for _ in itertools.islice(drawn, first):
            pass
        return map(Batch.of, drawn)

    def windows(self) -> Part:
        """Reads all batches, the shorter windows filled up with masked steps.

        Raises:
            NotEnoughDataError: The loader cannot be read again.
            ModelInputError: Its batches differ in the number of sensors.
        """
        batches = list(self.batches(0))
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
        weights = [
            torch.ones_like(batch.y_N) if batch.weight_N is None else batch.weight_N for batch in batches
        ]
        return Part(
            torch.cat([_padded(batch.x_NTF, steps, torch.nan) for batch in batches]),
            torch.cat([_padded(mask_NT, steps, False) for mask_NT in masks]),
            torch.cat([batch.y_N for batch in batches]),
            torch.cat(weights),
        )


def _count(labels: Sequence[Tensor], name: str) -> tuple[int, int]:
    """Good and defective windows.

    Raises:
        NotEnoughDataError: There is one class only.
    """
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
    return isinstance(loader, Sequence)


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
