"""Bytes become messages, and whatever is wrong with them has a reason."""

from __future__ import annotations

import json
import math
import struct

import pytest

from streamer.codec import Codec, log_time, parse_time
from streamer.config import SensorConfig
from streamer.errors import RecordError
from streamer.records import Headers, Record
from streamer.schema import CastEnd, Label, Reading

TS = 1_763_796_000_000
CODEC = Codec((SensorConfig(name="speed"), SensorConfig(name="level")))


def record(
    value: object, *headers: tuple[str, bytes | None], topic: str = "readings", at: int = TS
) -> Record:
    body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record(topic, 0, 7, at, b"C1", body, tuple(headers))


def wide(**fields: object) -> dict[str, object]:
    return {"cast_id": "C1", "strand": 3, "ts": TS, "speed": 1.5, "level": 148, **fields}


def chunk(**fields: object) -> dict[str, object]:
    return {"cast_id": "C1", "ts": TS, "period_ms": 100, "values": [[1, 2], [None, 4]], **fields}


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def test_a_wide_reading() -> None:
    assert CODEC.decode_reading(record(wide(other=1, more="x"))) == Reading(
        "C1", 3, TS, 0, ((1.5, 148.0),), 2
    )


def test_values_are_those_that_redis_holds() -> None:
    reading = CODEC.decode_reading(record(wide(speed=1.21)))
    assert isinstance(reading, Reading)
    assert reading.rows[0][0] == float32(1.21) != 1.21


@pytest.mark.parametrize("fields", [{"cast_id": "C1", "ts": TS}, wide(speed=None, level=None)])
def test_a_sensor_that_is_missing_or_null_says_nothing(fields: dict[str, object]) -> None:
    reading = CODEC.decode_reading(record(fields))
    assert isinstance(reading, Reading)
    assert all(map(math.isnan, reading.rows[0]))


def test_a_chunk() -> None:
    reading = CODEC.decode_reading(record(chunk(strand=0, note=1)))
    assert isinstance(reading, Reading)
    assert (reading.strand, reading.period_ms, reading.unknown_fields) == (0, 100, 1)
    assert reading.rows[0] == (1.0, 2.0)
    assert math.isnan(reading.rows[1][0])


def test_the_end_of_a_cast() -> None:
    end = {"cast_id": "C1", "ts": TS, "event": "cast_end", "group": "H1"}
    assert CODEC.decode_reading(record(end)) == CastEnd("C1", TS, "H1")


def test_labels() -> None:
    assert CODEC.decode_label(record({"cast_id": "C1", "defect": None, "inspected_at": TS})) == Label(
        "C1", None, TS
    )
    full = {"cast_id": "C1", "defect": True, "inspected_at": TS, "from_ts": TS, "to_ts": TS + 1}
    full |= {"defect_type": "crack", "group": "H1"}
    assert CODEC.decode_label(record(full)) == Label("C1", True, TS, TS, TS + 1, "crack", "H1")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"[1]", "bad_json"),
        (b"3", "bad_json"),
        (b'{"cast_id": "\xff"}', "bad_json"),
        (b'{"speed": NaN}', "bad_json"),
        (b'{"speed": Infinity}', "bad_json"),
        (b'{"speed": 1e999}', "bad_json"),
        (b'{"speed": ' + b"9" * 5000 + b"}", "bad_json"),
        (b"[" * 200_000, "bad_json"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "bad_json"),
        (None, "tombstone"),
        (b"\x00\x00\x00\x00\x07{}", "schema_registry"),
        (wide(speed="1.2"), "bad_value"),
        (wide(speed=True), "bad_value"),
        (wide(speed=[1]), "bad_value"),
        (wide(speed=1e39), "bad_value"),
        (wide(speed=10**300), "bad_value"),
        (wide(cast_id=None), "bad_cast_id"),
        (wide(cast_id=5), "bad_cast_id"),
        (wide(cast_id=""), "bad_cast_id"),
        (wide(cast_id="a/b"), "bad_cast_id"),
        (wide(cast_id="C1\n"), "bad_cast_id"),
        (wide(cast_id="c" * 129), "bad_cast_id"),
        (wide(cast_id="Ü"), "bad_cast_id"),
        (wide(strand="3"), "bad_strand"),
        (wide(strand=True), "bad_strand"),
        (wide(strand=-1), "bad_strand"),
        (wide(ts=None), "bad_time"),
        (wide(ts=TS // 1000), "bad_time"),
        (wide(ts=TS * 1000), "bad_time"),
        (wide(ts=True), "bad_time"),
        (wide(ts=TS + 0.5), "bad_time"),
        (wide(ts="2025-11-22T07:20:00"), "bad_time"),
        (wide(ts="2025-13-22T07:20:00Z"), "bad_time"),
        (wide(ts="yesterday"), "bad_time"),
        (wide(event="cast_start"), "unknown_event"),
        (wide(event=None), "unknown_event"),
        (wide(event="cast_end", group=""), "bad_text"),
        (wide(event="cast_end", group="g" * 129), "bad_text"),
        (chunk(values=[]), "bad_chunk"),
        (chunk(values="x"), "bad_chunk"),
        (chunk(period_ms=0), "bad_chunk"),
        (chunk(period_ms=1.5), "bad_chunk"),
        (chunk(period_ms=None), "bad_chunk"),
        (chunk(values=[[1]]), "wrong_arity"),
        (chunk(values=[[1, 2, 3]]), "wrong_arity"),
        (chunk(values=[[1, 2], 3]), "wrong_arity"),
        (chunk(values=[[1, "2"]]), "bad_value"),
        ({"cast_id": "C1", "ts": TS, "tag": 5, "value": 1.0}, "bad_tag"),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, bytes) else repr(value[:24]),
)
def test_a_bad_reading_has_a_reason(value: object, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        CODEC.decode_reading(record(value))
    assert caught.value.reason == reason
    assert caught.value.stage in {"decode", "validate"}
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "bad_label"),
        ({"defect": 1}, "bad_label"),
        ({"defect": "true"}, "bad_label"),
        ({"defect": True, "from_ts": TS + 1, "to_ts": TS}, "bad_label"),
        ({"defect": True, "inspected_at": None}, "bad_time"),
        ({"defect": True, "from_ts": "now"}, "bad_time"),
        ({"defect": True, "cast_id": "a b"}, "bad_cast_id"),
        ({"defect": True, "defect_type": 4}, "bad_text"),
    ],
)
def test_a_bad_label_has_a_reason(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        CODEC.decode_label(record({"cast_id": "C1", "inspected_at": TS, **fields}))
    assert caught.value.reason == reason


@pytest.mark.parametrize("content_type", [b"application/json", b"application/json; charset=utf-8", b"", None])
def test_json_is_announced_or_assumed(content_type: bytes | None) -> None:
    assert CODEC.decode_reading(record(wide(), ("content-type", content_type)))


@pytest.mark.parametrize("content_type", [b"application/avro", b"avro/binary", b"\xff\xfe"])
def test_another_content_type_is_refused(content_type: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        CODEC.decode_reading(record(wide(), ("content-type", content_type)))
    assert caught.value.reason == "unknown_content_type"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TS, TS),
        (float(TS), TS),
        ("2025-11-22T07:20:00Z", TS),
        ("2025-11-22t07:20:00z", TS),
        ("2025-11-22 08:20:00+01:00", TS),
        ("2025-11-22T07:20:00.1234567Z", TS + 123),
        ("2025-11-22T07:20:00.1239999-00:30", TS + 30 * 60_000 + 123),
        ("2025-11-22T07:20:60Z", None),
        ("1969-01-01T00:00:00Z", None),
        (-1, None),
        (10**30, None),
        (None, None),
        ({}, None),
    ],
)
def test_times(text: object, expected: int | None) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), TS),
        ((("other", b"1"), ("sent-at", None)), TS),
        ((("sent-at", b"1763796000001"),), TS + 1),
    ],
)
def test_log_time_is_the_header_or_the_timestamp(headers: Headers, expected: int) -> None:
    assert log_time(record(wide(), *headers)) == expected


@pytest.mark.parametrize("value", [b"", b"soon", b"1763796000", b"-5", b"9" * 5000, "١".encode()])  # noqa: RUF001 - a digit, not ours
def test_a_sent_at_that_is_no_time_is_refused(value: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        log_time(record(wide(), ("sent-at", value)))
    assert caught.value.reason == "bad_sent_at"
