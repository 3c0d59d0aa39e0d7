"""Which partitions this member reads, and from where: rebalances followed, state loaded, topics known again."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from streamer.config import StreamerSettings
from streamer.errors import (
    CastingError,
    OffsetGoneError,
    RefusedError,
    StoreUnavailableError,
    UnavailableError,
)
from streamer.http import Health
from streamer.kafka import GroupConsumer
from streamer.metrics import StreamerMetrics
from streamer.outcomes import Server
from streamer.partition import ReadingsPartition
from streamer.records import Partition, RecordBatch
from streamer.stopping import Stopping
from streamer.store.casts import CastStore
from streamer.store.index import WindowIndex
from streamer.store.positions import LastRecord, PositionStore
from streamer.timeline import Grid, Lateness, LogClock

log = structlog.get_logger()

# Smaller: a dead Redis is asked more often than it helps. Larger: a mended one is noticed later.
MAX_BACKOFF_S = 5.0
# A new leader may tell an end that lags behind for a moment. Smaller: such a moment stops the stream.
SHORT_LOG_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class ExpectedRecord:
    """The record before the position, as it was when it was read."""

    offset: int
    last: LastRecord


class Assignment:
    """The partitions of one member.

    Attributes:
        readings: State of the readings partitions that are loaded.
        labels: Next offset of the labels partitions that are loaded.
    """

    def __init__(
        self,
        settings: StreamerSettings,
        *,
        consumer: GroupConsumer,
        casts: CastStore,
        index: WindowIndex,
        positions: PositionStore,
        stopping: Stopping,
        metrics: StreamerMetrics,
        health: Health,
        reset: bool,
        clock: Callable[[], float],
    ) -> None:
        self.readings: dict[Partition, ReadingsPartition] = {}
        self.labels: dict[Partition, int] = {}
        self._settings = settings
        self._consumer = consumer
        self._casts = casts
        self._index = index
        self._positions = positions
        self._stopping = stopping
        self._metrics = metrics
        self._health = health
        self._reset = reset
        self._clock = clock
        self._grid = Grid(settings.data.period_ms, settings.data.grid_phase_ms)
        self._expected: dict[Partition, ExpectedRecord] = {}
        self._to_load: set[Partition] = set()
        self._was_reset: set[Partition] = set()
        self._retry_at = 0.0
        self._gone: dict[tuple[str, int], OffsetGoneError] = {}
        self._counted_to: dict[Partition, int] = {}  # what retention took before it
        self._num_failures = 0
        self._failed_at: dict[Partition, int] = {}  # how far it had been read
        self._just_loaded: set[Partition] = set()  # in this turn
        self._short_since: dict[Partition, float] = {}

    def __contains__(self, partition: Partition) -> bool:
        return partition in self.readings or partition in self.labels

    def __bool__(self) -> bool:
        return bool(self.readings or self.labels)

    def takes(self, polled: RecordBatch) -> bool:
        """Whether what this turn polled is to be taken: a partition loaded since is read from where it was sought."""
        return polled.source in self and polled.source not in self._just_loaded

    def next_offsets(self) -> dict[Partition, int]:
        """Where each loaded partition goes on."""
        return {source: each.offset for source, each in self.readings.items()} | self.labels

    def follow_rebalance(self) -> None:
        """Forgets what was revoked; what was assigned is loaded next."""
        rebalance = self._consumer.take_rebalance()
        if rebalance is None:
            return
        for partition in rebalance.revoked:
            self._forget(partition)
            self._stopping.forget(partition)
            self._to_load.discard(partition)
            self._gone.pop(partition, None)
            self._failed_at.pop(partition, None)
        self._to_load |= rebalance.assigned
        self._metrics.rebalances.inc()
        log.info("assignment", revoked=_names(rebalance.revoked), assigned=_names(rebalance.assigned))
        if not self._to_load and not self._num_failures:
            self._tell_ready()  # a member in reserve: there are fewer partitions than members

    def _forget(self, partition: Partition) -> None:
        self.readings.pop(partition, None)
        self.labels.pop(partition, None)
        self._expected.pop(partition, None)

    def suspend(self, exc: CastingError) -> None:
        """Forgets what is loaded and waits; the membership is kept by polling paused partitions."""
        if self._num_failures == 0:
            log.warning("waiting", error=str(exc))
            if isinstance(exc, UnavailableError):
                server: Server = "redis" if isinstance(exc, StoreUnavailableError) else "kafka"
                self._metrics.outages.labels(server).inc()
        if isinstance(exc, UnavailableError):
            self._health.not_ready(str(exc))
        if isinstance(exc, OffsetGoneError):
            self._gone |= dict.fromkeys(exc.offsets, exc)
        for partition, offset in self.next_offsets().items():
            self._failed_at[partition] = self._consumer.read_to(partition, offset)
        self._num_failures += 1
        backoff = min(MAX_BACKOFF_S, 0.1 * 2 ** min(self._num_failures, 10))
        self._retry_at = self._clock() + backoff * random.uniform(0.5, 1)
        assigned = self._consumer.assignment()
        self.readings.clear()
        self.labels.clear()
        self._expected.clear()
        self._to_load = set(assigned)
        if assigned:
            self._consumer.pause(*assigned)

    def load_due(self) -> None:
        """Loads what is assigned and not loaded, unless a failure is too recent.

        Raises:
            RefusedError: Redis, the group and the topic contradict each other.
        """
        if not self._to_load or self._clock() < self._retry_at:
            return
        self._just_loaded = set(self._to_load)
        if self._num_failures:
            self._positions.check_writable()  # a full Redis answers what is read
        for partition in sorted(self._to_load):
            if not self._stopping.holds(partition):
                self._load(partition)
                self._consumer.resume(partition)
            self._to_load.discard(partition)
        if not self._num_failures:
            self._tell_ready()

    def turn_done(self) -> None:
        """Notes a turn without a failure; what failed is mended once it is behind us."""
        just_loaded, self._just_loaded = self._just_loaded, set()
        if not self._num_failures or self._to_load or just_loaded:
            return
        if all(self._is_past_failure(*each) for each in self.next_offsets().items()):
            log.info("recovered", after_failures=self._num_failures)
            self._num_failures = 0
            self._failed_at.clear()
            self._tell_ready()

    def _is_past_failure(self, partition: Partition, offset: int) -> bool:
        """Whether more was read than when it failed, or as much and there is no more."""
        failed_at = self._failed_at.get(partition, -1)
        read_to = self._consumer.read_to(partition, offset)
        if read_to != failed_at:
            return read_to > failed_at
        end = self._consumer.highwater(partition)
        return end is not None and end <= read_to

    def _tell_ready(self) -> None:
        if why := self._stopping.why():
            self._health.not_ready(why)
        else:
            self._health.ready()

    def stop_tripped(self) -> None:
        """Pauses and forgets partitions whose breaker tripped, once they are committed up to there."""
        stopped = self._stopping.carry_out(self.next_offsets())
        for partition in stopped:
            self._consumer.pause(partition)
            self._forget(partition)
        if stopped:
            self._tell_ready()

    def release(self) -> None:
        """Loads partitions that somebody has let go on."""
        self._to_load |= set(self._stopping.released())

    def _load(self, partition: Partition) -> None:
        position = self._positions.load(partition)
        beginning = self._consumer.beginning_offset(partition)
        gone = self._gone.get(partition)
        if gone and gone.offsets[partition] >= beginning:  # else retention has passed it
            raise RefusedError(f"{gone}: {_ANEW}")
        offset = self._start_offset(partition, position.offset if position else None, beginning)
        pending = self._casts.open_casts(partition)
        finished = self._index.update(pending).finished
        if partition.topic == self._settings.topics.labels:
            self._casts.finish(partition, pending)
            self.labels[partition] = offset
        else:
            self._casts.finish(partition, finished)
            clock = position.clock if position else LogClock()
            known = position.offset if position else None
            state = ReadingsPartition(partition, offset, known, clock, self._grid, self._bounds(partition))
            state.adopt(self._casts.load(partition, sorted(pending - finished)))
            self.readings[partition] = state
        seek_to = offset
        if position and position.last and position.offset > beginning:
            self._expected[partition] = ExpectedRecord(position.offset - 1, position.last)
            if offset == position.offset:
                seek_to = offset - 1  # read again only to be known again
        self._consumer.seek(partition, seek_to)
        self._gone.pop(partition, None)

    def _bounds(self, partition: Partition) -> Lateness:
        times = self._settings.event_time
        carry_s = self._settings.source_of(partition.topic).carry_forward_s
        return Lateness(
            allowed_ms=int(times.allowed_lateness_s * 1000),
            idle_ms=int(times.idle_timeout_s * 1000),
            max_future_ms=int(times.max_future_s * 1000),
            max_past_ms=int(times.max_past_s * 1000),
            carry_ms=None if carry_s is None else int(carry_s * 1000),
        )

    def _start_offset(self, partition: Partition, position: int | None, beginning: int) -> int:
        committed = self._consumer.committed(partition)
        if self._reset and partition not in self._was_reset:
            return beginning
        if position is None and committed is not None:
            if self._positions.load_all():
                # Redis knows its other partitions: a power cut took the first writes of this one.
                return beginning
            raise RefusedError(
                f"{partition}: the group {self._settings.consumer.group_id} has read up to offset {committed}, "
                f"but namespace {self._settings.redis.namespace} knows nothing of it; it was emptied, or it is "
                "another one. Use another consumer.group_id, or --reset to read the topics from their beginning"
            )
        # Redis may have lost its last writes in a power cut: the smaller of the two is safe.
        known = [offset for offset in (position, committed) if offset is not None]
        offset = min(known, default=beginning)
        # What lies before the position is in Redis, committed or not.
        lost = beginning - max(offset, position or 0, self._counted_to.get(partition, 0))
        if lost > 0:
            self._counted_to[partition] = beginning
            self._metrics.log_gaps.labels(partition.topic).inc(lost)
            log.error(
                "retention passed us", partition=str(partition), records_lost=lost, go_on_from=beginning
            )
        return max(offset, beginning)

    def committed(self, partitions: set[Partition]) -> None:
        """Notes that a reset of these partitions is done: what they were read for is committed."""
        self._was_reset |= partitions

    def recognise(self, batch: RecordBatch) -> RecordBatch:
        """Compares the record before the position with what it was; returns what is to be read of a batch.

        Raises:
            RefusedError: It is another record, or gone although older ones are there: the topic was made anew.
        """
        expected = self._expected.get(batch.source)
        if expected is None:
            return batch
        at = int(batch.offset_M.searchsorted(expected.offset))
        if at == len(batch):
            return batch
        del self._expected[batch.source]
        if int(batch.offset_M[at]) == expected.offset:
            if last_record(batch, at) != expected.last:
                raise RefusedError(
                    f"{batch.source}: the record at offset {expected.offset} is not the one that was read: {_ANEW}"
                )
        elif self._consumer.beginning_offset(batch.source) <= expected.offset:
            raise RefusedError(
                f"{batch.source}: there is no record at offset {expected.offset} any more: {_ANEW}"
            )
        return batch.since(self.next_offsets()[batch.source])

    def check_end(self, partition: Partition, offset: int) -> int | None:
        """The end of a partition, None if it is not known yet.

        Raises:
            RefusedError: It has lain before what was read for a while.
        """
        end = self._consumer.highwater(partition)
        if end is None or end >= offset:
            self._short_since.pop(partition, None)
        elif self._clock() - self._short_since.setdefault(partition, self._clock()) > SHORT_LOG_PATIENCE_S:
            raise RefusedError(f"{partition} ends at offset {end}, but was read up to {offset}: {_ANEW}")
        return end


def last_record(batch: RecordBatch, index: int = -1) -> LastRecord:
    """By what a record of a batch is known again."""
    crc = zlib.crc32(batch.values[index] or b"", zlib.crc32(batch.keys[index] or b""))
    return LastRecord(int(batch.timestamp_M[index]), crc)


_ANEW = (
    "the topic was made anew or cut. Use another consumer.group_id and redis.namespace, "
    "or empty the namespace and --reset"
)


def _names(partitions: frozenset[Partition]) -> list[str]:
    return [str(partition) for partition in sorted(partitions)]
