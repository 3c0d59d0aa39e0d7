"""Bytes of a record to a message, and its log time; everything wrong with it becomes a `RecordError`.

A row is rounded to float32 here, so that a value compares equal before and after it lay in Redis.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamer.errors import RecordError
from streamer.records import Headers, Record
from streamer.schema import CAST_ID, CastEnd, Label, Message, Reading

JSON = "application/json"
# Epoch milliseconds outside 1990..2100 are seconds or microseconds by mistake.
MIN_TS, MAX_TS = 631_152_000_000, 4_102_444_800_000
MAX_CHUNK_ROWS = 100_000
_RESERVED = frozenset({"cast_id", "strand", "ts", "group"})
_CHUNK_FIELDS = _RESERVED | {"values", "period_ms"}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode_json = msgspec.json.Decoder().decode


def log_time(record: Record) -> int:
    """Epoch ms at which the record entered the log: its header `sent-at`, or else Kafka's timestamp.

    Raises:
        RecordError: The header is not a plausible epoch in milliseconds.
    """
    for name, value in record.headers:
        if name == "sent-at" and value is not None:
            if value.isdigit() and len(value) < 20 and MIN_TS <= (sent_at := int(value)) <= MAX_TS:
                return sent_at
            raise RecordError("bad_sent_at", f"header sent-at is {value[:40]!r}, expected epoch milliseconds")
    return record.timestamp_ms


class Codec:
    """Decodes records of one namespace.

    Args:
        sensors: Names, in column order.
    """

    def __init__(self, sensors: Sequence[str]) -> None:
        self._sensors = tuple(sensors)
        self._sensor_names = frozenset(sensors)
        self._known = _RESERVED | self._sensor_names
        self._float32 = struct.Struct(f"<{len(self._sensors)}f")

    def decode_reading(self, record: Record) -> Reading | CastEnd:
        """Decodes a record of the readings topic: wide, chunk or end of cast.

        Raises:
            RecordError: With a reason such as ``bad_json``, ``bad_cast_id``, ``wrong_arity``.
        """
        fields = _json_object(record)
        if "event" in fields:
            return _cast_end(fields)
        if "values" in fields:
            return self._chunk(fields)
        return self._wide(fields)

    def decode_label(self, record: Record) -> Label:
        """Decodes a record of the labels topic.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        fields = _json_object(record)
        defect = fields.get("defect", ...)
        if defect is not None and not isinstance(defect, bool):
            raise RecordError("bad_label", f"defect is {_show(defect)}, expected true, false or null")
        from_ts = _optional_time(fields, "from_ts")
        to_ts = _optional_time(fields, "to_ts")
        if from_ts is not None and to_ts is not None and from_ts > to_ts:
            raise RecordError("bad_label", f"from_ts {from_ts} lies after to_ts {to_ts}")
        return Label(
            cast_id=_cast_id(fields),
            defect=defect,
            inspected_at=_time(fields, "inspected_at"),
            from_ts=from_ts,
            to_ts=to_ts,
            defect_type=_optional_text(fields, "defect_type"),
            group=_optional_text(fields, "group"),
        )

    def _wide(self, fields: dict[str, Any]) -> Reading:
        if "tag" in fields and not self._sensor_names & fields.keys():
            raise RecordError("unknown_format", "one tag a message is not read; send wide rows or chunks")
        row = self._row([fields.get(name) for name in self._sensors])
        return Reading(
            cast_id=_cast_id(fields),
            strand=_strand(fields),
            ts=_time(fields, "ts"),
            period_ms=0,
            rows=(row,),
            unknown_fields=len(fields.keys() - self._known),
        )

    def _chunk(self, fields: dict[str, Any]) -> Reading:
        values, period_ms = fields["values"], fields.get("period_ms")
        if not isinstance(values, list) or not 1 <= len(values) <= MAX_CHUNK_ROWS:
            raise RecordError("bad_chunk", f"values must be a list of 1 to {MAX_CHUNK_ROWS} rows")
        if type(period_ms) is not int or not 1 <= period_ms <= 3_600_000:
            raise RecordError("bad_chunk", f"period_ms is {_show(period_ms)}, expected 1 to 3600000")
        return Reading(
            cast_id=_cast_id(fields),
            strand=_strand(fields),
            ts=_time(fields, "ts"),
            period_ms=period_ms,
            rows=[self._row(row) for row in values],
            unknown_fields=len(fields.keys() - _CHUNK_FIELDS),
        )

    def _row(self, values: Any) -> tuple[float, ...]:
        if not isinstance(values, list) or len(values) != len(self._sensors):
            size = len(values) if isinstance(values, list) else _show(values)
            raise RecordError("wrong_arity", f"a row has {size} values, expected {len(self._sensors)}")
        for index, value in enumerate(values):
            if value is None:
                values[index] = math.nan
            elif type(value) is not float and type(value) is not int:
                raise RecordError(
                    "bad_value", f"{self._sensors[index]} is {_show(value)}, expected a number or null"
                )
        try:
            return self._float32.unpack(self._float32.pack(*values))
        except (OverflowError, struct.error) as exc:
            raise RecordError("bad_value", f"a value does not fit into float32: {_show(values)}") from exc


def decode(codec: Codec, record: Record, labels_topic: str) -> Message:
    """Decodes a record of either input topic."""
    return codec.decode_label(record) if record.topic == labels_topic else codec.decode_reading(record)


def parse_time(value: Any) -> int | None:
    """Epoch ms from epoch ms or an RFC 3339 string with a zone; None if it is neither or out of range."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int:
        return value if MIN_TS <= value <= MAX_TS else None
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            instant = datetime.fromisoformat(value.upper().replace(" ", "T"))
        except ValueError:
            return None
        since = instant - _EPOCH
        ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
        return ms if MIN_TS <= ms <= MAX_TS else None
    return None


def _content_type(headers: Headers) -> str:
    for name, value in headers:
        if name == "content-type" and value:
            return value.decode("latin-1").split(";")[0].strip().lower()
    return JSON


def _json_object(record: Record) -> dict[str, Any]:
    if record.headers and (content_type := _content_type(record.headers)) != JSON:
        raise RecordError(
            "unknown_content_type", f"content-type {content_type} is not {JSON}", stage="decode"
        )
    if record.value is None:
        raise RecordError("tombstone", "the record has no value", stage="decode")
    if record.value[:1] == b"\x00":
        raise RecordError(
            "schema_registry", "the value is framed for a schema registry; send plain JSON", stage="decode"
        )
    try:
        fields = _decode_json(record.value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise RecordError("bad_json", f"not JSON: {exc}", stage="decode") from exc
    if not isinstance(fields, dict):
        raise RecordError("bad_json", f"expected an object, found {_show(fields)}", stage="decode")
    return fields


def _cast_end(fields: dict[str, Any]) -> CastEnd:
    if fields["event"] != "cast_end":
        raise RecordError("unknown_event", f"event is {_show(fields['event'])}, expected 'cast_end'")
    return CastEnd(cast_id=_cast_id(fields), ts=_time(fields, "ts"), group=_optional_text(fields, "group"))


def _cast_id(fields: dict[str, Any]) -> str:
    cast_id = fields.get("cast_id")
    if not isinstance(cast_id, str) or not CAST_ID.fullmatch(cast_id):
        raise RecordError("bad_cast_id", f"cast_id is {_show(cast_id)}, expected {CAST_ID.pattern}")
    return cast_id


def _strand(fields: dict[str, Any]) -> int | None:
    strand = fields.get("strand")
    if strand is not None and (type(strand) is not int or not 0 <= strand <= 1_000_000):
        raise RecordError("bad_strand", f"strand is {_show(strand)}, expected a number from 0")
    return strand


def _time(fields: dict[str, Any], name: str) -> int:
    ts = parse_time(fields.get(name))
    if ts is None:
        raise RecordError(
            "bad_time",
            f"{name} is {_show(fields.get(name))}, expected epoch milliseconds or RFC 3339 with a zone",
        )
    return ts


def _optional_time(fields: dict[str, Any], name: str) -> int | None:
    return None if fields.get(name) is None else _time(fields, name)


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    text = fields.get(name)
    if text is not None and (not isinstance(text, str) or not 0 < len(text) <= 128):
        raise RecordError("bad_text", f"{name} is {_show(text)}, expected 1 to 128 characters")
    return text


def _show(value: Any) -> str:
    return "missing" if value is ... else repr(value)[:60]
