"""A dead letter as it lies in its topic: what was wrong with which record, and the record as it came. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from streamer.codec import MAX_TS, MIN_TS
from streamer.dead_letters import headers as names
from streamer.errors import ConfigError
from streamer.records import Headers, Partition, Record

_ORIGIN = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,9})@(\d{1,18})")
_CUTS = (names.VALUE_BYTES, names.KEY_BYTES, names.NUM_DROPPED)


class Origin(NamedTuple):
    """Where a record lies, or lay."""

    topic: str
    partition: int
    offset: int

    @property
    def source(self) -> Partition:
        """The partition."""
        return Partition(self.topic, self.partition)

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """The reverse of `str`.

        Raises:
            ConfigError: It is no origin.
        """
        if match := _ORIGIN.fullmatch(text):
            return cls(match[1], int(match[2]), int(match[3]))
        raise ConfigError(f"{text!r} is no origin; expected topic/partition@offset: casting.readings/2@1234")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        origin: Of the record that it holds.
        reason: The word that metrics and documents use.
        message: What is wrong in full, the reason first.
        at_ms: When it became one, epoch ms.
        logged_ms: Kafka's time of the record, None where it is not known.
        namespace: That judged it, None where it is not known.
        first_origin: Of the record that was sent first, where this one was sent again from a dead letter.
        num_replays: How many times that was done by then.
        key, value, headers: The record's own, as they came.
        cut: What of it was too large to be kept, None if it is whole.
    """

    origin: Origin
    reason: str
    message: str
    stage: str
    at_ms: int
    logged_ms: int | None
    namespace: str | None
    first_origin: Origin | None
    num_replays: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    cut: str | None

    @property
    def num_attempts(self) -> int:
        """How many times the record was judged unusable."""
        return self.num_replays + 1

    def again(self) -> list[tuple[str, bytes]]:
        """Headers with which the record is sent again: its own, its log time, and what it is.

        A header without a value is left out: the client cannot send one. A record without a usable log time is
        judged by the time of the replay.
        """
        kept = [
            (name, value)
            for name, value in self.headers
            if value is not None and not name.startswith(names.REPLAY)
        ]
        has_log_time = any(name == names.SENT_AT for name, _ in kept)
        if not has_log_time and self.logged_ms is not None and MIN_TS <= self.logged_ms <= MAX_TS:
            kept.append((names.SENT_AT, b"%d" % self.logged_ms))
        return [
            *kept,
            (names.FIRST_ORIGIN, str(self.first_origin or self.origin).encode()),
            (names.NUM_REPLAYS, b"%d" % (self.num_replays + 1)),
        ]


def read_letter(record: Record) -> DeadLetter | None:
    """A record of the dead-letter topic, None where it does not say from which record it came."""
    places = [place for place, (name, _) in enumerate(record.headers) if name == names.TOPIC]
    if not places:
        return None
    # A record may have been a dead letter of someone else's before: the last of these headers is ours.
    ours = {name: value or b"" for name, value in record.headers[places[-1] :]}
    origin = _origin(ours)
    if origin is None:
        return None
    theirs = _with_nulls(record.headers[: places[-1]], ours.get(names.NULLS, b""))
    message = _text(ours, names.MESSAGE)
    before = {name: value or b"" for name, value in theirs if name.startswith(names.REPLAY)}
    return DeadLetter(
        origin=origin,
        reason=_text(ours, names.REASON) or message.partition(":")[0],
        message=message,
        stage=_text(ours, names.STAGE),
        at_ms=record.timestamp_ms,
        logged_ms=_number(ours, names.TIMESTAMP),
        namespace=_text(ours, names.NAMESPACE) or None,
        first_origin=_first_origin(before),
        num_replays=_number(before, names.NUM_REPLAYS) or 0,
        key=record.key,
        value=None if names.NO_VALUE in ours else record.value,
        headers=theirs,
        cut=_cut(ours),
    )


def _origin(ours: Mapping[str, bytes]) -> Origin | None:
    number, offset = _number(ours, names.PARTITION), _number(ours, names.OFFSET)
    if number is None or offset is None:
        return None
    return Origin(_text(ours, names.TOPIC), number, offset)


def _first_origin(before: Mapping[str, bytes]) -> Origin | None:
    try:
        return Origin.parse(_text(before, names.FIRST_ORIGIN))
    except ConfigError:
        return None  # not one of ours


def _with_nulls(headers: Headers, places: bytes) -> Headers:
    nulls = {int(place) for place in places.split(b",") if place.isdigit()}
    return tuple((name, None if k in nulls else value) for k, (name, value) in enumerate(headers))


def _cut(ours: Mapping[str, bytes]) -> str | None:
    parts = [f"{name.removeprefix(names.OURS)} {_text(ours, name)}" for name in _CUTS if name in ours]
    return ", ".join(parts) or None


def _text(headers: Mapping[str, bytes], name: str) -> str:
    return headers.get(name, b"").decode(errors="replace")


def _number(headers: Mapping[str, bytes], name: str) -> int | None:
    value = headers.get(name, b"")
    return int(value) if value.isdigit() and len(value) < 19 else None
