"""What a plant sends: records in the order of their sending, and their JSON (docs/recordings.md).

A simulator and a recording both yield `PlantEvent`; a feeder paces them and hands them to Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from streamer.schema import CastEnd, Label

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class PlantEvent:
    """One record on its way to Kafka.

    Attributes:
        sent_at: When the plant sends it, epoch milliseconds of recorded time; goes out as header ``sent-at``.
        kind: Which topic it belongs to.
        key: The cast_id.
        value: JSON of a reading, a chunk of readings, an end of cast, or a label.
        num_readings: Rows carried; 0 for an end of cast and for a label.
    """

    sent_at: int
    kind: Literal["readings", "labels"]
    key: bytes
    value: bytes
    num_readings: int


def encode_wide(head: Mapping[str, object], ts: int, sensors: Sequence[str], row: Iterable[float]) -> bytes:
    """Encodes one row as a wide reading.

    Args:
        head: ``cast_id`` and, where known, ``strand``.
        ts: Time of the row, epoch milliseconds.
        sensors: Field names, F of them.
        row: F values; NaN is written as null, which means that the sensor said nothing.
    """
    return _encode({**head, "ts": ts, **dict(zip(sensors, row, strict=True))})


def encode_chunk(head: Mapping[str, object], ts: int, period_ms: int, rows: Sequence[list[float]]) -> bytes:
    """Encodes consecutive rows, ``period_ms`` apart from ``ts`` on, as one chunk; NaN is written as null."""
    return _encode({**head, "ts": ts, "period_ms": period_ms, "values": rows})


def encode_cast_end(end: CastEnd) -> bytes:
    """Encodes the end of a cast."""
    message: dict[str, Any] = {"cast_id": end.cast_id, "ts": end.ts, "event": "cast_end"}
    if end.group is not None:
        message["group"] = end.group
    return _encode(message)


def encode_label(label: Label) -> bytes:
    """Encodes a verdict; fields that say nothing are left out, except ``defect``, where null withdraws."""
    message: dict[str, Any] = {
        "cast_id": label.cast_id,
        "defect": label.defect,
        "inspected_at": label.inspected_at,
    }
    for name in ("from_ts", "to_ts", "defect_type", "group"):
        value = getattr(label, name)
        if value is not None:
            message[name] = value
    return _encode(message)


def cast_head(cast_id: str, strand: int | None) -> dict[str, object]:
    """The fields that every reading of a cast repeats."""
    return {"cast_id": cast_id} if strand is None else {"cast_id": cast_id, "strand": strand}


def label_event(label: Label) -> PlantEvent:
    """A verdict, sent when it was made."""
    return PlantEvent(label.inspected_at, "labels", label.cast_id.encode(), encode_label(label), 0)


def cast_end_event(end: CastEnd) -> PlantEvent:
    """An end of cast, sent at the time of its last step."""
    return PlantEvent(end.ts, "readings", end.cast_id.encode(), encode_cast_end(end), 0)
