"""Batches behind a right CRC that no parser reads: their partition waits and says so, the others go on."""

from __future__ import annotations

import gzip
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from kafka import KafkaProducer
from kafka.record import default_records
from kafka.record.util import calc_crc32c
from streamer_harness import Member, Plant, Sent, make_settings, member, ms

from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.kafka import decompression
from streamer.records import Partition

NONE, GZIP, LZ4, ZSTD = 0, 1, 3, 4
CRC_AT, ATTRIBUTES_AT, BODY_AT = 17, 21, 61
MARK = b"replace this batch"


def of_codec(codec: int, body: bytes) -> Callable[[bytes], bytes]:
    """Puts another body into a batch, with a CRC that is right."""

    def replace(batch: bytes) -> bytes:
        made = bytearray(batch[:BODY_AT] + body)
        struct.pack_into(">i", made, 8, len(made) - 12)
        struct.pack_into(">h", made, ATTRIBUTES_AT, codec)
        struct.pack_into(">I", made, CRC_AT, calc_crc32c(memoryview(made)[ATTRIBUTES_AT:]))
        return bytes(made)

    return replace


def replace_marked(one: Member, replace: Callable[[bytes], bytes]) -> Callable[[], None]:
    """From now on answers bring another batch in the place of the marked one; returns what ends that."""
    fetcher = one.consumer._consumer._fetcher
    arrived = fetcher._handle_fetch_response

    def turn(node: Any, fetch_offsets: Any, sent: Any, response: Any) -> None:
        for part in (part for answer in response.responses for part in answer.partitions):
            if part.records and MARK in bytes(part.records):
                part.records = b"".join(
                    replace(batch) if MARK in batch else batch for batch in batches(bytes(part.records))
                )
        arrived(node, fetch_offsets, sent, response)

    fetcher._handle_fetch_response = turn

    def end() -> None:
        fetcher._handle_fetch_response = arrived

    return end


def batches(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        end = at + 12 + int(struct.unpack_from(">i", raw, at + 8)[0])
        found.append(raw[at:end])
        at = end
    return found


def send(settings: StreamerSettings, partition: int, *records: Sent) -> None:
    """Each in a batch of its own, to one partition."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, linger_ms=0)
    for record in records:
        at = ms(record.at or 0)
        producer.send(record.topic, record.value, partition=partition, headers=[("sent-at", b"%d" % at)])
        producer.flush()
    producer.close()


def offset(one: Member, partition: int) -> int:
    held = one.client.hget(one.keys.position(Partition(one.settings.topics.readings, partition)), "offset")
    return int(held or 0)


@pytest.mark.parametrize(
    ("fast_path", "replace", "cause"),
    [
        ("auto", of_codec(ZSTD, b"garbage!!"), "ZstdError"),
        ("auto", of_codec(GZIP, gzip.compress(b"x" * 1_000)[:-20]), "EOFError"),
        ("off", of_codec(LZ4, b"garbage"), "RuntimeError"),
        ("off", of_codec(GZIP, b"garbage"), "BadGzipFile"),
        ("off", of_codec(NONE, b"\x14\0\0\0\1\1"), "IndexError"),
    ],
)
def test_its_partition_waits_and_says_so_and_the_other_goes_on(
    kafka: KafkaConfig,
    redis: RedisConfig,
    unique: str,
    fast_path: str,
    replace: Callable[[bytes], bytes],
    cause: str,
) -> None:
    settings = make_settings(kafka, redis, unique, fast_path=fast_path)
    plant = Plant(settings)
    topic = settings.topics.readings
    with member(settings) as one:
        mend = replace_marked(one, replace)
        one.run_until(one.assigned)
        before = [plant.reading("A", step) for step in range(3)]
        marked = plant.raw("A", MARK, 3)
        send(settings, 0, *before, marked, plant.reading("A", 4))
        send(settings, 1, *(plant.reading("B", step) for step in range(5)))
        one.run_until(lambda: offset(one, 1) == 5 and one.health.why_not_ready() is not None)
        why = str(one.health.why_not_ready())
        assert f"{topic}/0 at or behind offset 3 cannot be read" in why
        assert cause in why
        send(settings, 1, plant.reading("B", 5))
        one.run_until(lambda: offset(one, 1) == 6)
        assert offset(one, 0) == 3
        assert one.metrics.registry.get_sample_value("casting_streamer_outages_total", {"server": "kafka"})
        mend()
        one.run_until(lambda: offset(one, 0) == 5 and one.health.why_not_ready() is None)


def test_a_bomb_is_not_unpacked(
    kafka: KafkaConfig, redis: RedisConfig, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", 1024 * 1024)
    settings = make_settings(kafka, redis, unique)
    plant = Plant(settings)
    with member(settings) as one:
        assert default_records.zstd_decode is decompression.zstd_decode
        replace_marked(one, of_codec(ZSTD, zstandard.ZstdCompressor().compress(bytes(8 * 1024 * 1024))))
        one.run_until(one.assigned)
        send(settings, 0, plant.reading("A", 0), plant.raw("A", MARK, 1))
        one.run_until(lambda: one.health.why_not_ready() is not None)
        assert "it has more than 1,048,576 bytes decompressed" in str(one.health.why_not_ready())
        assert offset(one, 0) == 1


def test_a_name_of_a_header_that_is_not_text_stops_nothing(
    kafka: KafkaConfig, redis: RedisConfig, unique: str
) -> None:
    settings = make_settings(kafka, redis, unique)
    plant = Plant(settings)
    with member(settings) as one:
        one.run_until(one.assigned)
        name = bytes([0x14, 0, 0, 0, 1, 1, 2, 4, 0xC3, 0x28, 1])
        replace_marked(one, of_codec(NONE, name))
        send(settings, 0, plant.reading("A", 0), plant.raw("A", MARK, 1), plant.reading("A", 2))
        one.run_until(lambda: offset(one, 0) == 3)
        end = time.monotonic() + 0.3
        one.run_until(lambda: time.monotonic() > end)
        assert one.health.why_not_ready() is None
