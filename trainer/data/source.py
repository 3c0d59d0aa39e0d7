"""What the trainer reads windows from: Redis in service, memory where a recording is worked off without servers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from streamer.columns import FloatArray
from streamer.config import DataConfig, WindowsConfig
from streamer.store.reading import CastFacts
from streamer.windows import Address


class CastHolder(Protocol):
    """Who needs which casts; see `streamer.store.holds.CastHolds`."""

    def hold(self, holder: str, cast_ids: Collection[str]) -> frozenset[str]:
        """Holds casts, in place of those that the holder had before; those that are gone or going."""
        ...

    def release(self, holder: str) -> None:
        """Lets all casts of a holder go."""
        ...

    def holders(self) -> dict[str, int]:
        """Number of casts by holder, the one that has held for the longest first."""
        ...


class WindowSource(Protocol):
    """Labelled windows of one spec; see `streamer.store.reading.WindowReader`."""

    @property
    def namespace(self) -> str:
        """Whose windows they are."""
        ...

    @property
    def data(self) -> DataConfig:
        """Sensors, period and grid."""
        ...

    @property
    def spec(self) -> WindowsConfig:
        """How casts are cut."""
        ...

    @property
    def holds(self) -> CastHolder:
        """Keeps the casts that a data set needs."""
        ...

    def last_arrival(self) -> int:
        """Number of the newest label decision; it grows with each."""
        ...

    def labelled(self) -> list[tuple[Address, bool]]:
        """(window, defective) of all labelled windows, sorted by address."""
        ...

    def casts(self, cast_ids: Iterable[str]) -> dict[str, CastFacts]:
        """Facts about casts."""
        ...

    def each_rows(self, addresses: Sequence[Address]) -> Iterator[FloatArray]:
        """x_TF of each window, NaN where there is no value."""
        ...

    def save_manifest(self, dataset_id: str, manifest: bytes) -> None:
        """Keeps a frozen manifest; the same id always means the same manifest."""
        ...

    def drop_manifest(self, dataset_id: str) -> None:
        """Deletes a frozen manifest."""
        ...
