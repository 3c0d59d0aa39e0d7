"""Partitions that stand still because most of their records fail, from the breaker's word to going on again.

    watch      the breaker trips at a record; records behind it are not taken, those before it are judged as ever
    cut        where it tripped in the middle of a batch, it is forgotten and read again up to there
    carry_out  once all before it is committed: noted in Redis, for every member and over restarts
    holds      asked when a partition is loaded; a changed configuration lets it go on
    released   asked every second; `streamer breaker resume` lets it go on

The window of the breaker is this member's alone: after a restart or a rebalance it begins anew, so that a member
takes at most `breaker.min_records` more bad records before it stops as well.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from streamer.breaker import Breaker
from streamer.config import StreamerSettings
from streamer.errors import RecordError, TrippedError
from streamer.metrics import StreamerMetrics
from streamer.records import Partition, RecordBatch
from streamer.store.stops import Stop, StopStore

log = structlog.get_logger()

# Sections that do not decide whether a record can be used.
_NO_MATTER = {"kafka", "redis", "consumer", "http", "logging"}


class Stopping:
    """What one member knows of stops.

    Args:
        store: None: nothing is ever stopped.
        clock: Epoch seconds.

    Raises:
        StoreUnavailableError: From `holds`, `carry_out` and `released`, when Redis does not answer.
    """

    def __init__(
        self,
        settings: StreamerSettings,
        store: StopStore | None,
        metrics: StreamerMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._config = config_digest(settings)
        self._breakers: dict[Partition, Breaker] = {}
        self._due: dict[Partition, Stop] = {}  # tripped, and not yet carried out
        self._stopped: dict[Partition, Stop] = {}

    def holds(self, partition: Partition) -> bool:
        """Whether a partition that is to be loaded stands still; its window begins anew."""
        self._breakers[partition] = Breaker(self._settings.breaker)
        stop = self._store.load(partition) if self._store else None
        if stop and self._store and stop.config != self._config:
            self._store.remove(partition)
            log.info("goes on", partition=str(partition), offset=stop.offset, why="another configuration")
            stop = None
        if stop:
            self._stand_still(partition, stop)
        else:
            self._let_go(partition)
        return stop is not None

    def cut(self, batch: RecordBatch) -> RecordBatch:
        """The records of a batch that may be taken."""
        due = self._due.get(batch.source)
        return batch if due is None else batch.until(due.offset)

    def is_due(self, partition: Partition) -> bool:
        """Whether records of a partition are left out, since it tripped before them."""
        return partition in self._due

    def watch(self, batch: RecordBatch, refused: Sequence[tuple[int, RecordError]]) -> None:
        """Takes in what became of a batch, before any of it is kept.

        Args:
            refused: (index, what is wrong with it), in offset order.

        Raises:
            TrippedError: Records were taken that lie behind a stop: forget them, and load again.
        """
        source = batch.source
        if self._store is None:
            return
        if source not in self._due:
            failures = [(index, error.reason) for index, error in refused]
            trip = self._breakers[source].observe(len(batch), failures)
            if trip is None:
                return
            self._due[source] = Stop(
                offset=int(batch.offset_M[trip.index]) + 1,
                num_records=trip.num_records,
                num_failures=trip.num_failures,
                reasons=trip.reasons,
                config=self._config,
                at_ms=int(self._clock() * 1000),
            )
        stop = self._due[source]
        if batch.next_offset > stop.offset:
            raise TrippedError(f"{source}: {stop}; it is read again up to offset {stop.offset}")

    def carry_out(self, next_offsets: Mapping[Partition, int]) -> list[Partition]:
        """Stops what tripped and is committed up to there; returns the partitions to pause and forget."""
        ready = [
            partition
            for partition, stop in self._due.items()
            if next_offsets.get(partition, -1) >= stop.offset and self._store
        ]
        for partition in ready:
            stop = self._due[partition]
            if self._store:
                self._store.save(partition, stop)
            del self._due[partition]
            self._stand_still(partition, stop)
        return ready

    def _stand_still(self, partition: Partition, stop: Stop) -> None:
        known = self._stopped.get(partition)
        self._stopped[partition] = stop
        if stop == known:
            return
        self._metrics.stopped.labels(*map(str, partition)).set(1)
        log.error(
            "partition stopped",
            partition=str(partition),
            offset=stop.offset,
            why=str(stop),
            mend=f"mend the configuration and restart, or mend the senders and `{resume_command(partition)}`; then "
            f"`streamer dead-letters replay --topic {partition.topic} --all`",
        )

    def released(self) -> list[Partition]:
        """Partitions that somebody has let go on; they are to be loaded again."""
        gone = [partition for partition in self._stopped if self._store and not self._store.load(partition)]
        for partition in gone:
            log.info(
                "goes on", partition=str(partition), offset=self._stopped[partition].offset, why="resumed"
            )
            self._let_go(partition)
        return gone

    def forget(self, partition: Partition) -> None:
        """The partition is another member's now."""
        self._breakers.pop(partition, None)
        self._due.pop(partition, None)
        self._let_go(partition)

    def _let_go(self, partition: Partition) -> None:
        if self._stopped.pop(partition, None):
            self._metrics.stopped.remove(*map(str, partition))

    def offsets(self) -> dict[Partition, int]:
        """Where each partition stands still."""
        return {partition: stop.offset for partition, stop in self._stopped.items()}

    def why(self) -> str | None:
        """What stands still and why, None if nothing does."""
        stops = [f"{partition} is stopped: {stop}" for partition, stop in sorted(self._stopped.items())]
        return "; ".join(stops) or None


def config_digest(settings: StreamerSettings) -> str:
    """Of all that decides whether a record can be used."""
    sections = settings.model_dump(mode="json", exclude=_NO_MATTER)
    return hashlib.sha256(msgspec.json.encode(sections, order="sorted")).hexdigest()[:16]


def resume_command(partition: Partition) -> str:
    """What an operator types to let a partition go on."""
    return f"streamer breaker resume {partition}"
