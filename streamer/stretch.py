"""A stretch of log time, and the first pass over the topics: which casts began in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from streamer.codec import Codec
from streamer.columns import DecodedBatch
from streamer.config import StreamerSettings
from streamer.errors import OffsetGoneError
from streamer.http import Health
from streamer.kafka.log_consumer import LogConsumer
from streamer.process import StoppedError, StopRequest, wait_for_server
from streamer.records import Partition, RecordBatch

T = TypeVar("T")
MAX_SILENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Log time from `begin_ms` up to `end_ms`, epoch ms, the end left out."""

    begin_ms: int
    end_ms: int

    def __contains__(self, log_time_ms: int) -> bool:
        return self.begin_ms <= log_time_ms < self.end_ms


def patiently(action: Callable[[], T], stop: StopRequest) -> T:
    """Repeats an action until its server answers.

    Raises:
        StoppedError: A stop was asked for meanwhile.
    """
    return wait_for_server(action, stop, Health(MAX_SILENCE_S))


class StretchLog(LogConsumer):
    """The topics up to where they ended when the backfill started.

    Args:
        ends: Of all readings partitions; absent: where they end now.

    Attributes:
        read_again: Partitions that are read from their beginning, whatever their position.
    """

    def __init__(
        self, settings: StreamerSettings, topics: Sequence[str], ends: Mapping[Partition, int] | None = None
    ) -> None:
        super().__init__(settings.kafka, settings.consumer, topics)
        if ends:
            self._ends = {partition: ends.get(partition, 0) for partition in self._ends}
        self.read_again: Collection[Partition] = ()

    @property
    def ends(self) -> dict[Partition, int]:
        """Where each partition ends for us."""
        return self._ends

    def poll(self) -> list[RecordBatch]:
        """As of a group, without what came since."""
        before = self.num_records
        cut = [batch.until(self._ends[batch.source]) for batch in super().poll()]
        batches = [batch for batch in cut if len(batch)]
        self.num_records = before + sum(map(len, batches))
        return batches

    def committed(self, partition: Partition) -> int | None:
        """Before the position where a partition is read again: reading goes on from the smaller of the two."""
        return self.beginning_offset(partition) if partition in self.read_again else None


class FirstPass:
    """Reads all readings topics once, and notes of each cast when it was first seen.

    Raises:
        BrokerUnavailableError: The broker does not answer, or has no such topic; once it was there, it is waited for.
    """

    def __init__(self, settings: StreamerSettings) -> None:
        self._codecs = {topic: Codec.of(settings, topic) for topic in settings.reading_topics}
        self._consumer = StretchLog(settings, settings.reading_topics)
        self._next = dict.fromkeys(self._consumer.partitions, 0)
        self._is_sought = False
        self._first_ms: dict[str, int] = {}

    @property
    def ends(self) -> dict[Partition, int]:
        """Where the topics ended at the start."""
        return self._consumer.ends

    def casts_of(self, stretch: Stretch, stop: StopRequest) -> frozenset[str]:
        """The casts whose first record that can be read lies in the stretch; it may come out late or refused.

        Raises:
            StoppedError: A stop was asked for.
        """
        while not patiently(self._read_on, stop):
            if stop():
                raise StoppedError("stopped while looking for casts")
        return frozenset(cast_id for cast_id, log_time_ms in self._first_ms.items() if log_time_ms in stretch)

    def _read_on(self) -> bool:
        """Takes one poll in; returns whether the end is reached."""
        if not self._is_sought:
            self._seek()
        self._is_sought = False  # until what was handed out is taken in
        try:
            batches = self._consumer.poll()
        except OffsetGoneError:
            if not self._has_lost_its_place():
                raise
            return False
        for batch in batches:
            for cast_id, log_time_ms in _first_seen(self._codecs[batch.source.topic].decode(batch)):
                self._first_ms.setdefault(cast_id, log_time_ms)
            self._next[batch.source] = batch.next_offset
        at_end = self._consumer.at_end()
        self._is_sought = True
        return at_end

    def _seek(self) -> None:
        for partition, offset in self._next.items():
            self._next[partition] = max(offset, self._consumer.beginning_offset(partition))
            self._consumer.seek(partition, self._next[partition])
            self._consumer.resume(partition)

    def _has_lost_its_place(self) -> bool:
        """Whether retention has passed us."""
        return any(self._consumer.beginning_offset(each) > at for each, at in self._next.items())

    def close(self) -> None:
        """Ends the client."""
        self._consumer.close()


def _first_seen(decoded: DecodedBatch) -> list[tuple[str, int]]:
    """(cast, log time of its first record) in a batch."""
    readings = decoded.readings
    cast_C, first_C = np.unique(readings.cast_R, return_index=True)
    found = dict(zip(cast_C.tolist(), readings.record_R[first_C].tolist(), strict=True))
    first = {readings.cast_ids[cast]: index for cast, index in found.items()}
    for index, event in decoded.controls:
        first[event.cast_id] = min(index, first.get(event.cast_id, index))
    return [(cast_id, int(decoded.log_time_M[index])) for cast_id, index in first.items()]
