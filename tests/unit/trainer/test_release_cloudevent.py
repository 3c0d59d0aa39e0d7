"""CloudEvents in Kafka records, checked against the cloudevents package in both directions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings import kafka as oracle
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OracleEvent

from streamer.errors import RecordError
from trainer.release.client.cloudevent import CloudEvent, from_record, to_binary, to_structured

AT = datetime(2026, 11, 22, 10, 0, 0, 250_000, tzinfo=UTC)
DATA = b"\x00\xff\x80 not UTF-8"
BINARY = CloudEvent(
    id="a-1",
    source="/castloop/trainer",
    type="io.castloop.model.updated",
    time=AT,
    subject="défaut",
    datacontenttype="application/vnd.safetensors",
    data=DATA,
    extensions={"modelversion": "3"},
)
STRUCTURED = CloudEvent(
    id="a-2",
    source="/castloop/trainer",
    type="io.castloop.model.refused",
    time=AT,
    subject="defect-lstm",
    datacontenttype="application/json",
    data={"reasons": ["below µ"], "details": {"lower": -0.2}},
    extensions={"modelversion": "4"},
)


def test_the_oracle_reads_our_binary_mode() -> None:
    headers, value = to_binary(BINARY)
    event = oracle.from_binary(oracle.KafkaMessage(dict(headers), None, value), JSONFormat())
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "a-1",
        "source": "/castloop/trainer",
        "type": "io.castloop.model.updated",
        "time": AT,
        "subject": "défaut",
        "datacontenttype": "application/vnd.safetensors",
        "modelversion": "3",
    }
    assert event.get_data() == DATA
    assert dict(headers)["ce_time"] == b"2026-11-22T10:00:00.250000Z"


def test_the_oracle_reads_our_structured_mode() -> None:
    headers, value = to_structured(STRUCTURED)
    assert dict(headers) == {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    event = oracle.from_structured(oracle.KafkaMessage(dict(headers), None, value), JSONFormat())
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "a-2",
        "source": "/castloop/trainer",
        "type": "io.castloop.model.refused",
        "time": AT,
        "subject": "defect-lstm",
        "datacontenttype": "application/json",
        "modelversion": "4",
    }
    assert event.get_data() == STRUCTURED.data


def oracle_event(event: CloudEvent) -> OracleEvent:
    attributes = {**event.attributes(), "time": event.time}
    return OracleEvent(attributes, event.data)  # type: ignore[arg-type]  # it takes dicts, ours are mappings


def test_we_read_the_binary_mode_of_the_oracle() -> None:
    message = oracle.to_binary(oracle_event(BINARY), JSONFormat())
    assert from_record(tuple(message.headers.items()), message.value) == BINARY


@pytest.mark.parametrize("data", [STRUCTURED.data, DATA], ids=["object", "bytes"])
def test_we_read_the_structured_mode_of_the_oracle(data: bytes) -> None:
    event = CloudEvent(id="a", source="/s", type="t", time=AT, data=data)
    message = oracle.to_structured(oracle_event(event), JSONFormat())
    assert from_record(tuple(message.headers.items()), message.value) == event


@pytest.mark.parametrize("event", [STRUCTURED, CloudEvent(id="a", source="/s", type="t", data=DATA)])
def test_we_read_our_own_structured_mode(event: CloudEvent) -> None:
    assert from_record(*to_structured(event)) == event


def test_we_read_our_own_binary_mode() -> None:
    assert from_record(*to_binary(BINARY)) == BINARY


def test_a_time_with_another_offset_is_the_same_moment() -> None:
    local = AT.astimezone(timezone(timedelta(hours=9)))
    event = CloudEvent(id="a", source="/s", type="t", time=local, data=b"x")
    headers, value = to_binary(event)
    assert dict(headers)["ce_time"].endswith(b"Z")
    assert from_record(headers, value).time == AT


def test_header_names_may_be_written_in_capitals() -> None:
    headers, value = to_binary(BINARY)
    assert from_record([(name.upper(), raw) for name, raw in headers], value) == BINARY


def binary_headers(**changes: bytes | None) -> list[tuple[str, bytes]]:
    headers = dict(to_binary(BINARY)[0]) | {f"ce_{name}": raw for name, raw in changes.items() if raw}
    return [(name, raw) for name, raw in headers.items() if changes.get(name.removeprefix("ce_"), b"-")]


@pytest.mark.parametrize(
    ("headers", "value", "message"),
    [
        ([], b"x", "version None"),
        (binary_headers(specversion=b"0.3"), b"x", "version '0.3'"),
        (binary_headers(id=None), b"x", "needs id"),
        (binary_headers(time=b"yesterday"), b"x", "RFC 3339"),
        (binary_headers(time=b"2026-13-01T00:00:00Z"), b"x", "month"),
        (binary_headers(subject=b"\xff"), b"x", "ce_subject is not UTF-8"),
        (binary_headers(**{"bad-name": b"1"}), b"x", "'bad-name'"),
        ([("content-type", b"application/cloudevents+json")], b"{", "not JSON"),
        ([("content-type", b"application/cloudevents+json")], None, "not JSON"),
        ([("content-type", b"application/cloudevents+json")], b"[]", "JSON object"),
        (
            [("content-type", b"application/cloudevents+json")],
            json.dumps(
                {"specversion": "1.0", "id": "1", "source": "/", "type": "t", "data_base64": "?"}
            ).encode(),
            "data_base64",
        ),
    ],
)
def test_what_is_no_cloudevent_is_a_record_error(
    headers: list[tuple[str, bytes]], value: bytes | None, message: str
) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        from_record(headers, value)
    assert caught.value.reason == "bad_cloudevent"


def test_binary_mode_carries_bytes_only() -> None:
    with pytest.raises(RecordError, match="bytes"):
        to_binary(STRUCTURED)


@pytest.mark.parametrize("name", ["Model", "model_version", "", "id", "data"])
def test_a_bad_name_for_an_extension_is_refused(name: str) -> None:
    with pytest.raises(RecordError, match="no name"):
        CloudEvent(id="a", source="/s", type="t", extensions={name: "1"})
