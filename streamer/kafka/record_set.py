"""The records of producer batches in columns: Kafka's message format 2, decompressed, many batches at once.

Only the way from one record to the next is walked in Python; all fields are read by numpy, for all records
together. What is not plainly well-formed is refused as a whole: the client's own parser then says what is wrong.

Shape suffixes: B bytes, M records, P records that have the header at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streamer.records import Headers, IntArray, Partition, RecordBatch
from streamer.slices import HeaderColumn, Slices

ByteArray = npt.NDArray[np.uint8]

# More are read by the client's parser: each takes a column of its own here.
MAX_HEADERS = 8


class NotPlainError(Exception):
    """The bytes are not what the fast parser reads; another one decides what they are."""


@dataclass(slots=True)  # not frozen: made once a producer batch, and a frozen one takes three times as long
class Body:
    """One producer batch without its header.

    Attributes:
        buffer: Holds its records, decompressed, from `begin` to before `end`.
        base_offset, next_offset: Its records lie between; the log may have taken some of them away.
        appended_ms: The broker's own stamp, where the topic says that it counts for all records.
    """

    buffer: bytes
    begin: int
    end: int
    num_records: int
    base_offset: int
    next_offset: int
    first_timestamp_ms: int
    appended_ms: int | None = None


def read_bodies(source: Partition, bodies: Sequence[Body]) -> RecordBatch:
    """Reads producer batches that follow each other.

    Raises:
        NotPlainError: Anything is odd.
    """
    buffer = bodies[0].buffer
    if any(body.buffer is not buffer for body in bodies):
        buffer, bodies = _in_one_buffer(bodies)
    try:
        return _read(source, buffer, bodies)
    except (IndexError, ValueError) as exc:  # a length leads out of the buffer
        raise NotPlainError(str(exc)) from exc


def _in_one_buffer(bodies: Sequence[Body]) -> tuple[bytes, list[Body]]:
    buffer = b"".join([memoryview(body.buffer)[body.begin : body.end] for body in bodies])
    moved, begin = [], 0
    for body in bodies:
        end = begin + body.end - body.begin
        moved.append(replace(body, buffer=buffer, begin=begin, end=end))
        begin = end
    return buffer, moved


def join(batches: Sequence[RecordBatch]) -> RecordBatch:
    """The records of batches of one partition that follow each other."""
    if len(batches) == 1:
        return batches[0]
    return RecordBatch(
        source=batches[0].source,
        offset_M=np.concatenate([batch.offset_M for batch in batches]),
        timestamp_M=np.concatenate([batch.timestamp_M for batch in batches]),
        keys=_join_bytes([batch.keys for batch in batches]),
        values=_join_bytes([batch.values for batch in batches]),
        headers=_join_headers(batches),
        num_producer_batches=sum(batch.num_producer_batches for batch in batches),
    )


def _join_bytes(columns: Sequence[Sequence[bytes | None]]) -> Sequence[bytes | None]:
    slices = [column for column in columns if isinstance(column, Slices)]
    if len(slices) == len(columns):
        return Slices.join(slices)
    return [item for column in columns for item in column]


def _join_headers(batches: Sequence[RecordBatch]) -> Sequence[Headers] | None:
    if all(batch.headers is None for batch in batches):
        return None
    columns = [batch.headers for batch in batches if isinstance(batch.headers, HeaderColumn)]
    if len(columns) == len(batches) and (joined := HeaderColumn.join(columns)) is not None:
        return joined
    return [headers for batch in batches for headers in batch.headers or [()] * len(batch)]


def _read(source: Partition, data: bytes, bodies: Sequence[Body]) -> RecordBatch:
    bytes_B = np.frombuffer(data, dtype=np.uint8)
    at_M, end_M = _record_bounds(data, bytes_B, bodies)
    length_M, at_M = _varints(bytes_B, at_M)
    if not np.array_equal(at_M + length_M, end_M) or (bytes_B[at_M] > 0x7F).any():
        raise NotPlainError("a record has a negative length, or attributes that do not exist yet")
    delta_ms_M, at_M = _varints(bytes_B, at_M + 1)
    offset_delta_M, at_M = _varints(bytes_B, at_M)
    keys, at_M = _slices(data, bytes_B, at_M)
    values, at_M = _slices(data, bytes_B, at_M)
    num_headers_M, at_M = _varints(bytes_B, at_M)
    headers = None
    if num_headers_M.any():
        headers, at_M = _headers(data, bytes_B, num_headers_M, at_M)
    if not np.array_equal(at_M, end_M):
        raise NotPlainError("a record is not as long as it says")
    timestamp_M, offset_M = _absolute(bodies, delta_ms_M, offset_delta_M)
    return RecordBatch(
        source=source,
        offset_M=offset_M,
        timestamp_M=timestamp_M,
        keys=keys,
        values=values,
        headers=headers,
        num_producer_batches=len(bodies),
    )


def _record_bounds(data: bytes, bytes_B: ByteArray, bodies: Sequence[Body]) -> tuple[IntArray, IntArray]:
    """Where each record begins and ends."""
    starts: list[IntArray] = []
    ends: list[IntArray] = []
    for body in bodies:
        end_M = _guess_ends(bytes_B, body)
        ends.append(_walk_ends(data, body) if end_M is None else end_M)
        starts.append(_starts(body, ends[-1]))
    return np.concatenate(starts), np.concatenate(ends)


def _starts(body: Body, end_M: IntArray) -> IntArray:
    return np.concatenate((np.array([body.begin]), end_M[:-1]))


def _guess_ends(bytes_B: ByteArray, body: Body) -> IntArray | None:
    """Where each record ends if each looks as most do; else None.

    A record without headers ends in a zero, which says so; two bytes of length follow, and the next record's
    attributes, which are zero. Text has no zeros. What was found is right if each length leads to the next end; so
    near a zero, a length that is none is read without harm.
    """
    zero_B = bytes_B[body.begin : body.end] == 0
    end_M = np.append(np.flatnonzero(zero_B[:-3] & zero_B[3:]) + 1, body.end - body.begin)
    if len(end_M) != body.num_records:
        return None
    end_M += body.begin
    length_M, at_M = _varints(bytes_B, _starts(body, end_M))
    return end_M if np.array_equal(at_M + length_M, end_M) else None


def _walk_ends(data: bytes, body: Body) -> IntArray:
    """Where each record ends. The loop is the one part that costs Python time a record: no calls in it but one."""
    ends: list[int] = []
    append = ends.append
    at = body.begin
    for _ in range(body.num_records):
        low = data[at]
        if low < 0x80:
            at += (low >> 1) + 1
        elif (high := data[at + 1]) < 0x80:
            at += (
                (high << 6) + (low >> 1) - 62
            )  # the same with seven bits more; 62 = 64 for bit 7 less 2 read
        else:
            at = _end_of_long(data, at)
        append(at)
    if at != body.end:
        raise NotPlainError("the records of a batch do not fill it")
    return np.array(ends, dtype=np.int64)


def _end_of_long(data: bytes, at: int) -> int:
    """The end of a record of 8 KiB or more."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return at + (length >> 1)
        if shift > 28:
            raise NotPlainError("the length of a record has more than five bytes")


def _varints(bytes_B: ByteArray, at_M: IntArray) -> tuple[IntArray, IntArray]:
    """Reads one zigzag varint each; returns the values and where the next field begins."""
    byte_M = bytes_B[at_M]
    value_M = (byte_M & 0x7F).astype(np.uint64)
    at_M = at_M + 1
    more_P = np.flatnonzero(byte_M > 0x7F)
    shift = 7
    while more_P.size:
        if shift > 56:
            raise NotPlainError("a number has more than nine bytes")
        byte_P = bytes_B[at_M[more_P]]
        value_M[more_P] |= (byte_P & 0x7F).astype(np.uint64) << np.uint64(shift)
        at_M[more_P] += 1
        more_P = more_P[byte_P > 0x7F]
        shift += 7
    return (value_M >> np.uint64(1)).view(np.int64) ^ -(value_M & np.uint64(1)).view(np.int64), at_M


def _slices(data: bytes, bytes_B: ByteArray, at_M: IntArray) -> tuple[Slices, IntArray]:
    """Reads one nullable byte string each."""
    length_M, start_M = _varints(bytes_B, at_M)
    end_M = start_M + length_M
    return Slices(data, start_M, end_M), np.maximum(start_M, end_M)


def _headers(
    data: bytes, bytes_B: ByteArray, num_M: IntArray, at_M: IntArray
) -> tuple[HeaderColumn, IntArray]:
    if num_M.min() < 0 or num_M.max() > MAX_HEADERS:
        raise NotPlainError("a record has a negative number of headers, or very many")
    names, values = [], []
    for column in range(int(num_M.max())):
        has_P = np.flatnonzero(num_M > column)
        name_P, at_P = _slices(data, bytes_B, at_M[has_P])
        value_P, at_P = _slices(data, bytes_B, at_P)
        names.append(_names(bytes_B, name_P, has_P, len(num_M)))
        values.append(_spread(value_P, has_P, len(num_M)))
        at_M[has_P] = at_P
    return HeaderColumn(num_M, tuple(names), tuple(values)), at_M


def _names(bytes_B: ByteArray, name_P: Slices, has_P: IntArray, num_records: int) -> str | list[str]:
    """As Java's clients read them: what is not UTF-8 becomes U+FFFD."""
    length_P = name_P.end_M - name_P.start_M
    length = int(length_P[0])
    if length_P.min() < 0:
        raise NotPlainError("a header has no name")
    if (length_P == length).all():
        letters = bytes_B[name_P.start_M[:, np.newaxis] + np.arange(length)]
        if (letters == letters[0]).all():
            return bytes(letters[0]).decode(errors="replace")
    names = [""] * num_records
    for index, name in zip(has_P.tolist(), name_P, strict=True):
        names[index] = (name or b"").decode(errors="replace")
    return names


def _spread(value_P: Slices, has_P: IntArray, num_records: int) -> Slices:
    if len(value_P) == num_records:
        return value_P
    start_M = np.zeros(num_records, dtype=np.int64)
    end_M = np.full(num_records, -1, dtype=np.int64)
    start_M[has_P], end_M[has_P] = value_P.start_M, value_P.end_M
    return Slices(value_P.buffer, start_M, end_M)


def _absolute(
    bodies: Sequence[Body], delta_ms_M: IntArray, offset_delta_M: IntArray
) -> tuple[IntArray, IntArray]:
    counts = [body.num_records for body in bodies]
    base_offset_M = np.repeat([body.base_offset for body in bodies], counts)
    timestamp_M = delta_ms_M + np.repeat([body.first_timestamp_ms for body in bodies], counts)
    if any(body.appended_ms is not None for body in bodies):
        appended = [-1 if body.appended_ms is None else body.appended_ms for body in bodies]
        appended_M = np.repeat(appended, counts)
        timestamp_M = np.where(appended_M >= 0, appended_M, timestamp_M)
    offset_M = base_offset_M + offset_delta_M
    next_offset_M = np.repeat([body.next_offset for body in bodies], counts)
    if (offset_delta_M < 0).any() or (offset_M >= next_offset_M).any() or (np.diff(offset_M) <= 0).any():
        raise NotPlainError("offsets do not ascend, or lie outside of their batch")
    return timestamp_M, offset_M
