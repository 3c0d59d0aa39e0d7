"""The fast path: whole producer batches in columns instead of one object a record.

kafka-python's fetcher looks its record parser up as an attribute. `ColumnRecords` in its place hands out columns;
membership, positions, pausing, CRC and decompression stay the client's. None of this is public API, so it is
switched on for tested versions alone, and whatever is not plain format 2 (older formats, transactions, damage)
goes through the client's own parser, which `ColumnRecords` extends.
"""

from __future__ import annotations

import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import kafka
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.frame import KafkaBytes
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from streamer.kafka import decompression
from streamer.kafka.connection import as_batch, damage
from streamer.kafka.record_set import Body, NotPlainError, read_bodies
from streamer.records import Partition, RecordBatch

# The tests in test_kafka_seam.py compare both paths; add a version once they pass with it.
TESTED_VERSIONS = frozenset({"3.0.12"})

# Of an answer whose size is not known yet; most answers are smaller. The rest is read in one piece.
FIRST_READ_BYTES = 16 * 1024

_HEADER = DefaultRecordBatch.HEADER_STRUCT
_MAGIC_AT = 16
# A header that is cut short fails as it may.
_ODD = (NotPlainError, CorruptRecordError, IndexError, struct.error)
_IN_TRANSACTION = DefaultRecordBatch.TRANSACTIONAL_MASK | DefaultRecordBatch.CONTROL_MASK


def is_tested() -> bool:
    """Whether the seam was tested with the installed client."""
    return kafka.__version__ in TESTED_VERSIONS


def install(consumer: Any) -> None:
    """Makes a `KafkaConsumer` that has not fetched yet hand out `RecordBatch`es, and read its socket in one go.

    In the whole process, the client then decompresses with a limit.
    """
    decompression.install()
    fetcher = consumer._fetcher
    fetcher.PartitionRecords = ColumnRecords
    fetcher._completed_fetches = _Answers(fetcher._subscriptions)
    manager = consumer._client._manager
    manager._build_transport = _with_large_reads(manager._build_transport)


class ColumnRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python ships no types
    """What one fetch brought of one partition, handed out in columns."""

    def __init__(self, fetch_offset: int, tp: Any, records: Any, **options: Any) -> None:
        super().__init__(fetch_offset, tp, records, **options)
        self._records = records
        self._is_plain = True
        self._left: RecordBatch | None = None
        self._read_to = fetch_offset

    def take(self, n: int | None = None) -> Any:
        """Returns a `_Handout` of at most n records, nothing at the end; raises what the client's parser raises."""
        limit = n or sys.maxsize
        while self._left is None and self._is_plain and self._records.has_next():
            self._left = self._read(limit)
        if self._left is None and not self._is_plain:
            return self._take_by_client(limit)
        taken, self._left = _split(self._left, limit)
        self.next_fetch_offset = taken.next_offset if taken and self._left else self._read_to
        if self._left is None and self._is_plain and not self._records.has_next():
            self.drain()
        return _Handout(taken) if taken else ()

    def drain(self) -> None:
        """Forgets the rest."""
        self._left = None
        super().drain()

    def _take_by_client(self, limit: int) -> Any:
        try:
            records = super().take(limit)
        except Exception as exc:
            self.drain()  # the client would ask the same parser again, for ever
            raise damage(self, exc) from exc
        return _Handout(as_batch(records)) if records else ()

    def _read(self, limit: int) -> RecordBatch | None:
        """Reads producer batches until there are enough records; gives what follows to the client if it is odd."""
        start = self._place()
        bodies: list[Body] = []
        num_records, read_to = 0, self._read_to
        while num_records < limit and self._records.has_next():
            place = self._place()
            try:
                body = self._next_body()
            except _ODD:
                self._go_back(place)
                break
            num_records += body.num_records
            self.bytes_read += body.end - body.begin
            read_to = body.next_offset
            if body.num_records:
                bodies.append(body)
        try:
            batch = read_bodies(Partition(*self.topic_partition), bodies) if bodies else None
        except _ODD:
            self._go_back(start)
            return None
        self._read_to = max(read_to, self.fetch_offset)
        return self._count(batch) if batch else None

    def _count(self, batch: RecordBatch) -> RecordBatch | None:
        batch = batch.since(self.fetch_offset)
        self.records_read += len(batch)
        return batch if len(batch) else None

    def _next_body(self) -> Body:
        records = self._records
        data = records._next_slice
        if len(data) < _HEADER.size or data[_MAGIC_AT] != 2:
            raise NotPlainError("an older message format, or cut short")
        base_offset, _, epoch, _, crc, attributes, last_delta, first_ms, max_ms, *_, num_records = (
            _HEADER.unpack_from(data)
        )
        if attributes & _IN_TRANSACTION:
            raise NotPlainError("part of a transaction")
        if self.check_crcs and crc != calc_crc32c(data[DefaultRecordBatch.ATTRIBUTES_OFFSET :]):
            raise NotPlainError("damaged")
        if attributes & DefaultRecordBatch.CODEC_MASK:
            buffer = _decompressed(records.next_batch())
            begin, end = 0, len(buffer)
        else:  # stays where it lies
            buffer, end = records._buffer, records._pos
            begin = end - len(data) + _HEADER.size
            records._cache_next()
        self.leader_epoch = epoch
        appended_ms = max_ms if attributes & DefaultRecordBatch.TIMESTAMP_TYPE_MASK else None
        next_offset = base_offset + last_delta + 1
        return Body(buffer, begin, end, num_records, base_offset, next_offset, first_ms, appended_ms)

    def _place(self) -> tuple[Any, Any]:
        return self._records._pos, self._records._next_slice

    def _go_back(self, place: tuple[Any, Any]) -> None:
        self._records._pos, self._records._next_slice = place
        self._is_plain = False


def _decompressed(batch: Any) -> bytes:
    """The records of a compressed batch, as the client's codecs give them."""
    try:
        iter(batch)
    except Exception as exc:  # whatever the codec raised, the client's parser raises in its turn
        raise NotPlainError(str(exc)) from exc
    return bytes(memoryview(batch._buffer)[batch._pos :])


class _Handout:
    """One batch, which the fetcher counts by its records and appends as one item."""

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch)

    def __iter__(self) -> Iterator[RecordBatch]:
        yield self._batch


def _split(batch: RecordBatch | None, limit: int) -> tuple[RecordBatch | None, RecordBatch | None]:
    if batch is None or len(batch) <= limit:
        return batch, None
    return batch.cut(0, limit), batch.cut(limit, len(batch))


class _Answers(deque[Any]):
    """Answers of brokers that wait to be read, without those that say "nothing new".

    The client asks for more only when no answer is left, and such a one would count.
    """

    def __init__(self, subscriptions: Any) -> None:
        super().__init__()
        self._subscriptions = subscriptions

    def append(self, fetch: Any) -> None:
        if not _says_nothing(fetch):
            super().append(fetch)
            return
        state = self._subscriptions.assignment.get(fetch.topic_partition)
        if state is not None and fetch.partition_data.high_watermark >= 0:
            state.highwater = fetch.partition_data.high_watermark

    def copy(self) -> Any:
        return deque(self)  # the base class would call our constructor


def _says_nothing(fetch: Any) -> bool:
    data = fetch.partition_data
    diverging = data.diverging_epoch is not None and data.diverging_epoch.end_offset >= 0
    other_replica = data.preferred_read_replica is not None and data.preferred_read_replica >= 0
    nothing = not (data.error_code or data.records or diverging or other_replica)
    return nothing and fetch.metric_aggregator is None


class _Frame(KafkaBytes):  # type: ignore[misc]  # kafka-python ships no types
    """The answer of a broker as it comes in; what is read of it is copied once, not twice."""

    def read(self, nbytes: int | None = None) -> bytes:
        start = self.tell()
        end = len(self) if nbytes is None else min(start + nbytes, len(self))
        self.seek(end)
        with memoryview(self) as view:
            return bytes(view[start:end])


def _with_large_reads(build: Callable[..., Any]) -> Callable[..., Any]:
    async def build_transport(*args: Any, **options: Any) -> Any:
        transport = await build(*args, **options)
        if type(transport) is KafkaTCPTransport:
            transport._sock_recv = _large_reads(transport, transport._sock_recv)
        return transport

    return build_transport


def _large_reads(transport: Any, read_small: Callable[[], Any]) -> Callable[[], Any]:
    """Reads what is left of an answer straight into its frame, but for the last byte: that one completes it."""

    def read() -> Any:
        parser = getattr(transport.get_protocol(), "parser", None)
        frame = parser._rbuffer if parser is not None and parser._receiving else None
        try:
            if frame is not None and frame.tell() + 1 < len(frame):
                _read_into(frame, transport._sock)
                return b"", None
            chunk = transport._sock.recv(FIRST_READ_BYTES)
        except OSError:
            chunk = b""
        return (chunk, None) if chunk else read_small()  # which knows what silence and errors mean

    return read


def _read_into(frame: Any, socket: Any) -> None:
    """Raises:
    OSError: There is nothing to read now, or never again.
    """
    frame.__class__ = _Frame
    at = frame.tell()
    with memoryview(frame) as view, view[at:-1] as rest:
        num_read = socket.recv_into(rest)
    if not num_read:
        raise ConnectionResetError("the other side closed the connection")
    frame.seek(at + num_read)
