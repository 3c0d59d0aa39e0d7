"""The streamer's loop: Kafka in, windowed and labelled rows in Redis out.

One batch, in this order, and `run_once` repeats the numbers:

    1. poll Kafka
    2. decode, and place in event time, in offset order
    3. flush dead letters
    4. write Redis: rows with `applied`, then the index, then positions
    5. commit offsets

A crash between any two steps repeats records that Redis has judged already, and `applied` skips them. Dead
letters go first: a late record moves `applied` too, so it would not be judged late a second time. When a server
does not answer, everything loaded is forgotten, the partitions pause while polling keeps the membership,
and reading goes on from the smaller of Redis' position and the committed offset.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from streamer.codec import Codec, log_time
from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.errors import (
    BrokerUnavailableError,
    CastingError,
    FencedError,
    OffsetGoneError,
    RecordError,
    RefusedError,
    StoreUnavailableError,
    UnavailableError,
)
from streamer.http import Health
from streamer.kafka import GroupConsumer
from streamer.metrics import StreamerMetrics
from streamer.partition import ReadingsPartition
from streamer.records import Partition, Record
from streamer.schema import CastEnd, Label, Reading
from streamer.store.casts import CastState, CastStore
from streamer.store.index import WindowIndex
from streamer.store.positions import PositionStore
from streamer.timeline import Grid, Lateness, LogClock
from streamer.windows import windows_between

log = structlog.get_logger()

# Smaller: a dead Redis is asked more often than it helps. Larger: a mended one is noticed later.
MAX_BACKOFF_S = 5.0
# Smaller: more round trips of an idle member. Larger: an outage is seen later when nothing arrives.
CHECK_INTERVAL_S = 1.0


@dataclass(slots=True)
class BatchResult:
    """What one turn of the loop did."""

    records: Counter[str] = field(default_factory=Counter)
    num_sealed: int = 0


class StreamerService:
    """Runs one member of the consumer group.

    Args:
        reset: Read the topics from their beginning although the group has committed offsets.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: StreamerSettings,
        *,
        consumer: GroupConsumer,
        casts: CastStore,
        index: WindowIndex,
        positions: PositionStore,
        dead_letters: DeadLetters,
        metrics: StreamerMetrics,
        health: Health,
        reset: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._casts = casts
        self._index = index
        self._positions = positions
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._health = health
        self._reset = reset
        self._clock = clock
        self._codec = Codec(settings.data.sensors)
        self._grid = Grid(settings.data.period_ms, settings.data.grid_phase_ms)
        bounds = settings.event_time
        self._bounds = Lateness(
            allowed_ms=int(bounds.allowed_lateness_s * 1000),
            idle_ms=int(bounds.idle_timeout_s * 1000),
            max_future_ms=int(bounds.max_future_s * 1000),
            max_past_ms=int(bounds.max_past_s * 1000),
        )
        self._readings: dict[Partition, ReadingsPartition] = {}
        self._labels: dict[Partition, int] = {}  # next offset
        self._to_load: set[Partition] = set()
        self._was_reset: set[Partition] = set()
        self._retry_at = 0.0
        self._check_at = 0.0
        self._offset_gone: OffsetGoneError | None = None
        self._num_gaps = 0
        self._num_failures = 0

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Runs until told to stop.

        Raises:
            RefusedError, ConfigError: A person has to decide; nothing was lost.
        """
        while not should_stop():
            self._health.beat()
            try:
                self.run_once()
            except (StoreUnavailableError, BrokerUnavailableError, FencedError, OffsetGoneError) as exc:
                self._suspend(exc)

    def run_once(self) -> BatchResult:
        """One turn of the loop.

        Raises:
            CastingError: Retriable ones leave Kafka and Redis as they are; call `run_once` again.
        """
        records = [batch.record(k) for batch in self._consumer.poll() for k in range(len(batch))]  # 1
        self._follow_rebalance()
        self._check_redis()
        self._load_partitions()
        started = time.perf_counter()
        result = BatchResult()
        batches = self._by_partition(records)
        self._take_readings(batches, result)  # 2
        labels = self._decode_labels(batches, result)
        self._dead_letters.flush()  # 3
        self._write_readings(result)  # 4
        self._write_labels(labels)
        self._move_positions(batches)
        self._commit(batches)  # 5
        self._observe(result, len(records), time.perf_counter() - started)
        return result

    def _by_partition(self, records: Sequence[Record]) -> dict[Partition, list[Record]]:
        batches: dict[Partition, list[Record]] = defaultdict(list)
        for record in records:
            if record.source in self._readings or record.source in self._labels:
                batches[record.source].append(record)
        return batches

    # Assignment

    def _follow_rebalance(self) -> None:
        rebalance = self._consumer.take_rebalance()
        if rebalance is None:
            return
        for partition in rebalance.revoked:
            self._forget(partition)
            self._to_load.discard(partition)
        self._to_load |= rebalance.assigned
        self._metrics.rebalances.inc()
        log.info("assignment", revoked=_names(rebalance.revoked), assigned=_names(rebalance.assigned))
        if not self._to_load and not self._num_failures:
            self._health.ready()  # a member in reserve: there are fewer partitions than members

    def _check_redis(self) -> None:
        """Asks a quiet Redis whether it is there, and still the one that was loaded from."""
        if (self._readings or self._labels) and self._clock() >= self._check_at:
            self._check_at = self._clock() + CHECK_INTERVAL_S
            self._positions.check_server()

    def _forget(self, partition: Partition) -> None:
        self._readings.pop(partition, None)
        self._labels.pop(partition, None)

    def _load_partitions(self) -> None:
        if not self._to_load or self._clock() < self._retry_at:
            return
        gaps = self._num_gaps
        if self._num_failures:
            self._positions.check_writable()
        for partition in sorted(self._to_load):
            self._load(partition)
            self._to_load.discard(partition)
            self._consumer.resume(partition)
        if self._offset_gone and self._num_gaps == gaps:
            raise RefusedError(
                f"{self._offset_gone}: the log ends before what was read of it, so the topic was made anew or cut. "
                "Use another consumer.group_id and redis.namespace, or empty the namespace and --reset"
            )
        self._offset_gone = None
        if self._num_failures:
            log.info("recovered", after_failures=self._num_failures)
        self._num_failures = 0
        self._health.ready()

    def _load(self, partition: Partition) -> None:
        position = self._positions.load(partition)
        offset = self._start_offset(partition, position.offset if position else None)
        pending = self._casts.open_casts(partition)
        finished = self._index.update(pending).finished
        if partition.topic == self._settings.topics.labels:
            self._casts.finish(partition, pending)
            self._labels[partition] = offset
        else:
            self._casts.finish(partition, finished)
            clock = position.clock if position else LogClock()
            known = position.offset if position else None
            state = ReadingsPartition(partition, offset, known, clock, self._grid, self._bounds)
            state.adopt(self._casts.load(partition, sorted(pending - finished)))
            self._readings[partition] = state
        self._consumer.seek(partition, offset)

    def _start_offset(self, partition: Partition, position: int | None) -> int:
        committed = self._consumer.committed(partition)
        beginning = self._consumer.beginning_offset(partition)
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
        if offset < beginning:
            lost = beginning - offset
            self._num_gaps += 1
            self._metrics.log_gaps.labels(partition.topic).inc(lost)
            log.error(
                "retention passed us", partition=str(partition), records_lost=lost, go_on_from=beginning
            )
            return beginning
        return offset

    def _suspend(self, exc: CastingError) -> None:
        """Forgets what is loaded and waits; the membership is kept by polling paused partitions."""
        if self._num_failures == 0:
            log.warning("waiting", error=str(exc))
            if isinstance(exc, UnavailableError):
                server = "redis" if isinstance(exc, StoreUnavailableError) else "kafka"
                self._metrics.outages.labels(server).inc()
        if isinstance(exc, UnavailableError):
            self._health.not_ready(str(exc))
        if isinstance(exc, OffsetGoneError):
            self._offset_gone = exc
        self._num_failures += 1
        backoff = min(MAX_BACKOFF_S, 0.1 * 2 ** min(self._num_failures, 10))
        self._retry_at = self._clock() + backoff * random.uniform(0.5, 1)
        assigned = self._consumer.assignment()
        self._readings.clear()
        self._labels.clear()
        self._to_load = set(assigned)
        if assigned:
            self._consumer.pause(*assigned)

    # 2. Decode and place

    def _take_readings(self, batches: dict[Partition, list[Record]], result: BatchResult) -> None:
        for source, partition in self._readings.items():
            records = batches.get(source, [])
            decoded = [self._decode_reading(record, result) for record in records]
            self._load_casts(partition, decoded)
            for record, message, at in decoded:
                if at is not None:
                    partition.observe(record, at)
                if message is not None and at is not None:
                    self._take(partition, record, message, at, result)
                partition.offset = record.offset + 1
            self._let_time_pass(partition, bool(records))

    def _decode_reading(
        self, record: Record, result: BatchResult
    ) -> tuple[Record, Reading | CastEnd | None, int | None]:
        at = None
        try:
            at = log_time(record)
            return record, self._codec.decode_reading(record), at
        except RecordError as exc:
            self._reject(record, exc, result)
            return record, None, at

    def _load_casts(
        self,
        partition: ReadingsPartition,
        decoded: Sequence[tuple[Record, Reading | CastEnd | None, int | None]],
    ) -> None:
        named = dict.fromkeys(message.cast_id for _, message, _ in decoded if message is not None)
        unknown = [cast_id for cast_id in named if cast_id not in partition.casts]
        if unknown:
            partition.adopt(self._casts.load(partition.source, unknown))

    def _take(
        self,
        partition: ReadingsPartition,
        record: Record,
        message: Reading | CastEnd,
        at: int,
        result: BatchResult,
    ) -> None:
        try:
            kind = partition.take(record, message, at)
        except RecordError as exc:
            self._reject(record, exc, result)
            return
        result.records[kind] += 1
        if kind == "late":
            late = RecordError("late", f"cast {message.cast_id}: its steps were final already", stage="place")
            self._reject(record, late, result)

    def _reject(self, record: Record, error: RecordError, result: BatchResult) -> None:
        self._dead_letters.add(record, error)
        self._metrics.dead_letters.labels(error.reason).inc()
        result.records["dead_lettered"] += error.reason != "late"
        log.debug("dead letter", partition=str(record.source), offset=record.offset, reason=error.reason)

    def _let_time_pass(self, partition: ReadingsPartition, busy: bool) -> None:
        """While nothing more lies in the log, log time goes on by the seconds waited."""
        end = self._consumer.highwater(partition.source)
        if busy or end is None or partition.offset < end:
            partition.waiting_since = None
            return
        now = self._clock()
        if partition.waiting_since is None:
            partition.waiting_since = now
        partition.clock.waited_ms = int((now - partition.waiting_since) * 1000)
        partition.close_due()

    def _decode_labels(
        self, batches: dict[Partition, list[Record]], result: BatchResult
    ) -> list[tuple[Partition, int, Label]]:
        labels = []
        for source in self._labels:
            for record in batches.get(source, []):
                self._labels[source] = record.offset + 1
                try:
                    labels.append((source, record.offset, self._codec.decode_label(record)))
                    result.records["label"] += 1
                except RecordError as exc:
                    self._reject(record, exc, result)
        return labels

    # 4. Write

    def _write_readings(self, result: BatchResult) -> None:
        for source, partition in self._readings.items():
            self._casts.announce(source, partition.first_seen)
            self._casts.enrol(partition.first_seen)
            self._casts.save(source, partition.touched.values())
            due = [state for state in partition.touched.values() if self._has_new_window(state)]
            indexed = self._index.update([state.cast_id for state in due])
            for state in due:
                state.indexed_step = state.timeline.sealed
            self._casts.finish(source, indexed.finished)
            result.num_sealed += indexed.num_sealed
            for outcome, number in partition.outcomes.items():
                self._metrics.steps.labels(outcome).inc(number)
            self._metrics.unknown_fields.inc(partition.num_unknown_fields)
            partition.batch_done()

    def _has_new_window(self, state: CastState) -> bool:
        timeline = state.timeline
        if timeline.ended:
            return True
        if timeline.first_step is None or timeline.sealed is None:
            return False
        begin = state.indexed_step if state.indexed_step is not None else timeline.first_step
        new = windows_between(
            self._settings.windows,
            state.cast_id,
            first_step=timeline.first_step,
            begin=begin,
            sealed=timeline.sealed,
            ended=False,
        )
        return next(new, None) is not None

    def _write_labels(self, labels: Sequence[tuple[Partition, int, Label]]) -> None:
        by_partition: dict[Partition, set[str]] = defaultdict(set)
        for source, _, label in labels:
            by_partition[source].add(label.cast_id)
        for source, cast_ids in by_partition.items():
            self._casts.announce(source, cast_ids)
        if labels:
            self._casts.add_labels(labels)
        for source, cast_ids in by_partition.items():
            self._index.update(cast_ids)
            self._casts.finish(source, cast_ids)

    def _move_positions(self, batches: dict[Partition, list[Record]]) -> None:
        for source, records in batches.items():
            if not records:
                continue
            partition = self._readings.get(source)
            clock = partition.clock if partition else LogClock()
            counts = {"consumed": len(records)}
            self._positions.move(source, records[-1].offset + 1, clock, counts)

    # 5. Commit

    def _commit(self, batches: dict[Partition, list[Record]]) -> None:
        offsets = {source: records[-1].offset + 1 for source, records in batches.items() if records}
        if offsets:
            self._consumer.commit(offsets)
            self._was_reset |= offsets.keys()

    def _observe(self, result: BatchResult, num_records: int, seconds: float) -> None:
        for kind, number in result.records.items():
            self._metrics.records.labels(kind).inc(number)
        self._metrics.windows_sealed.inc(result.num_sealed)
        self._metrics.partitions.set(len(self._readings) + len(self._labels))
        self._metrics.casts_open.set(sum(len(each.casts) for each in self._readings.values()))
        self._metrics.ready.set(self._health.why_not_ready() is None)
        self._metrics.lag.clear()  # of partitions that are another member's now
        offsets = {source: each.offset for source, each in self._readings.items()} | self._labels
        for source, offset in offsets.items():
            end = self._consumer.highwater(source)
            if end is not None:
                self._metrics.lag.labels(source.topic, str(source.partition)).set(max(0, end - offset))
        if num_records:
            self._metrics.batch_seconds.observe(seconds)
            self._metrics.batch_records.observe(num_records)


def _names(partitions: frozenset[Partition]) -> list[str]:
    return [str(partition) for partition in sorted(partitions)]
