"""What the trainer and scoring services read: windows, rows, facts about casts, frozen manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamer.columns import FloatArray
from streamer.config import DataConfig, WindowsConfig
from streamer.schema import Label
from streamer.store.casts import decode_labels
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.holds import CastHolds
from streamer.store.keys import Keys
from streamer.store.rows import RowStore
from streamer.timeline import Grid
from streamer.windows import Address, LabelRevision, winning_labels


@dataclass(frozen=True, slots=True)
class CastFacts:
    """What a data set needs to know of a cast.

    Attributes:
        group: Heat, campaign or test stretch; the cast itself where none was named.
        label_revision: Digest of the labels that win on one of its steps: it changes with every verdict that does.
    """

    cast_id: str
    group: str
    label_revision: str


class WindowReader:
    """Reads one window spec of a namespace; it never writes to what the streamer owns.

    Attributes:
        holds: Keeps retention off the casts that a data set needs.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer.
    """

    def __init__(self, client: Client, keys: Keys, data: DataConfig, spec: WindowsConfig) -> None:
        self.data = data
        self.spec = spec
        self.namespace = keys.namespace
        self._client = client
        self._keys = keys
        self._grid = Grid(data.period_ms, data.grid_phase_ms)
        self._rows = RowStore(client, keys, data)
        self.holds = CastHolds(client, keys)

    def last_arrival(self) -> int:
        """Number of the newest label decision; it grows with each."""
        with map_redis_errors("reading arrivals"):
            return int(self._client.get(self._keys.arrivals(self.spec.name)) or 0)

    def num_labelled_since(self, arrival: int) -> int:
        """Windows whose label was decided, decided otherwise or withdrawn after an arrival number."""
        name, keys = self.spec.name, self._keys
        with map_redis_errors("counting news"):
            pipe = self._client.pipeline(transaction=False)
            for key in (keys.defective(name), keys.good(name), keys.withdrawn(name)):
                pipe.zcount(key, f"({arrival}", "+inf")
            return sum(map(int, pipe.execute()))

    def labelled(self) -> list[tuple[Address, bool]]:
        """(window, defective) of all labelled windows, sorted by address."""
        with map_redis_errors("listing labelled windows"):
            pipe = self._client.pipeline(transaction=True)  # one moment for both sets
            pipe.zrange(self._keys.defective(self.spec.name), 0, -1)
            pipe.zrange(self._keys.good(self.spec.name), 0, -1)
            defective, good = pipe.execute()
        windows = [(Address.parse(text(member)), True) for member in defective]
        windows += [(Address.parse(text(member)), False) for member in good]
        return sorted(windows)

    def sealed(self) -> list[Address]:
        """All final windows, by end time."""
        with map_redis_errors("listing sealed windows"):
            members = self._client.zrange(self._keys.windows(self.spec.name), 0, -1)
        return [Address.parse(text(member)) for member in members if isinstance(member, bytes)]

    def rows(self, addresses: Sequence[Address]) -> list[FloatArray]:
        """x_TF of each window, NaN where there is no value."""
        return self._rows.read(addresses)

    def each_rows(self, addresses: Sequence[Address]) -> Iterator[FloatArray]:
        """The same, window by window, for what shall not be held all at once."""
        return self._rows.each(addresses)

    def label_revisions(self, addresses: Sequence[Address]) -> list[list[LabelRevision]]:
        """The labels that win on a step of each window; see `winning_labels`."""
        held: dict[str, list[Label]] = {}
        ids = sorted({address.cast_id for address in addresses})
        with map_redis_errors("reading labels"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id in ids:
                pipe.hget(self._keys.cast(cast_id), "labels")
            for cast_id, labels in zip(ids, pipe.execute(), strict=True):
                held[cast_id] = decode_labels(cast_id, labels)
        return [winning_labels(held[each.cast_id], self._grid, (each.start, each.end)) for each in addresses]

    def casts(self, cast_ids: Iterable[str]) -> dict[str, CastFacts]:
        """Facts about casts."""
        ids = list(cast_ids)
        with map_redis_errors("reading casts"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id in ids:
                pipe.hmget(self._keys.cast(cast_id), ["group", "labels"])
            replies = pipe.execute()
        return {
            cast_id: self._facts(cast_id, group, decode_labels(cast_id, labels))
            for cast_id, (group, labels) in zip(ids, replies, strict=True)
        }

    def save_manifest(self, dataset_id: str, manifest: bytes) -> None:
        """Keeps a frozen manifest; the same id always means the same manifest."""
        with map_redis_errors("saving a manifest"):
            self._client.set(self._keys.dataset(dataset_id), manifest, nx=True)

    def drop_manifest(self, dataset_id: str) -> None:
        """Deletes a frozen manifest."""
        with map_redis_errors("dropping a manifest"):
            self._client.delete(self._keys.dataset(dataset_id))

    def _facts(self, cast_id: str, group: bytes | None, labels: Sequence[Label]) -> CastFacts:
        # The end of the cast names the group first; else its newest label that does.
        named = [label for label in labels if label.group is not None]
        newest = max(named, key=lambda label: label.inspected_at, default=None)
        name = group.decode() if group else (newest.group if newest and newest.group else cast_id)
        digest = hashlib.sha256(repr(winning_labels(labels, self._grid)).encode())
        return CastFacts(cast_id, name, digest.hexdigest()[:16])
