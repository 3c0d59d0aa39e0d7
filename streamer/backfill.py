"""Reads a stretch of the topics again, into a namespace of its own, with the code that reads them live.

A cast belongs to the stretch if the log time of its first record lies in it. It is then taken whole, wherever its
readings lie, and with the labels of all times; a cast that began before is left out altogether, so of two stretches
that meet each cast is in one. Which casts these are is found in a first pass over the readings; in the second, what
lies outside moves the log clock, as it did live, and nothing else.

A backfill commits no offsets and writes no dead letters: the live stream has written them. Broken off and started
again, it looks for the casts anew and goes on where it was, except that labels are read from their beginning each
time: one may have come long before a cast that was found only now. It ends where the topics ended when it started; a
cast that is open there stays open, unless it is told that nothing more will come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import structlog

from streamer.codec import Codec, log_time
from streamer.columns import NO_TIME, DecodedBatch, ReadingColumns
from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.errors import FencedError, RecordError, RefusedError
from streamer.http import Health
from streamer.metrics import StreamerMetrics
from streamer.process import StoppedError, StopRequest
from streamer.records import Partition, Record, RecordBatch
from streamer.schema import Label
from streamer.service import Batches, BatchResult, StreamerService
from streamer.store.casts import CastStore
from streamer.store.connection import Client, connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import check_server, claim_backfill, claim_namespace, claim_spec
from streamer.store.positions import PositionStore
from streamer.stretch import MAX_SILENCE_S, FirstPass, Stretch, StretchLog, patiently

log = structlog.get_logger()


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
        RefusedError: The namespace holds something else, or Redis was restarted while labels were read.
        FencedError: Redis was restarted between two passes.
        StoreUnavailableError, BrokerUnavailableError: A server is away at the start; later on it is waited for.
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
        first_pass = FirstPass(settings)
        stack.callback(first_pass.close)
        with suppress(StoppedError):
            chosen = first_pass.casts_of(stretch, stop)
            first_pass.close()
            result.num_casts = len(chosen)
            log.info("casts found", casts=len(chosen), namespace=keys.namespace)
            for part in (topics, (settings.topics.labels,)):
                make = partial(
                    _Run,
                    settings,
                    client,
                    part,
                    ends=first_pass.ends,
                    chosen=chosen,
                    stretch=stretch,
                    result=result,
                )
                run = patiently(make, stop)
                stack.callback(run.consumer.close)
                run.to_the_end(stop, close_open=close_open)
            result.is_complete = not stop()
    return result


class _Run:
    """One pass over the topics of one kind."""

    def __init__(
        self,
        settings: StreamerSettings,
        client: Client,
        topics: Sequence[str],
        *,
        ends: Mapping[Partition, int],
        chosen: frozenset[str],
        stretch: Stretch,
        result: BackfillResult,
    ) -> None:
        keys, data = Keys(settings.redis.namespace), settings.data
        self._idle_s = settings.event_time.idle_timeout_s + settings.event_time.allowed_lateness_s
        self._result = result
        self._casts = CastStore(client, keys, data)
        positions = PositionStore(client, keys)
        if topics == settings.reading_topics:
            self.consumer, service_class = StretchLog(settings, topics, ends), _StretchService
        else:
            self.consumer, service_class = StretchLog(settings, topics), _LabelsService
            self.consumer.read_again = positions.load_all()
        self._service = service_class(
            settings,
            chosen,
            result,
            self.consumer,
            casts=self._casts,
            index=WindowIndex(client, keys, data, settings.windows),
            positions=positions,
            dead_letters=_CountedLetters(result.dead_letters, stretch, settings.topics.labels),
            metrics=StreamerMetrics.of(settings),
            health=Health(MAX_SILENCE_S),
            codecs={
                topic: _StretchCodec(settings, topic, stretch, chosen) for topic in settings.reading_topics
            },
        )

    def to_the_end(self, stop: StopRequest, *, close_open: bool) -> None:
        """Reads on, outages included, until all that lay in the topics is written."""
        self._service.run(lambda: stop() or self._service.is_done)
        if close_open and not stop():
            self.consumer.waited_s = self._idle_s + 1
            self._service.is_done = False
            self._service.run(lambda: stop() or self._service.is_done)
        self._result.num_records += self.consumer.num_records
        self._result.num_open_casts += patiently(self._num_open_casts, stop)

    def _num_open_casts(self) -> int:
        return sum(len(self._casts.open_casts(partition)) for partition in self.consumer.partitions)


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
        consumer: StretchLog,
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


class _LabelsService(_StretchService):
    """The pass over the labels: it reads them again where Redis has lost some, and readings it cannot."""

    def run_once(self) -> BatchResult:
        """One turn, counted.

        Raises:
            RefusedError: Redis may have lost what the pass over the readings wrote last.
        """
        try:
            return super().run_once()
        except FencedError as exc:
            raise RefusedError(f"{exc}; readings may be lost as well: run it again") from exc


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
        entered_M = np.where(log_time_M == NO_TIME, batch.timestamp_M, log_time_M)
        decoded.refused = [each for each in decoded.refused if int(entered_M[each[0]]) in self._stretch]
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
    """Counts what the live stream has kept already.

    Readings and events are chosen before; labels are read whole, and only those of the stretch count.
    """

    def __init__(self, counts: Counter[str], stretch: Stretch, labels: str) -> None:
        self._counts = counts
        self._stretch = stretch
        self._labels = labels

    def add(self, record: Record, error: RecordError) -> None:
        """Counts one."""
        if record.topic != self._labels or _log_time(record) in self._stretch:
            self._counts[error.reason] += 1

    def flush(self) -> None:
        """There is nothing to write."""


def _log_time(record: Record) -> int:
    try:
        return log_time(record)
    except RecordError:
        return record.timestamp_ms
