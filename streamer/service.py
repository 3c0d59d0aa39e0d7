"""The streamer's loop: Kafka in, windowed and labelled rows in Redis out.

One batch, in this order, and `run_once` repeats the numbers:

    1. poll Kafka
    2. decode, and place in event time, in offset order
    3. flush dead letters
    4. write Redis: rows with `applied`, then the index, then positions
    5. commit offsets

A partition of which most records fail is stopped after step 5, by the rule in `breaker`.

A crash between any two steps repeats records that Redis has judged already, and `applied` skips them. Dead
letters go first: a late record moves `applied` too, so it would not be judged late a second time. When a server
does not answer, everything loaded is forgotten, the partitions pause while polling keeps the membership,
and reading goes on from the smaller of Redis' position and the committed offset.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from streamer.assignment import Assignment, last_record
from streamer.codec import Codec, log_time
from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.errors import (
    BrokerUnavailableError,
    FencedError,
    OffsetGoneError,
    RecordError,
    StoreUnavailableError,
    TrippedError,
)
from streamer.housekeeping import Housekeeping
from streamer.http import Health
from streamer.kafka import GroupConsumer
from streamer.metrics import StreamerMetrics
from streamer.open_casts import OpenCasts
from streamer.outcomes import RecordKind
from streamer.partition import ReadingsPartition
from streamer.records import Partition, RecordBatch
from streamer.schema import Label
from streamer.stopping import Stopping
from streamer.store.casts import MAX_LABELS, CastState, CastStore
from streamer.store.index import WindowIndex
from streamer.store.positions import PositionStore
from streamer.store.stops import StopStore
from streamer.timeline import LogClock

log = structlog.get_logger()

# Smaller: more round trips of an idle member. Larger: an outage is seen later when nothing arrives.
CHECK_INTERVAL_S = 1.0

_SUSPENDS = (StoreUnavailableError, BrokerUnavailableError, FencedError, OffsetGoneError, TrippedError)
Batches = Mapping[Partition, Sequence[RecordBatch]]


@dataclass(slots=True)
class BatchResult:
    """What one turn of the loop did.

    Attributes:
        dead_letters: Records of the labels topics that were refused, by partition.
        label_times: Log time of a label by its cast.
    """

    records: Counter[RecordKind] = field(default_factory=Counter)
    num_sealed: int = 0
    dead_letters: Counter[Partition] = field(default_factory=Counter)
    label_times: dict[str, int] = field(default_factory=dict)


class StreamerService:
    """Runs one member of the consumer group.

    Args:
        codecs: Of each readings topic; absent: as the sources are configured.
        stops: None: no partition is ever stopped, whatever its records are.
        housekeeping: Of the namespace; absent: nothing is evicted, and no label is listed as waiting.
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
        stops: StopStore | None = None,
        codecs: Mapping[str, Codec] | None = None,
        housekeeping: Housekeeping | None = None,
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
        self._housekeeping = housekeeping
        self._clock = clock
        self._open_casts = OpenCasts(settings.consumer.many_open_casts, metrics)
        self._stopping = Stopping(settings, stops, metrics)
        self._assignment = Assignment(
            settings,
            consumer=consumer,
            casts=casts,
            index=index,
            positions=positions,
            stopping=self._stopping,
            metrics=metrics,
            health=health,
            reset=reset,
            clock=clock,
        )
        topics = settings.reading_topics
        self._codecs = codecs or {topic: Codec.of(settings, topic) for topic in topics}
        self._label_codec = self._codecs[topics[0]]
        self._check_at = 0.0
        self._told: set[tuple[str, int | None]] = set()

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Runs until told to stop.

        Raises:
            RefusedError, ConfigError: A person has to decide; nothing was lost.
        """
        while not should_stop():
            self._health.beat()
            try:
                self.run_once()
            except _SUSPENDS as exc:
                self._assignment.suspend(exc)

    def run_once(self) -> BatchResult:
        """One turn of the loop.

        Raises:
            CastingError: Retriable ones leave Kafka and Redis as they are; call `run_once` again.
        """
        polled = self._consumer.poll()  # 1
        self._follow_rebalance()
        self._check_redis()
        started = time.perf_counter()
        result = BatchResult()
        batches = self._by_partition(polled)
        self._take_readings(batches, {batch.source for batch in polled}, result)  # 2
        labels = self._decode_labels(batches, result)
        self._dead_letters.flush()  # 3
        self._write_readings(result)  # 4
        self._write_labels(batches, labels, result)
        if self._housekeeping:
            self._housekeeping.labelled(result.label_times)
        self._move_positions(batches, result)
        self._commit(batches)  # 5
        self._assignment.stop_tripped()
        self._assignment.turn_done()
        num_records = sum(len(batch) for each in batches.values() for batch in each)
        self._metrics.producer_batches.inc(sum(batch.num_producer_batches for batch in polled))
        self._observe(result, num_records, time.perf_counter() - started)
        return result

    def _follow_rebalance(self) -> None:
        self._assignment.follow_rebalance()
        if self._housekeeping:  # before a full Redis is asked whether it takes writes again
            self._housekeeping.sweep_if_due(self._log_times)
        self._assignment.load_due()

    def _log_times(self) -> dict[Partition, int | None]:
        """The partitions of this member, and the log time of those that are loaded and have one."""
        readings = self._assignment.readings
        return {
            each: readings[each].clock.now() if each in readings else None
            for each in self._consumer.assignment()
        }

    def _check_redis(self) -> None:
        """Asks a quiet Redis whether it is there, still the one that was loaded from, and who may go on."""
        if self._clock() < self._check_at:
            return
        self._check_at = self._clock() + CHECK_INTERVAL_S
        if self._assignment:
            self._positions.check_server()
        self._assignment.release()

    def _by_partition(self, polled: Iterable[RecordBatch]) -> dict[Partition, list[RecordBatch]]:
        batches: dict[Partition, list[RecordBatch]] = defaultdict(list)
        for batch in polled:
            if not self._assignment.takes(batch):
                continue
            ours = self._stopping.cut(self._assignment.recognise(batch))
            if len(ours):
                batches[ours.source].append(ours)
        return batches

    # 2. Decode and place

    def _take_readings(self, batches: Batches, busy: Collection[Partition], result: BatchResult) -> None:
        for source, partition in self._assignment.readings.items():
            ours = batches.get(source, ())
            for batch in ours:
                self._take(partition, batch, result)
            self._assignment.check_end(source, partition.offset)
            if source not in busy:  # also by records that are not to be taken
                self._let_time_pass(partition)
            partition.settle()

    def _take(self, partition: ReadingsPartition, batch: RecordBatch, result: BatchResult) -> None:
        decoded = self._codecs[batch.source.topic].decode(batch)
        if unknown := partition.unknown_casts(decoded):
            partition.adopt(self._casts.load(partition.source, unknown))
        taken = partition.take(batch, decoded)
        self._stopping.watch(batch, taken.refused)
        for index, error in taken.refused:
            self._reject(batch, index, error)
        result.records.update(taken.records)
        for outcome, number in taken.steps.items():
            self._metrics.steps.labels(outcome).inc(number)
        self._metrics.unknown_fields.inc(decoded.num_unknown_fields)
        self._metrics.bad_quality.inc(decoded.num_bad_quality)
        for sensor, number in decoded.num_out_of_range.items():
            self._metrics.out_of_range.labels(sensor).inc(number)

    def _reject(self, batch: RecordBatch, index: int, error: RecordError) -> None:
        self._dead_letters.add(batch.record(index), error)
        self._metrics.dead_letters.labels(error.reason).inc()
        if error.reason == "undecodable":
            self._tell_unforeseen(f"{batch.source}@{batch.offset_M[index]}", error)

    def _tell_unforeseen(self, origin: str, error: RecordError) -> None:
        """Logs a fault of ours with its traceback, once however many records show it."""
        cause = error.__cause__
        frames = traceback.extract_tb(cause.__traceback__ if cause else None)
        place = (frames[-1].filename, frames[-1].lineno) if frames else ("", 0)
        if place not in self._told:
            self._told.add(place)
            log.error("unforeseen", origin=origin, exc_info=cause)

    def _let_time_pass(self, partition: ReadingsPartition) -> None:
        """While nothing more lies in the log, log time goes on by the seconds waited.

        It goes no further than the log is known to have been empty, so no record that is in it yet comes too late by
        it. One that enters later is judged as in a backfill if its log time is that of its entering, as stamps made
        on sending are; one that was held back for longer than its cast had left is late here.
        """
        waited_s = self._consumer.quiet_s(partition.source, partition.offset)
        if waited_s is not None:
            partition.clock.waited_ms = int(waited_s * 1000)
            partition.close_due()

    def _decode_labels(self, batches: Batches, result: BatchResult) -> list[tuple[Partition, int, Label]]:
        labels = []
        for source in self._assignment.labels:
            self._assignment.check_end(source, self._assignment.labels[source])
            for batch in batches.get(source, ()):
                self._assignment.labels[source] = batch.next_offset
                refused = []
                for index, offset in enumerate(batch.offset_M.tolist()):
                    try:
                        record = batch.record(index)
                        label, entered_ms = self._label_codec.decode_label(record), log_time(record)
                        labels.append((source, offset, label))
                        result.label_times[label.cast_id] = entered_ms
                    except RecordError as exc:
                        refused.append((index, exc))
                        result.dead_letters[source] += offset >= self._positions.known(source)
                self._stopping.watch(batch, refused)
                for index, error in refused:
                    self._reject(batch, index, error)
                result.records["dead_lettered"] += len(refused)
                result.records["label"] += len(batch) - len(refused)
        return labels

    # 4. Write

    def _write_readings(self, result: BatchResult) -> None:
        for source, partition in self._assignment.readings.items():
            self._casts.announce(source, partition.unlisted())
            self._casts.enrol(partition.first_seen)
            self._casts.save(source, partition.touched.values())
            if self._housekeeping:
                self._housekeeping.seen(partition.first_seen)
            due = [state for state in partition.touched.values() if self._has_new_window(state)]
            indexed = self._index.update([state.cast_id for state in due])
            for state in due:
                state.indexed_step = state.timeline.sealed
            self._casts.finish(source, indexed.finished)
            result.num_sealed += indexed.num_sealed
            partition.batch_done()

    def _has_new_window(self, state: CastState) -> bool:
        timeline = state.timeline
        return timeline.ended or self._index.has_new_windows(
            timeline.first_step, state.indexed_step, timeline.sealed
        )

    def _write_labels(
        self, batches: Batches, labels: Sequence[tuple[Partition, int, Label]], result: BatchResult
    ) -> None:
        by_partition: dict[Partition, set[str]] = defaultdict(set)
        for source, _, label in labels:
            by_partition[source].add(label.cast_id)
        for source, cast_ids in by_partition.items():
            self._casts.announce(source, cast_ids)
        if labels:
            known = {source: self._positions.known(source) for source in by_partition}
            self._refuse_labels(self._casts.add_labels(labels, known), batches, result)
        for source, cast_ids in by_partition.items():
            self._index.update(cast_ids)
            self._casts.finish(source, cast_ids)

    def _refuse_labels(
        self, refused: Sequence[tuple[Partition, int]], batches: Batches, result: BatchResult
    ) -> None:
        """Only Redis knows that a cast has no room for a label; read again, it says the same of it."""
        for source, offset in refused:
            batch = next(each for each in batches[source] if each.next_offset > offset)
            message = f"its cast has {MAX_LABELS:,} other labels already; send an inspection once"
            self._reject(
                batch, int(batch.offset_M.searchsorted(offset)), RecordError("too_many_labels", message)
            )
            result.dead_letters[source] += offset >= self._positions.known(source)
        if refused:
            result.records["label"] -= len(refused)
            result.records["dead_lettered"] += len(refused)
            self._dead_letters.flush()

    def _move_positions(self, batches: Batches, result: BatchResult) -> None:
        for source, ours in batches.items():
            partition = self._assignment.readings.get(source)
            if partition is not None:
                clock, consumed, dead = partition.clock, partition.num_consumed, partition.num_dead_lettered
            else:
                known = self._positions.known(source)
                consumed = sum(int((batch.offset_M >= known).sum()) for batch in ours)
                clock, dead = LogClock(), result.dead_letters[source]
            counts = {"consumed": consumed, "dead_lettered": dead}
            offset = ours[-1].next_offset
            self._positions.move(source, offset, clock, last_record(ours[-1]), counts)
            if partition is not None:
                partition.position_written(offset)

    # 5. Commit

    def _commit(self, batches: Batches) -> None:
        offsets = {source: ours[-1].next_offset for source, ours in batches.items()}
        for source, offset in offsets.items():
            if not self._stopping.is_due(source):  # else what follows was left out
                offsets[source] = self._consumer.read_to(source, offset)
        if offsets:
            self._consumer.commit(offsets)
            self._assignment.committed(set(offsets))

    def _observe(self, result: BatchResult, num_records: int, seconds: float) -> None:
        for kind, number in result.records.items():
            self._metrics.records.labels(kind).inc(number)
        self._metrics.windows_sealed.inc(result.num_sealed)
        offsets = self._assignment.next_offsets()
        self._metrics.partitions.set(len(offsets))
        offsets |= self._stopping.offsets()
        self._open_casts.observe(
            {source: len(each.casts) for source, each in self._assignment.readings.items()}
        )
        self._metrics.ready.set(self._health.why_not_ready() is None)
        self._metrics.lag.clear()  # of partitions that are another member's now
        for source, offset in offsets.items():
            end = self._consumer.highwater(source)
            if end is not None:
                lag = end - offset
                if lag > 0 and source in self._assignment:
                    lag = end - self._consumer.read_to(source, offset)
                self._metrics.lag.labels(source.topic, str(source.partition)).set(max(0, lag))
        if num_records:
            self._metrics.batch_seconds.observe(seconds)
            self._metrics.batch_records.observe(num_records)
