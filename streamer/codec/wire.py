"""The bytes of a record to an object of fields; framing, envelopes and content types are taken off here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from streamer.codec.checks import show
from streamer.errors import RecordError
from streamer.records import Headers, Record

JSON = "application/json"
MSGPACK = "application/msgpack"
CONTENT_TYPE = "content-type"
# Names under which the two go about.
CONTENT_TYPES = {
    JSON: JSON,
    "text/json": JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}
_DECODE: dict[str, Callable[[bytes], Any]] = {
    JSON: msgspec.json.Decoder().decode,
    MSGPACK: msgspec.msgpack.Decoder().decode,
}
_ENVELOPE = {"schema", "payload"}
# msgspec raises more than its own errors on nonsense: keys that cannot be hashed, times out of range.
FAULTS = (
    msgspec.MsgspecError,
    RecursionError,
    UnicodeDecodeError,
    TypeError,
    ValueError,
    OverflowError,
)


def content_type(headers: Headers, default: str) -> str:
    """`JSON` or `MSGPACK`.

    Raises:
        RecordError: The header names another type.
    """
    for name, value in headers:
        if name == CONTENT_TYPE and value:
            said = value.decode("latin-1").split(";")[0].strip().lower()
            if said in CONTENT_TYPES:
                return CONTENT_TYPES[said]
            message = f"content-type {said[:60]} is neither {JSON} nor {MSGPACK}"
            raise RecordError("unknown_content_type", message, stage="decode")
    return default


class Fields(NamedTuple):
    """The fields of one record, and what they were wrapped in."""

    fields: dict[str, Any]
    content_type: str
    is_wrapped: bool


def fields_of(record: Record, default: str, *, unwrap: bool = True) -> Fields:
    """The fields of one record.

    Args:
        record: Of any topic.
        default: The content type where no header names one.
        unwrap: Whether ``{"schema": ..., "payload": {...}}`` is Kafka Connect's envelope and is taken off.

    Raises:
        RecordError: The value is missing, framed, not of its content type, or no object.
    """
    kind = content_type(record.headers, default) if record.headers else default
    if record.value is None:
        raise RecordError("tombstone", "the record has no value", stage="decode")
    if record.value[:1] == b"\x00":
        raise RecordError("schema_registry", _framed(record.value), stage="decode")
    try:
        fields = _DECODE[kind](record.value)
    except FAULTS as exc:
        raise _malformed(kind, f"not {_name(kind)}: {_why(record.value, kind, exc)}") from exc
    is_wrapped = unwrap and isinstance(fields, dict) and fields.keys() == _ENVELOPE
    if is_wrapped:
        fields = fields["payload"]
        if fields is None:
            raise RecordError("tombstone", "the envelope has no payload", stage="decode")
    if not isinstance(fields, dict):
        raise _malformed(kind, f"expected an object, found {show(fields)}")
    return Fields(fields, kind, is_wrapped)


def _name(kind: str) -> str:
    return "JSON" if kind == JSON else "MessagePack"


def _malformed(kind: str, message: str) -> RecordError:
    if kind == JSON:
        return RecordError("bad_json", message, stage="decode")
    return RecordError("bad_msgpack", message, stage="decode")


def _framed(value: bytes) -> str:
    schema = f" (schema {int.from_bytes(value[1:5], 'big')})" if len(value) >= 5 else ""
    return (
        f"the value is framed for a schema registry{schema}; send plain JSON or MessagePack: with Kafka Connect, "
        "value.converter=org.apache.kafka.connect.json.JsonConverter"
    )


def _why(value: bytes, kind: str, exc: Exception) -> str:
    if kind == JSON and (value[:1] in {b"\xde", b"\xdf"} or b"\x80" <= value[:1] <= b"\x8f"):
        return f"it looks like MessagePack; say so in the header {CONTENT_TYPE}: {MSGPACK}"
    if kind == MSGPACK and value[:1] == b"{":
        return f"it looks like JSON; say so in the header {CONTENT_TYPE}: {JSON}"
    return str(exc)[:160]
