"""Partitions that the breaker has stopped: they stand still over restarts and rebalances, for every member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from streamer.records import Partition
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys, partition_of


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a partition stands still.

    Attributes:
        offset: The first record that was not taken.
        num_records: Records that the breaker looked at, of which `num_failures` failed.
        reasons: Failures by reason, the commonest first.
        config: Digest of the configuration that they failed under.
        at_ms: When, epoch ms.
    """

    offset: int
    num_records: int
    num_failures: int
    reasons: Mapping[str, int]
    config: str
    at_ms: int

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.reasons.items())
        return f"{self.num_failures} of its last {self.num_records} records failed ({reasons})"


class StopStore:
    """Stops of one namespace.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def load(self, partition: Partition) -> Stop | None:
        """Why a partition stands still, None if it does not."""
        with map_redis_errors("asking for a stop"):
            packed = self._client.get(self._keys.stopped(partition))
        return msgspec.json.decode(packed, type=Stop) if isinstance(packed, bytes) else None

    def load_all(self) -> dict[Partition, Stop]:
        """All partitions that stand still."""
        stops = {}
        with map_redis_errors("listing stops"):
            for key in sorted(self._client.scan_iter(self._keys.all_stopped, count=1000)):
                partition = partition_of(text(key))
                if stop := self.load(partition):
                    stops[partition] = stop
        return stops

    def save(self, partition: Partition, stop: Stop) -> None:
        """Stops a partition for every member."""
        with map_redis_errors("stopping a partition"):
            self._client.set(self._keys.stopped(partition), msgspec.json.encode(stop))

    def remove(self, partition: Partition) -> bool:
        """Lets a partition go on; False if it was not stopped."""
        with map_redis_errors("letting a partition go on"):
            return bool(self._client.delete(self._keys.stopped(partition)))
