"""Stubs whose time is over: their counts move into the totals, and nothing of them is left."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from streamer.records import Partition
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys, partition_of
from streamer.store.totals import TotalsStore

# Of one call. Smaller: a backlog of stubs takes more sweeps. Larger: a batch waits for longer.
MAX_STUBS_DROPPED = 100
# Smaller: more round trips. Larger: Redis answers others later.
_PAGE = 500
_INDEXED = "indexed:"


class StubStore:
    """The stubs of one namespace.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; the next call goes on.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._totals = TotalsStore(client, keys)

    def count(self) -> int:
        """Casts without rows."""
        with map_redis_errors("counting stubs"):
            return int(self._client.zcard(self._keys.stubs))

    def drop(self, mine: Collection[Partition], before_ms: int, specs: Collection[str]) -> int:
        """Drops the oldest stubs of ours, bounded in number; first, what an earlier pass began with is ended.

        Args:
            mine: The partitions that this member holds; others drop their own.
            before_ms: Log time of a first record before which the time of a stub is over.
            specs: The window specs that members keep to.

        Returns:
            How many were dropped.
        """
        for partition in mine:
            for cast_id in self._totals.mend(partition):
                self._forget(cast_id, partition, specs)
        num_dropped = 0
        for cast_id, owner in list(itertools.islice(self._due(mine, before_ms), MAX_STUBS_DROPPED)):
            shown_by = {*specs, *self._indexed(cast_id)}
            if self._totals.drop(owner, cast_id):
                self._forget(cast_id, owner, shown_by)
                num_dropped += 1
        return num_dropped

    def _due(self, mine: Collection[Partition], before_ms: int) -> Iterator[tuple[str, Partition]]:
        """Those of ours, the oldest first; what others hold, or nobody, stands in nobody's way."""
        for begin in itertools.count(0, _PAGE):
            with map_redis_errors("listing stubs"):
                page: list[Any] = self._client.zrangebyscore(
                    self._keys.stubs, "-inf", f"({before_ms}", start=begin, num=_PAGE
                )
            for member in page:
                cast_id, _, source = text(member).partition(" ")
                if (owner := partition_of(source)) in mine:
                    yield cast_id, owner
            if len(page) < _PAGE:
                return

    def _indexed(self, cast_id: str) -> list[str]:
        """The window specs that ever indexed a cast: those that were dropped since are named nowhere else."""
        with map_redis_errors("reading a stub"):
            names: Iterable[Any] = self._client.hkeys(self._keys.cast(cast_id))
        fields = map(text, names)
        return [field.removeprefix(_INDEXED) for field in fields if field.startswith(_INDEXED)]

    def _forget(self, cast_id: str, owner: Partition, specs: Iterable[str]) -> None:
        """Strikes a cast off every list, its markers last: they are what a pass that dies here is mended by.

        A cast of the same name that has come since stays listed.
        """
        with map_redis_errors("striking a stub off"):
            for spec in specs:
                self._client.hdel(self._keys.shown(spec), cast_id)
            self._client.zrem(self._keys.stubs, f"{cast_id} {owner}")
            if not self._client.exists(self._keys.cast(cast_id)):
                self._client.zrem(self._keys.casts, cast_id)
                self._client.zrem(self._keys.pending_labels, cast_id)
        self._totals.forget(owner, cast_id)
