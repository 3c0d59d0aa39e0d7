"""Bytes become messages, and whatever is wrong with them has a reason."""

from __future__ import annotations

import json
import math
import struct

import msgspec
import numpy as np
import pytest
from columns import Reading, decode_reading
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_names import ODD_NAMES

from streamer.codec import MAX_TS, MIN_TS, Codec, checks, log_time, parse_time
from streamer.codec.layout import Layout
from streamer.codec.times import TimeReader
from streamer.columns import NO_TIME
from streamer.config import SensorConfig
from streamer.errors import RecordError
from streamer.records import Headers, Record, RecordBatch
from streamer.schema import CastEnd, Label
from streamer.sources import LabelSourceConfig, SourceConfig, TimeConfig

TS = 1_763_796_000_000
SENSORS = (SensorConfig(name="speed", unit="m/min"), SensorConfig(name="level", unit="mm"))
CODEC = Codec(SENSORS)


def record(
    value: object, *headers: tuple[str, bytes | None], topic: str = "readings", at: int = TS
) -> Record:
    body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record(topic, 0, 7, at, b"C1", body, tuple(headers))


def wide(**fields: object) -> dict[str, object]:
    return {"cast_id": "C1", "strand": 3, "ts": TS, "speed": 1.5, "level": 148, **fields}


def chunk(**fields: object) -> dict[str, object]:
    return {"cast_id": "C1", "ts": TS, "period_ms": 100, "values": [[1, 2], [None, 4]], **fields}


def tag(**fields: object) -> dict[str, object]:
    whole = {"cast_id": "C1", "strand": 3, "ts": TS, "tag": "level", "value": 148.2, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def packed(rows: list[list[float]], **fields: object) -> Record:
    values = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
    return msgpack({"cast_id": "C1", "ts": TS, "period_ms": 100, "values": values, **fields})


def msgpack(fields: object) -> Record:
    body = fields if isinstance(fields, bytes) else msgspec.msgpack.encode(fields)
    return record(body, ("content-type", b"application/msgpack"))


def codec(**source: object) -> Codec:
    return Codec(SENSORS, SourceConfig.model_validate({"topic": "readings", **source}))


def row(decoding: Codec, one: Record) -> list[float | None]:
    """The only row of a record, None for NaN."""
    columns = decoding.decode(RecordBatch.of([one])).readings
    (values,) = columns.values_NF.tolist()
    return [None if math.isnan(value) else value for value in values]


def stops(decoding: Codec, one: Record) -> list[bool] | None:
    stop_NF = decoding.decode(RecordBatch.of([one])).readings.stop_NF
    return None if stop_NF is None else stop_NF.tolist()[0]


def reason_of(decoding: Codec, one: Record) -> str | None:
    refused = decoding.decode(RecordBatch.of([one])).refused
    return refused[0][1].reason if refused else None


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def test_a_wide_reading() -> None:
    assert decode_reading(CODEC, record(wide(other=1, more="x"))) == Reading(
        "C1", 3, TS, 0, ((1.5, 148.0),), 2
    )


def test_values_are_those_that_redis_holds() -> None:
    reading = decode_reading(CODEC, record(wide(speed=1.21)))
    assert isinstance(reading, Reading)
    assert reading.rows[0][0] == float32(1.21) != 1.21


@pytest.mark.parametrize("fields", [{"cast_id": "C1", "ts": TS}, wide(speed=None, level=None)])
def test_a_sensor_that_is_missing_or_null_says_nothing(fields: dict[str, object]) -> None:
    reading = decode_reading(CODEC, record(fields))
    assert isinstance(reading, Reading)
    assert all(map(math.isnan, reading.rows[0]))


def test_a_chunk() -> None:
    reading = decode_reading(CODEC, record(chunk(strand=0, note=1)))
    assert isinstance(reading, Reading)
    assert (reading.strand, reading.period_ms, reading.unknown_fields) == (0, 100, 1)
    assert reading.rows[0] == (1.0, 2.0)
    assert math.isnan(reading.rows[1][0])


def test_the_end_of_a_cast() -> None:
    end = {"cast_id": "C1", "ts": TS, "event": "cast_end", "group": "H1"}
    assert decode_reading(CODEC, record(end)) == CastEnd("C1", TS, "H1")


def test_labels() -> None:
    assert CODEC.decode_label(record({"cast_id": "C1", "defect": None, "inspected_at": TS})) == Label(
        "C1", None, TS
    )
    full = {"cast_id": "C1", "defect": True, "inspected_at": TS, "from_ts": TS, "to_ts": TS + 1}
    full |= {"defect_type": "crack", "group": "H1"}
    assert CODEC.decode_label(record(full)) == Label("C1", True, TS, TS, TS + 1, "crack", "H1")


BAD_READINGS = [
    (b"", "bad_json"),
    (b" ", "bad_json"),
    (b"null", "bad_json"),
    (b"{} {}", "bad_json"),
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
    (tag(value="148"), "bad_value"),
    (tag(value=True), "bad_value"),
    (tag(value=...), "bad_value"),
    (tag(value=1e39), "bad_value"),
    (tag(quality=192), "bad_quality"),
    (tag(quality="fine"), "bad_quality"),
    (tag(quality=[]), "bad_quality"),
    ({"schema": {}, "payload": None}, "tombstone"),
    ({"schema": {}, "payload": 5}, "bad_json"),
    ({"schema": {}, "payload": wide(speed="x")}, "bad_value"),
    ({"schema": {}, "payload": wide(), "more": 1}, "bad_cast_id"),
    (b'{"cast_id":"C1","ts":1763796000000,"speed":1' + b"0" * 400 + b"}", "bad_value"),
    (b'{"cast_id":"C1","ts":1763796000000,"speed":1,"speed":"2"}', "bad_value"),
    (b'{"cast_id":"C1","ts":1' + b"0" * 300 + b',"speed":1}', "bad_time"),
    (b'{"cast_id":"C1","ts":1763796000000,"speed":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "bad_json"),
    (b'{"cast_id":"C1","ts":1763796000000,"note":"\xff"}', "bad_json"),
    (b'{"cast_id":"C1","ts":1763796000000,"speed":"' + b"x" * 10_000_000 + b'"}', "bad_value"),
    (b"x" * 10_000_000, "bad_json"),
    (b"\x83\xa7cast_id", "bad_json"),
]


@pytest.mark.parametrize(
    ("value", "reason"),
    BAD_READINGS,
    ids=lambda value: str(value)[:40] if not isinstance(value, bytes) else repr(value[:24]),
)
@pytest.mark.parametrize("num_good", [0, 20])
def test_a_bad_reading_has_a_reason_and_spoils_no_other(value: object, reason: str, num_good: int) -> None:
    good = [record(wide(ts=TS + 1000 * index)) for index in range(num_good)]
    decoded = CODEC.decode(RecordBatch.of([*good, record(value), *good]))
    ((index, error),) = decoded.refused
    assert (index, error.reason) == (num_good, reason)
    assert error.stage in {"decode", "validate"}
    assert len(str(error)) < 300
    assert len(decoded.readings.record_R) == 2 * num_good
    assert (decoded.readings.values_NF == [1.5, 148]).all()
    assert decoded.readings.cast_ids == (["C1"] if num_good else [])
    assert decoded.num_unknown_fields == 0


@pytest.mark.parametrize("name", ["cast_id", "speed", "ts", "strand", "quality"])
def test_a_value_may_be_nested_as_deep_as_can_be_decoded(name: str) -> None:
    decoding = codec(format="tag") if name == "quality" else CODEC
    reasons = set()
    # Where decoding gives up depends on how deep the stack is already.
    for depth in range(700, 1010):
        body = json.dumps({**tag(), **wide(), name: ...}, default=lambda _: "@").encode()
        reasons.add(reason_of(decoding, record(body.replace(b'"@"', b"[" * depth + b"]" * depth))))
    assert reasons == {f"bad_{ {'speed': 'value', 'ts': 'time'}.get(name, name) }", "bad_json"}


def test_messages_tell_the_size_of_lists_and_objects() -> None:
    assert "is a list of 2, expected" in str(CODEC.decode(RecordBatch.of([record(wide(ts=[1, 2]))])).refused)
    assert "found a list of 1" in str(CODEC.decode(RecordBatch.of([record([1])])).refused)
    assert "is an object of 1 fields" in str(
        CODEC.decode(RecordBatch.of([record(wide(ts={"a": 1}))])).refused
    )


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
    assert decode_reading(CODEC, record(wide(), ("content-type", content_type)))


@pytest.mark.parametrize("content_type", [b"application/avro", b"avro/binary", b"\xff\xfe"])
def test_another_content_type_is_refused(content_type: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        decode_reading(CODEC, record(wide(), ("content-type", content_type)))
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


SECONDS = r"2025-11-22[T ]07:[0-9]{2}:[0-6][0-9](\.[0-9]{1,10})?(Z|z|[+-]0[0-9]:[0-9]{2})?"
DATES = r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:20:00(\.[0-9]{0,4})?(Z|\+01:00)?"


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.from_regex(
                r"2025-11-22[T ]07:[0-9]{2}:[0-6][0-9](\.[0-9]{1,10})?(Z|z|[+-]0[0-9]:[0-9]{2})?",
                fullmatch=True,
            ),
            st.from_regex(
                r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:20:00(\.[0-9]{0,4})?(Z|\+01:00)?", fullmatch=True
            ),
            st.text(max_size=30),
        )
    )
)
@pytest.mark.parametrize("zone", [None, "Europe/Vienna"])
def test_times_are_read_alike_one_by_one_and_many_at_once(zone: str | None, texts: list[str]) -> None:
    reader = TimeReader(TimeConfig(unit="rfc3339", zone=zone))
    assert reader.read_texts(texts) == [reader.read(text) for text in texts]


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


# No timestamp; seconds; microseconds; two bounds just missed; what a gateway with a broken clock or client may send.
WILD = [-1, 0, 1_763_796_000, TS * 1000, MIN_TS - 1, MAX_TS + 1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("wild", WILD)
def test_a_timestamp_of_kafka_that_is_no_time_is_refused(wild: int) -> None:
    with pytest.raises(RecordError, match="no header sent-at") as caught:
        log_time(record(wide(), at=wild))
    assert caught.value.reason == "bad_timestamp"
    assert log_time(record(wide(), ("sent-at", b"%d" % TS), at=wild)) == TS


@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("headers", [(), (("trace", b"1"),)], ids=["bare", "with a header"])
@pytest.mark.parametrize("place", [0, 10, 20])
def test_a_wild_timestamp_moves_no_clock(wild: int, headers: Headers, place: int) -> None:
    bodies = [record(wide(ts=TS + index), *headers, at=TS + index) for index in range(20)]
    bodies.insert(place, record(wide(ts=TS), *headers, at=wild))
    decoded = CODEC.decode(RecordBatch.of(bodies))
    assert [(index, error.reason) for index, error in decoded.refused] == [(place, "bad_timestamp")]
    assert decoded.log_time_M.tolist() == [*range(TS, TS + place), NO_TIME, *range(TS + place, TS + 20)]
    assert decoded.readings.ts_R.tolist() == list(range(TS, TS + 20))
    junk = [record(b"junk", *headers, at=wild)] * 2
    assert (CODEC.decode(RecordBatch.of(junk)).log_time_M == NO_TIME).all()


def test_a_header_says_the_time_of_a_record_whose_timestamp_is_wild() -> None:
    said = record(wide(), ("sent-at", b"%d" % TS), at=-1)
    decoded = CODEC.decode(RecordBatch.of([said, record(wide(), at=-1), said]))
    assert decoded.log_time_M.tolist() == [TS, NO_TIME, TS]
    assert [(index, error.reason) for index, error in decoded.refused] == [(1, "bad_timestamp")]


@pytest.mark.parametrize("num_good", [0, 20])
def test_an_exception_that_no_check_has_foreseen_refuses_its_record_alone(
    num_good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(name: str, value: object) -> str | None:
        raise ZeroDivisionError(f"{name} is {value}")

    monkeypatch.setattr(checks, "text", text)
    good = [record(wide(ts=TS + index)) for index in range(num_good)]
    end = record({"cast_id": "C1", "ts": TS, "event": "cast_end", "group": "H1"})
    decoded = CODEC.decode(RecordBatch.of([*good, end, *good]))
    ((index, error),) = decoded.refused
    assert (index, error.reason, error.stage) == (num_good, "undecodable", "decode")
    assert str(error) == "ZeroDivisionError: group is H1"
    assert len(decoded.readings.record_R) == 2 * num_good
    with pytest.raises(RecordError, match=r"^ZeroDivisionError: defect_type is Ellipsis$") as caught:
        CODEC.decode_label(record({"cast_id": "C1", "defect": True, "inspected_at": TS}))
    assert caught.value.reason == "undecodable"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_packed_chunk_has_its_values_as_bytes() -> None:
    reading = decode_reading(CODEC, packed([[1.5, 2], [math.nan, 4]], strand=7, note="x"))
    assert isinstance(reading, Reading)
    assert (reading.strand, reading.period_ms, reading.unknown_fields) == (7, 100, 1)
    assert reading.rows[0] == (1.5, 2)
    assert math.isnan(reading.rows[1][0])


@pytest.mark.parametrize("source", [{}, {"fields": {"strand": "line.strand"}}], ids=["at once", "one by one"])
@pytest.mark.parametrize("bits", ["0000817f", "0000c07f", "0100c0ff"], ids=["signalling", "quiet", "payload"])
def test_a_nan_may_come_in_any_bits(bits: str, source: dict[str, object]) -> None:
    values = bytes.fromhex(bits) + struct.pack("<f", 4)
    packed_nan = msgpack({"cast_id": "C1", "ts": TS, "period_ms": 100, "values": values})
    columns = codec(**source).decode(RecordBatch.of([packed_nan])).readings
    assert columns.values_NF.tobytes() == np.array([np.nan, 4], np.float32).tobytes()


def test_a_signalling_nan_beside_readings_of_another_format() -> None:
    chunks = [packed([], values=bytes.fromhex("0100a07f") + struct.pack("<f", 4))] * 20
    values_NF = CODEC.decode(RecordBatch.of([*chunks, record(wide())])).readings.values_NF
    assert values_NF[:20].tobytes() == np.array([[np.nan, 4]] * 20, np.float32).tobytes()


@pytest.mark.parametrize("num", [1, 20])
def test_zero_has_one_sign(num: int) -> None:
    halved = codec(sensors={"speed": {"scale": 0.5}})
    for decoding, one in [
        (CODEC, record(wide(speed=-0.0))),
        (CODEC, packed([[-0.0, 148]])),
        (halved, record(wide(speed=-1e-46))),
    ]:
        values_NF = decoding.decode(RecordBatch.of([one] * num)).readings.values_NF
        assert values_NF.tobytes() == np.array([[0.0, 148]] * num, np.float32).tobytes()


def test_messagepack_carries_the_other_formats_too() -> None:
    assert row(CODEC, msgpack(wide())) == [1.5, 148]
    assert row(CODEC, msgpack(tag(value=3))) == [None, 3]
    assert decode_reading(CODEC, msgpack({"cast_id": "C1", "ts": TS, "event": "cast_end"})) == CastEnd(
        "C1", TS
    )
    reading = decode_reading(CODEC, msgpack(chunk()))
    assert isinstance(reading, Reading)
    assert len(reading.rows) == 2


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (msgpack(b""), "bad_msgpack"),
        (msgpack(b"\xc1"), "bad_msgpack"),
        (msgpack(b"\x91" * 200_000), "bad_msgpack"),
        (msgpack(b"\x81\x81\x01\x02\x03"), "bad_msgpack"),
        (msgpack(b'{"cast_id": "C1"}'), "bad_msgpack"),
        (msgpack([1]), "bad_msgpack"),
        (msgpack(b"\x00\x00\x00\x00\x07" + msgspec.msgpack.encode(wide())), "schema_registry"),
        (packed([[1.0, 2.0, 3.0]]), "wrong_arity"),
        (packed([]), "bad_chunk"),
        (packed([[1.0, math.inf]]), "bad_value"),
        (packed([[1.0, 2.0]], period_ms=0), "bad_chunk"),
        (packed([[1.0, 2.0]], ts=1), "bad_time"),
        (packed([[1.0, 2.0]], values="text"), "bad_chunk"),
        (msgpack(wide(speed=math.inf)), "bad_value"),
    ],
)
@pytest.mark.parametrize("num_good", [0, 20])
def test_a_bad_packed_record_spoils_no_other(one: Record, reason: str, num_good: int) -> None:
    good = [packed([[1.0, 2.0], [3.0, 4.0]], ts=TS + 1000 * index) for index in range(num_good)]
    decoded = CODEC.decode(RecordBatch.of([*good, one, *good]))
    assert [(index, error.reason) for index, error in decoded.refused] == [(num_good, reason)]
    assert decoded.readings.values_NF.tolist() == [[1.0, 2.0], [3.0, 4.0]] * 2 * num_good


def test_a_nan_of_any_kind_is_the_one_nan() -> None:
    odd = struct.pack("<2I", 0x7FC00001, 0xFFC00000)
    columns = CODEC.decode(RecordBatch.of([packed([], values=odd)])).readings
    assert columns.values_NF.tobytes() == np.full((1, 2), np.nan, np.float32).tobytes()


def test_a_schema_registry_is_named_with_its_schema() -> None:
    with pytest.raises(RecordError, match=r"schema 7\); send plain JSON or MessagePack"):
        decode_reading(CODEC, record(b"\x00\x00\x00\x00\x07{}"))


def test_what_looks_like_messagepack_is_told_the_header() -> None:
    with pytest.raises(RecordError, match=r"looks like MessagePack.*content-type: application/msgpack"):
        decode_reading(CODEC, record(msgspec.msgpack.encode(wide())))
    with pytest.raises(RecordError, match=r"looks like JSON.*content-type: application/json"):
        decode_reading(CODEC, msgpack(b"{}"))


def test_a_huge_record_that_is_right_is_read() -> None:
    reading = decode_reading(CODEC, record(chunk(values=[[1, 2]] * 100_000, note="x" * 9_000_000)))
    assert isinstance(reading, Reading)
    assert len(reading.rows) == 100_000
    assert reason_of(CODEC, record(chunk(values=[[1, 2]] * 100_001))) == "bad_chunk"


def test_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    twice = b'{"cast_id":"C0","ts":1763796000000,"speed":"x","speed":2,"cast_id":"C1"}'
    assert row(CODEC, record(twice)) == [2, None]


def test_connects_envelope_is_taken_off() -> None:
    for schema in (None, {"type": "struct"}):
        reading = decode_reading(CODEC, record({"schema": schema, "payload": wide(other=1)}))
        assert isinstance(reading, Reading)
        assert (reading.rows, reading.unknown_fields) == (((1.5, 148.0),), 1)
    end = {"schema": None, "payload": {"cast_id": "C1", "ts": TS, "event": "cast_end"}}
    assert decode_reading(CODEC, record(end)) == CastEnd("C1", TS)
    label = {"schema": None, "payload": {"cast_id": "C1", "defect": True, "inspected_at": TS}}
    assert CODEC.decode_label(record(label)) == Label("C1", True, TS)


def test_a_tag_is_a_row_of_one_value() -> None:
    assert row(CODEC, record(tag())) == [None, float32(148.2)]
    assert stops(CODEC, record(tag())) is None


@pytest.mark.parametrize("one", [tag(quality="bad"), tag(value=None), tag(value="Bad", quality=False)])
@pytest.mark.parametrize("num", [1, 20])
def test_a_bad_tag_is_a_stop(one: dict[str, object], num: int) -> None:
    decoded = CODEC.decode(RecordBatch.of([record(tag(ts=TS - 1)), record(one)] * num))
    assert decoded.readings.stop_NF is not None
    assert decoded.readings.stop_NF.tolist() == [[False, False], [False, True]] * num
    assert np.isnan(decoded.readings.values_NF[:, 1]).tolist() == [False, True] * num
    assert decoded.num_bad_quality == num


@pytest.mark.parametrize("num", [1, 20])
def test_a_tag_that_is_nan_is_a_stop(num: int) -> None:
    nan = msgpack(tag(value=math.nan))
    decoded = CODEC.decode(RecordBatch.of([msgpack(tag(ts=TS - 1)), nan] * num))
    assert decoded.readings.stop_NF is not None
    assert decoded.readings.stop_NF.tolist() == [[False, False], [False, True]] * num
    assert np.isnan(decoded.readings.values_NF[:, 1]).tolist() == [False, True] * num
    assert decoded.num_bad_quality == num


@pytest.mark.parametrize(
    ("scheme", "quality", "expected"),
    [
        ("words", "good", True),
        ("words", "GOOD", True),
        ("words", "Good_LocalOverride", True),
        ("words", "BadNoCommunication", False),
        ("words", "Uncertain_LastUsableValue", "uncertain"),
        ("words", "stale", False),
        ("words", True, True),
        ("words", False, False),
        ("words", None, True),
        ("words", 1, None),
        ("opc_ua", 0, True),
        ("opc_ua", 0x00960000, True),
        ("opc_ua", 0x40920000, "uncertain"),
        ("opc_ua", 0x80310000, False),
        ("opc_ua", 0x80310000 - (1 << 32), False),
        ("opc_ua", 1 << 32, None),
        ("opc_ua", "Good", True),
        ("opc_ua", True, True),
        ("opc_ua", 1, True),
        ("opc_da", 0, False),
        ("opc_da", 63, False),
        ("opc_da", 64, "uncertain"),
        ("opc_da", 127, "uncertain"),
        ("opc_da", 191, False),
        ("opc_da", 192, True),
        ("opc_da", 0x01D8, True),
        ("opc_da", -1, None),
        ("sparkplug", 0, False),
        ("sparkplug", 192, True),
        ("sparkplug", 500, False),
        ("sparkplug", 1, None),
        ("sparkplug", 192.0, None),
    ],
)
@pytest.mark.parametrize("num_records", [1, 20])
def test_qualities(scheme: str, quality: object, expected: bool | str | None, num_records: int) -> None:
    for uncertain in ("good", "bad"):
        decoding = codec(format="tag", quality={"scheme": scheme, "uncertain": uncertain})
        decoded = decoding.decode(RecordBatch.of([record(tag(quality=quality))] * num_records))
        if expected is None:
            assert [error.reason for _, error in decoded.refused] == ["bad_quality"] * num_records
            continue
        good = uncertain == "good" if expected == "uncertain" else expected
        assert decoded.num_bad_quality == (0 if good else num_records)
        assert np.isnan(decoded.readings.values_NF[:, 1]).all() == (not good)


def test_true_and_one_are_different_qualities_in_one_batch() -> None:
    decoding = codec(quality={"scheme": "opc_da"})
    tags = [record(tag(quality=quality)) for quality in [True, 1, False, 0] * 5]
    assert decoding.decode(RecordBatch.of(tags)).num_bad_quality == 15


def test_tags_are_mapped_to_sensors() -> None:
    decoding = codec(tags={"PLC1/Mold.Level": "level"})
    assert row(decoding, record(tag(tag="PLC1/Mold.Level"))) == [None, float32(148.2)]
    decoded = decoding.decode(RecordBatch.of([record(tag()), record(tag(tag="x", value="text"))]))
    assert (len(decoded.readings.record_R), decoded.num_unknown_fields) == (2, 2)
    assert np.isnan(decoded.readings.values_NF).all()
    assert reason_of(codec(format="tag", unknown_tags="refuse"), record(tag(tag="x"))) == "unknown_tag"


def test_a_source_of_one_format_reads_no_other() -> None:
    assert reason_of(codec(format="chunk"), record(wide())) == "bad_chunk"
    assert reason_of(codec(format="tag"), record(wide())) == "bad_tag"
    reading = decode_reading(codec(format="wide"), record(tag()))
    assert isinstance(reading, Reading)
    assert reading.unknown_fields == 2


def test_fields_lie_where_the_source_says() -> None:
    decoding = codec(
        fields={"cast_id": "meta.cast", "ts": "meta.at.ms", "strand": "line", "event": "meta.kind"},
        sensors={"speed": {"field": "body.v"}},
    )
    meta = {"cast": "C9", "at": {"ms": TS}}
    one = {"meta": {**meta, "x": 1}, "line": 2, "body": {"v": 1.5, "w": 2}, "level": 3, "y": 4}
    for records in ([record(one)], [record(one)] * 20):
        decoded = decoding.decode(RecordBatch.of(records))
        columns = decoded.readings
        assert (columns.cast_ids, columns.strands, int(columns.ts_R[0])) == (["C9"], [2], TS)
        assert columns.values_NF.tolist() == [[1.5, 3]] * len(records)
        assert decoded.num_unknown_fields == 3 * len(records)
    assert decode_reading(decoding, record({"meta": {**meta, "kind": "cast_end"}})) == CastEnd("C9", TS)
    assert reason_of(decoding, record({"meta": 5})) == "bad_cast_id"


def test_key_and_headers_may_say_what_the_value_does_not() -> None:
    decoding = codec(
        fields={"cast_id": "$key", "tag": "$header:tag", "strand": "$header:strand"}, format="tag"
    )
    one = record({"ts": TS, "value": 2}, ("tag", b"level"), ("strand", b"4"))
    reading = decode_reading(decoding, one)
    assert isinstance(reading, Reading)
    assert (reading.cast_id, reading.strand, reading.rows[0][1]) == ("C1", 4, 2)
    assert reason_of(decoding, record({"ts": TS, "value": 2}, ("tag", b"\xff"))) == "bad_text"
    assert reason_of(decoding, record({"ts": TS, "value": 2})) == "bad_tag"


@pytest.mark.parametrize(
    ("unit", "zone", "ts", "expected"),
    [
        ("s", None, TS // 1000, TS),
        ("s", None, TS / 1000 + 0.123, TS + 123),
        ("s", None, TS, None),
        ("s", None, 1e306, None),
        ("s", None, -1e308, None),
        ("us", None, TS * 1000 + 999, TS),
        ("ns", None, TS * 1_000_000 + 999_999, TS),
        ("ns", None, TS, None),
        ("s", None, "2025-11-22T07:20:00.001Z", TS + 1),
        ("rfc3339", None, TS, None),
        ("rfc3339", None, "2025-11-22T07:20:00.123456789Z", TS + 123),
        ("rfc3339", None, "2025-11-22T07:20:00", None),
        ("rfc3339", "Europe/Vienna", "2025-11-22T08:20:00", TS),
        ("rfc3339", "Europe/Vienna", "2025-11-22T08:20:00.5", TS + 500),
        ("rfc3339", "Europe/Vienna", "2025-11-22T07:20:00Z", TS),
        ("rfc3339", "Europe/Vienna", "2025-10-26T02:30:00", None),
        ("rfc3339", "Europe/Vienna", "2025-03-30T02:30:00", None),
        ("rfc3339", "Europe/Vienna", "2025-03-30T03:30:00", 1_743_298_200_000),
    ],
)
@pytest.mark.parametrize("num_records", [1, 20])
def test_a_source_tells_the_time_in_its_own_way(
    unit: str, zone: str | None, ts: object, expected: int | None, num_records: int
) -> None:
    decoding = codec(time={"unit": unit, "zone": zone})
    decoded = decoding.decode(RecordBatch.of([record(wide(ts=ts))] * num_records))
    if expected is None:
        assert [error.reason for _, error in decoded.refused] == ["bad_time"] * num_records
    else:
        assert decoded.readings.ts_R.tolist() == [expected] * num_records


def test_one_time_that_overflows_spoils_no_other() -> None:
    readings = [record(wide(ts=TS // 1000))] * 20
    decoded = codec(time={"unit": "s"}).decode(RecordBatch.of([*readings, record(wide(ts=1e306))]))
    assert [(index, error.reason) for index, error in decoded.refused] == [(20, "bad_time")]


def test_values_are_converted_before_their_range_is_looked_at() -> None:
    decoding = codec(
        sensors={"level": {"unit": "in", "min": 25, "max": 254}, "speed": {"scale": 2, "offset": 1}}
    )
    assert row(decoding, record(wide(level=10, speed=1))) == [3, 254]
    decoded = decoding.decode(RecordBatch.of([record(wide(level=10.5)), packed([[0, 0.5], [0, 2]])]))
    assert decoded.num_out_of_range == {"level": 2}
    assert [math.isnan(level) for level in decoded.readings.values_NF[:, 1]] == [True, True, False]
    assert decoded.readings.stop_NF is None


def test_a_tag_out_of_range_is_a_stop() -> None:
    decoding = codec(sensors={"level": {"max": 100}})
    assert stops(decoding, record(tag())) == [False, True]
    assert stops(decoding, record(tag(value=99))) is None


def test_a_range_is_judged_alike_in_every_format() -> None:
    decoding = codec(sensors={"level": {"max": 0.1}})
    assert row(decoding, record(wide(level=0.1))) == row(decoding, packed([[1.5, 0.1]]))


def test_unknown_fields_are_counted_when_most_messages_have_them() -> None:
    messages = [record(wide(**{f"x{index % 100}": index, "y": None})) for index in range(200)]
    for _ in range(2):
        decoded = CODEC.decode(RecordBatch.of([*messages, record(wide())]))
        assert (len(decoded.readings.record_R), decoded.num_unknown_fields) == (201, 400)


def test_labels_lie_where_their_source_says() -> None:
    decoding = Codec(
        SENSORS,
        labels=LabelSourceConfig.model_validate(
            {
                "fields": {"cast_id": "$key", "inspected_at": "at", "defect": "verdict.bad"},
                "time": {"unit": "s"},
            }
        ),
    )
    label = {"at": TS // 1000, "verdict": {"bad": True}}
    assert decoding.decode_label(record(label)) == Label("C1", True, TS)
    with pytest.raises(RecordError, match="inspected_at is 1e"):
        decoding.decode_label(record({**label, "at": 1e306}))


def forms_of(message: dict[str, object]) -> list[Record]:
    """A message as JSON with and without escapes, and as MessagePack."""
    return [record(message), record(json.dumps(message, ensure_ascii=False).encode()), msgpack(message)]


@pytest.mark.parametrize("num", [1, 20])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_sensor_may_have_any_name(name: str, num: int) -> None:
    decoding = Codec((SensorConfig(name="level"), SensorConfig(name=name, unit="bar")))
    wide_row = {"cast_id": "C1", "ts": TS, "level": 1.5, name: 2.5}
    for message, expected in (
        (wide_row, [1.5, 2.5]),
        (tag(tag=name, value=2.5), [None, 2.5]),
        (chunk(values=[[1.5, 2.5]]), [1.5, 2.5]),
    ):
        for one in forms_of(message):
            if "values" in message and one.headers:
                continue  # MessagePack packs them
            decoded = decoding.decode(RecordBatch.of([one] * num))
            assert (decoded.refused, decoded.num_unknown_fields) == ([], 0)
            np.testing.assert_array_equal(decoded.readings.values_NF, [np.array(expected, float)] * num)


def test_a_sensor_of_any_name_has_a_unit_and_a_range() -> None:
    name = ODD_NAMES[2]
    sensors = {name: {"unit": "psi", "max": 1}}
    source = SourceConfig.model_validate({"topic": "readings", "sensors": sensors})
    decoding = Codec((SensorConfig(name=name, unit="bar"),), source)
    messages = [record({"cast_id": "C1", "ts": TS, name: value}) for value in (10, 1000)]
    decoded = decoding.decode(RecordBatch.of(messages))
    np.testing.assert_allclose(decoded.readings.values_NF, [[0.6894757], [np.nan]], rtol=1e-6)
    assert decoded.num_out_of_range == {name: 1}


def test_a_refusal_shows_where_the_name_ends() -> None:
    decoding = Codec((SensorConfig(name="Volume Flow, left"),))
    for value, said in (
        ("x", "\"Volume Flow, left\" is 'x', expected"),
        (1e300, '"Volume Flow, left" is 1e+300'),
    ):
        one = record({"cast_id": "C1", "ts": TS, "Volume Flow, left": value})
        ((_, error),) = decoding.decode(RecordBatch.of([one])).refused
        assert str(error).startswith(said)


@pytest.mark.parametrize("name", ["a", 'a"b', "a\\b"])
def test_names_that_json_escapes_slow_down_wide_rows_alone(name: str) -> None:
    layout = Layout((SensorConfig(name=name),), SourceConfig(topic="readings"))
    assert layout.fast_kinds == {"chunk", "tag"} | ({"wide"} if name == "a" else set())
