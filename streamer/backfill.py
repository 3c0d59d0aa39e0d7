"""Reads a stretch of the topics again, into a namespace of its own, with the code that reads them live.

A cast belongs to the stretch if the log time of its first record lies in it. It is then taken whole, wherever its
readings lie, and with the labels of all times; a cast that began before is left out altogether, so of two stretches
that meet each cast is in one. Which casts these are is found in a first pass over the readings; in the second, what
lies outside moves the log clock, as it did live, and nothing else.

A backfill commits no offsets and writes no dead letters: the live stream has written them. Broken off and started
again, it goes on where it was. It ends where the topics ended when it started; a cast that is open there stays open,
unless it is told that nothing more will come.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from streamer.codec import Codec
from streamer.columns import DecodedBatch, ReadingColumns
from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.errors import RecordError
from streamer.http import Health
from streamer.kafka.log_consumer import LogConsumer
from streamer.metrics import StreamerMetrics
from streamer.process import StopRequest
from streamer.records import Partition, Record, RecordBatch
from streamer.schema import Label
from streamer.service import Batches, BatchResult, StreamerService
from streamer.store.casts import CastStore
from streamer.store.connection import Client, connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import check_server, claim_backfill, claim_namespace, claim_spec
from streamer.store.positions import PositionStore

log = structlog.get_logger()

MAX_SILENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Log time from `begin_ms` up to `end_ms`, epoch ms, the end left out."""

    begin_ms: int
    end_ms: int

    def __contains__(self, log_time_ms: int) -> bool:
        return self.begin_ms <= log_time_ms < self.end_ms


@dataclass(slots=True)
class BackfillResult:
    """What a backfill did.

    Attributes:
        num_casts: Casts of the stretch.
        num_open_casts: Those that are not over where the topics end.
        num_records: Records read, of the stretch or not.
        dead_letters: Records of the stretch that cannot be used, by reason.
        is_complete: Whether it came to the end; False: it was stopped.
    """

    num_casts: int = 0
    num_open_casts: int = 0
    num_records: int = 0
    num_sealed_windows: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    is_complete: bool = False


def run_backfill(
    settings: StreamerSettings, stretch: Stretch, stop: StopRequest, *, close_open: bool = False
) -> BackfillResult:
    """Fills the namespace of the settings with the casts of a stretch.

    Args:
        close_open: Nothing more will come: casts that are open at the end are over, as after the idle time-out.

    Raises:
        RefusedError: The namespace holds something else.
        StoreUnavailableError, BrokerUnavailableError: A server is away at the start.
    """
    result = BackfillResult()
    with ExitStack() as stack:
        client = connect(settings.redis)
        stack.callback(client.close)
        keys = Keys(settings.redis.namespace)
        topics = settings.reading_topics
        check_server(client)
        claim_backfill(client, keys, f"{stretch.begin_ms}..{stretch.end_ms} of {', '.join(topics)}")
        claim_namespace(client, keys, settings.data)
        claim_spec(client, keys, settings.windows)
        chosen = casts_of(settings, stretch, stop)
        result.num_casts = len(chosen)
        log.info("casts found", casts=len(chosen), namespace=keys.namespace)
        for part in (topics, (settings.topics.labels,)):
            if not stop():
                run = _Run(settings, client, part, stretch=stretch, chosen=chosen, result=result)
                stack.callback(run.consumer.close)
                run.to_the_end(stop, close_open=close_open)
        result.is_complete = not stop()
    return result


def casts_of(settings: StreamerSettings, stretch: Stretch, stop: Callable[[], bool]) -> frozenset[str]:
    """The casts whose first record that can be read lies in the stretch; the record may come out late or refused.

    Raises:
        BrokerUnavailableError: The broker does not answer, or has no such topic.
    """
    codecs = {topic: Codec.of(settings, topic) for topic in settings.reading_topics}
    first_ms: dict[str, int] = {}
    consumer = LogConsumer(settings.kafka, settings.consumer, settings.reading_topics)
    try:
        for partition in consumer.partitions:
            consumer.seek(partition, consumer.beginning_offset(partition))
            consumer.resume(partition)
        consumer.take_rebalance()
        while not consumer.at_end() and not stop():
            for batch in consumer.poll():
                for cast_id, log_time_ms in _first_seen(codecs[batch.source.topic].decode(batch)):
                    first_ms.setdefault(cast_id, log_time_ms)
    finally:
        consumer.close()
    return frozenset(cast_id for cast_id, log_time_ms in first_ms.items() if log_time_ms in stretch)


def _first_seen(decoded: DecodedBatch) -> list[tuple[str, int]]:
    """(cast, log time of its first record) in a batch."""
    readings = decoded.readings
    cast_C, first_C = np.unique(readings.cast_R, return_index=True)
    found = dict(zip(cast_C.tolist(), readings.record_R[first_C].tolist(), strict=True))
    first = {readings.cast_ids[cast]: index for cast, index in found.items()}
    for index, event in decoded.controls:
        first[event.cast_id] = min(index, first.get(event.cast_id, index))
    return [(cast_id, int(decoded.log_time_M[index])) for cast_id, index in first.items()]


class _Run:
    """One pass over the topics of one kind."""

    def __init__(
        self,
        settings: StreamerSettings,
        client: Client,
        topics: Sequence[str],
        *,
        stretch: Stretch,
        chosen: frozenset[str],
        result: BackfillResult,
    ) -> None:
        keys, data = Keys(settings.redis.namespace), settings.data
        self._idle_s = settings.event_time.idle_timeout_s + settings.event_time.allowed_lateness_s
        self._skipped_s = 0.0
        self._result = result
        self._casts = CastStore(client, keys, data)
        self.consumer = LogConsumer(settings.kafka, settings.consumer, topics)
        self._service = _StretchService(
            settings,
            chosen,
            result,
            self.consumer,
            casts=self._casts,
            index=WindowIndex(client, keys, data, settings.windows),
            positions=PositionStore(client, keys),
            dead_letters=_CountedLetters(result.dead_letters),
            metrics=StreamerMetrics(),
            health=Health(MAX_SILENCE_S),
            clock=lambda: time.monotonic() + self._skipped_s,
            codecs={
                topic: _StretchCodec(settings, topic, stretch, chosen) for topic in settings.reading_topics
            },
        )

    def to_the_end(self, stop: Callable[[], bool], *, close_open: bool) -> None:
        """Reads on, outages included, until all that lay in the topics is written."""
        self._service.run(lambda: stop() or self._service.is_done)
        if close_open and not stop():
            self.consumer.tells_ends = True
            self._turn()  # nothing comes
            self._skipped_s += self._idle_s + 1
            self._turn()  # for so long
        open_casts = [self._casts.open_casts(partition) for partition in self.consumer.partitions]
        self._result.num_records += self.consumer.num_records
        self._result.num_open_casts += sum(map(len, open_casts))

    def _turn(self) -> None:
        turns = iter([False, True])
        self._service.run(lambda: next(turns))


class _StretchService(StreamerService):
    """The loop of the live stream, with the labels of chosen casts.

    Attributes:
        is_done: Whether all that lay in the topics at the start is written.
    """

    def __init__(
        self,
        settings: StreamerSettings,
        chosen: frozenset[str],
        result: BackfillResult,
        consumer: LogConsumer,
        **parts: Any,
    ) -> None:
        super().__init__(settings, consumer=consumer, **parts)
        self._chosen = chosen
        self._result = result
        self._log = consumer
        self.is_done = False

    def run_once(self) -> BatchResult:
        """One turn, counted."""
        result = super().run_once()
        self._result.num_sealed_windows += result.num_sealed
        # What was handed out is written; a partition that an outage made us forget is not sought back yet.
        are_loaded = len(self._assignment.next_offsets()) == len(self._log.partitions)
        self.is_done = are_loaded and self._log.at_end()
        return result

    def _decode_labels(self, batches: Batches, result: BatchResult) -> list[tuple[Partition, int, Label]]:
        labels = super()._decode_labels(batches, result)
        return [each for each in labels if each[2].cast_id in self._chosen]


class _StretchCodec(Codec):
    """Leaves out readings and events of other casts, and refusals outside the stretch."""

    def __init__(
        self, settings: StreamerSettings, topic: str, stretch: Stretch, chosen: Collection[str]
    ) -> None:
        super().__init__(settings.data.sensors, settings.source_of(topic), settings.label_source)
        self._stretch = stretch
        self._chosen = chosen

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        decoded = super().decode(batch)
        log_time_M = decoded.log_time_M
        decoded.readings = only(decoded.readings, self._chosen)
        decoded.controls = [each for each in decoded.controls if each[1].cast_id in self._chosen]
        decoded.refused = [each for each in decoded.refused if int(log_time_M[each[0]]) in self._stretch]
        return decoded


def only(readings: ReadingColumns, chosen: Collection[str]) -> ReadingColumns:
    """The readings of some casts."""
    keep_C = np.array([cast_id in chosen for cast_id in readings.cast_ids], dtype=np.bool_)
    if keep_C.all():
        return readings
    keep_R = keep_C[readings.cast_R]
    keep_N = np.repeat(keep_R, readings.num_rows_R)
    number_C = np.cumsum(keep_C) - 1
    return ReadingColumns(
        record_R=readings.record_R[keep_R],
        cast_R=number_C[readings.cast_R[keep_R]],
        ts_R=readings.ts_R[keep_R],
        period_R=readings.period_R[keep_R],
        num_rows_R=readings.num_rows_R[keep_R],
        values_NF=readings.values_NF[keep_N],
        stop_NF=None if readings.stop_NF is None else readings.stop_NF[keep_N],
        cast_ids=[cast_id for cast_id, keep in zip(readings.cast_ids, keep_C, strict=True) if keep],
        strands=[strand for strand, keep in zip(readings.strands, keep_C, strict=True) if keep],
    )


class _CountedLetters(DeadLetters):
    """Counts what the live stream has kept already."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def add(self, record: Record, error: RecordError) -> None:  # noqa: ARG002 - as of all dead letters
        """Counts one."""
        self._counts[error.reason] += 1

    def flush(self) -> None:
        """There is nothing to write."""
