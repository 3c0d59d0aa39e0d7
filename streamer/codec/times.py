"""Times of messages and of the log: whatever a source writes, we go on with epoch milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from streamer.columns import NO_TIME
from streamer.errors import RecordError
from streamer.records import Headers, IntArray, Record, RecordBatch
from streamer.slices import HeaderColumn
from streamer.sources import TimeConfig

# Epoch milliseconds outside 1990..2100 are seconds or microseconds by mistake.
MIN_TS, MAX_TS = 631_152_000_000, 4_102_444_800_000
SENT_AT = "sent-at"
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How many of a unit make a millisecond.
_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_NAMES = {"ms": "milliseconds", "s": "seconds", "us": "microseconds", "ns": "nanoseconds"}
_POWERS = 10 ** np.arange(12, -1, -1, dtype=np.int64)


def log_time(record: Record) -> int:
    """Epoch ms at which the record entered the log: its header `sent-at`, or else Kafka's timestamp.

    Raises:
        RecordError: ``bad_sent_at``, ``bad_timestamp``: it is not a plausible epoch in milliseconds.
    """
    return _log_time(record.headers, record.timestamp_ms)


def log_times(batch: RecordBatch) -> tuple[IntArray, list[tuple[int, RecordError]]]:
    """`log_time` of each record, `NO_TIME` where it is unusable, and what is wrong with these."""
    if batch.headers is None or _none_says(SENT_AT, batch.headers):
        return _timestamps(batch.timestamp_M)
    alike_M = _sent_at_alike(batch.headers)
    if alike_M is not None:
        return alike_M, []
    times, refused = [], []
    for index, (headers, timestamp_ms) in enumerate(
        zip(batch.headers, batch.timestamp_M.tolist(), strict=True)
    ):
        try:
            times.append(_log_time(headers, timestamp_ms))
        except RecordError as exc:
            times.append(NO_TIME)
            refused.append((index, exc))
    return np.array(times, dtype=np.int64), refused


def _log_time(headers: Headers, timestamp_ms: int) -> int:
    sent_at = _sent_at(headers)
    if sent_at is not None:
        return sent_at
    if MIN_TS <= timestamp_ms <= MAX_TS:
        return timestamp_ms
    raise _bad_timestamp(timestamp_ms)


def _timestamps(timestamp_M: IntArray) -> tuple[IntArray, list[tuple[int, RecordError]]]:
    """Kafka's timestamps as log times: a wild one says nothing of when its record was sent."""
    if timestamp_M.min() >= MIN_TS and timestamp_M.max() <= MAX_TS:
        return timestamp_M, []
    wild = np.flatnonzero((timestamp_M < MIN_TS) | (timestamp_M > MAX_TS)).tolist()
    log_time_M = timestamp_M.copy()
    log_time_M[wild] = NO_TIME
    return log_time_M, [(index, _bad_timestamp(int(timestamp_M[index]))) for index in wild]


def _bad_timestamp(timestamp_ms: int) -> RecordError:
    said = (
        "no timestamp"
        if timestamp_ms == -1
        else f"the timestamp {timestamp_ms}, which is not of 1990 to 2100"
    )
    message = f"the record has {said}, and no header {SENT_AT}: send epoch milliseconds in either"
    return RecordError("bad_timestamp", message)


def _none_says(name: str, headers_M: Sequence[Headers]) -> bool:
    """Whether it is plain at a glance that no record has a header of that name."""
    names = headers_M.uniform_names() if isinstance(headers_M, HeaderColumn) else None
    return names is not None and name not in names


def _sent_at_alike(headers_M: Sequence[Headers]) -> IntArray | None:
    """The headers `sent-at` of records that all have it at the same place, with 13 digits; else None."""
    column = headers_M.values_of(SENT_AT) if isinstance(headers_M, HeaderColumn) else None
    sent_at_M = _thirteen_digits(headers_M) if column is None else column.digits(13)
    if sent_at_M is None or sent_at_M.min() < MIN_TS or sent_at_M.max() > MAX_TS:
        return None
    return sent_at_M


def _thirteen_digits(headers_M: Sequence[Headers]) -> IntArray | None:
    if len(set(map(len, headers_M))) != 1:
        return None
    place = next((place for place, (name, _) in enumerate(headers_M[0]) if name == SENT_AT), None)
    if place is None:
        return None
    before = [set(map(itemgetter(0), map(itemgetter(index), headers_M))) for index in range(place)]
    names, values = zip(*map(itemgetter(place), headers_M), strict=True)
    if set(names) != {SENT_AT} or any(SENT_AT in others for others in before) or None in values:
        return None
    if set(map(len, values)) != {13}:
        return None
    digit_MD = np.frombuffer(b"".join(values), np.uint8).reshape(-1, 13) - np.uint8(48)
    if (digit_MD > 9).any():
        return None
    sent_at_M: IntArray = digit_MD.astype(np.int64) @ _POWERS
    return sent_at_M


def _sent_at(headers: Headers) -> int | None:
    for name, value in headers:
        if name == SENT_AT and value is not None:
            if value.isdigit() and len(value) < 20 and MIN_TS <= (sent_at := int(value)) <= MAX_TS:
                return sent_at
            raise RecordError("bad_sent_at", f"header sent-at is {value[:40]!r}, expected epoch milliseconds")
    return None


class TimeReader:
    """Reads the times of one source: numbers in its unit, or RFC 3339.

    A time without an offset is local, in the source's zone. One that its clocks show twice or never (the hours
    that summer time repeats and leaves out) is not read: which instant was meant cannot be known.
    """

    def __init__(self, config: TimeConfig) -> None:
        self.unit = config.unit
        self.per_ms = _PER_MS.get(config.unit, 1)
        self._zone = None if config.zone is None else ZoneInfo(config.zone)

    @property
    def expected(self) -> str:
        """What is read, for messages."""
        text = "RFC 3339" if self._zone is not None else "RFC 3339 with a zone"
        return text if self.unit == "rfc3339" else f"epoch {_NAMES[self.unit]} or {text}"

    def read(self, value: Any) -> int | None:
        """Epoch ms, a part of a millisecond cut off; None if it is no time, or out of range."""
        if isinstance(value, str):
            ms = self._text(value)
        elif type(value) is int or type(value) is float:
            ms = self._number(value)
        else:
            return None
        return ms if ms is not None and MIN_TS <= ms <= MAX_TS else None

    def read_texts(self, texts: Iterable[str]) -> list[int | None]:
        """`read` of many texts: those of one minute differ in their seconds only."""
        minutes: dict[str, int | None] = {}
        return [self._within_minute(text, minutes) for text in texts]

    def _within_minute(self, text: str, minutes: dict[str, int | None]) -> int | None:
        offset = 1 if text[-1:] == "Z" else 6
        second, dot, fraction = text[17:-offset].partition(".")
        # Whatever looks odd is read by itself.
        is_plain = len(second) == 2 and second < "60" and (second + fraction).isdecimal() and text.isascii()
        if not is_plain or (dot and not 0 < len(fraction) < 10) or (offset == 6 and text[-6] not in "+-"):
            return self.read(text)
        minute = f"{text[:17]}00{text[-offset:]}"
        if minute not in minutes:
            minutes[minute] = self.read(minute)
        start = minutes[minute]
        if start is None or start + 60_000 > MAX_TS:
            return self.read(text)
        return start + int(second) * 1000 + int(fraction[:3].ljust(3, "0"))

    def _number(self, value: int | float) -> int | None:
        if self.unit == "rfc3339" or (isinstance(value, float) and not math.isfinite(value)):
            return None
        if self.unit == "s":
            ms = value * 1000
            # To the nearest: 1763796000.123 s are 1763796000122.99995 ms in floating point.
            return round(ms) if math.isfinite(ms) else None
        if isinstance(value, float):
            if not value.is_integer():
                return None
            value = int(value)
        return value // self.per_ms

    def _text(self, value: str) -> int | None:
        match = _RFC3339.fullmatch(value)
        if match is None:
            return None
        try:
            instant = datetime.fromisoformat(value.upper().replace(" ", "T"))
        except ValueError:
            return None
        if instant.tzinfo is None:
            local = self._local(instant)
            if local is None:
                return None
            instant = local
        since = instant - _EPOCH
        return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000

    def _local(self, naive: datetime) -> datetime | None:
        if self._zone is None:
            return None
        early, late = naive.replace(tzinfo=self._zone), naive.replace(tzinfo=self._zone, fold=1)
        return early if early.utcoffset() == late.utcoffset() else None


_READER = TimeReader(TimeConfig())


def parse_time(value: Any) -> int | None:
    """Epoch ms from epoch ms or an RFC 3339 string with a zone; None if it is neither or out of range."""
    return _READER.read(value)
