"""CloudEvents 1.0 in Kafka records, by the CloudEvents Kafka protocol binding 1.0.2.

Binary mode: the value is the data, `content-type` its type, the attributes are headers `ce_*`.
Structured mode: the value is the whole event as JSON, and there are no `ce_` headers.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streamer.errors import RecordError

SPEC_VERSION = "1.0"
CONTENT_TYPE = "content-type"
STRUCTURED_TYPE = "application/cloudevents+json"
PREFIX = "ce_"

Headers = tuple[tuple[str, bytes], ...]

_EXTENSION = re.compile(r"[a-z0-9]+")
# RFC 3339; fromisoformat takes more than that, such as a date alone.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)
_ATTRIBUTES = frozenset(
    ["specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema"]
)


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event; `id` together with `source` names it, so a repeated delivery bears the same.

    Attributes:
        source: URI reference of the producer.
        type: Reverse DNS name of what happened.
        data: Bytes in binary mode; in structured mode a JSON object, or bytes (sent as base64).
        extensions: Names of lower-case letters and digits.
    """

    id: str
    source: str
    type: str
    time: datetime | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    data: bytes | Mapping[str, Any] | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.id and self.source and self.type):
            raise RecordError("bad_cloudevent", "a CloudEvent needs id, source and type")
        for name in self.extensions:
            if name in _ATTRIBUTES or name == "data" or not _EXTENSION.fullmatch(name):
                raise RecordError("bad_cloudevent", f"{name!r} is no name for a CloudEvents extension")

    def attributes(self) -> dict[str, str]:
        """All context attributes that are set, as strings."""
        known = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time and rfc3339(self.time),
            "subject": self.subject,
            "datacontenttype": self.datacontenttype,
        }
        return {name: value for name, value in known.items() if value} | dict(self.extensions)


def to_binary(event: CloudEvent) -> tuple[Headers, bytes]:
    """Returns headers and value of a record in binary mode; the data must be bytes."""
    if not isinstance(event.data, bytes):
        raise RecordError("bad_cloudevent", "binary mode carries bytes")
    attributes = event.attributes()
    content_type = attributes.pop("datacontenttype", None)
    headers = [(PREFIX + name, value.encode()) for name, value in attributes.items()]
    if content_type:
        headers.append((CONTENT_TYPE, content_type.encode()))
    return tuple(headers), event.data


def to_structured(event: CloudEvent) -> tuple[Headers, bytes]:
    """Returns headers and value of a record in structured mode."""
    body: dict[str, Any] = dict(event.attributes())
    if isinstance(event.data, bytes):
        body["data_base64"] = base64.b64encode(event.data).decode()
    elif event.data is not None:
        body["data"] = event.data
    headers = ((CONTENT_TYPE, f"{STRUCTURED_TYPE}; charset=UTF-8".encode()),)
    return headers, json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def from_record(headers: Sequence[tuple[str, bytes | None]], value: bytes | None) -> CloudEvent:
    """Reads an event in either mode; the content type tells which.

    Raises:
        RecordError: It is not a CloudEvent of version 1.0.
    """
    texts = {name.lower(): _text(name, raw) for name, raw in headers if raw is not None}
    if texts.get(CONTENT_TYPE, "").lower().startswith("application/cloudevents"):
        return _from_structured(value or b"")
    attributes = {name.removeprefix(PREFIX): text for name, text in texts.items() if name.startswith(PREFIX)}
    if CONTENT_TYPE in texts:
        attributes["datacontenttype"] = texts[CONTENT_TYPE]
    return _event(attributes, value)


def rfc3339(time: datetime) -> str:
    """A time with its offset, in UTC, as RFC 3339."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _from_structured(value: bytes) -> CloudEvent:
    try:
        body = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise RecordError("bad_cloudevent", f"not JSON: {exc}", stage="decode") from exc
    if not isinstance(body, dict):
        raise RecordError("bad_cloudevent", "a structured CloudEvent is a JSON object", stage="decode")
    data = body.pop("data", None)
    encoded = body.pop("data_base64", None)
    if encoded is not None:
        data = _base64(encoded)
    if data is not None and not isinstance(data, dict | bytes):
        raise RecordError("bad_cloudevent", f"expected an object as data, got a {type(data).__name__}")
    return _event({name: str(item) for name, item in body.items() if item is not None}, data)


def _event(attributes: dict[str, str], data: bytes | Mapping[str, Any] | None) -> CloudEvent:
    version = attributes.pop("specversion", None)
    if version != SPEC_VERSION:
        raise RecordError("bad_cloudevent", f"CloudEvents version {version!r}, expected {SPEC_VERSION!r}")
    time = attributes.get("time")
    return CloudEvent(
        id=attributes.get("id", ""),
        source=attributes.get("source", ""),
        type=attributes.get("type", ""),
        time=None if time is None else _time(time),
        subject=attributes.get("subject"),
        datacontenttype=attributes.get("datacontenttype"),
        data=data,
        extensions={name: text for name, text in attributes.items() if name not in _ATTRIBUTES},
    )


def _time(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise RecordError("bad_cloudevent", f"time {text!r} is not RFC 3339")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as exc:
        raise RecordError("bad_cloudevent", f"time {text!r}: {exc}") from exc


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise RecordError("bad_cloudevent", f"header {name} is not UTF-8", stage="decode") from exc


def _base64(encoded: Any) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise RecordError("bad_cloudevent", f"data_base64: {exc}", stage="decode") from exc
