"""The readings that every competitor gets, the topics they lie in, and the windows that must come of them.

Shape suffixes: C casts, T steps, F sensors.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from kafka import KafkaAdminClient, KafkaProducer
from kafka.partitioner import murmur2

from streamer.config import KafkaConfig

SENSORS = ("casting_speed", "mold_temperature", "mold_level", "cooling_water_flow", "superheat")
LOWEST = (0.8, 120.0, 80.0, 1800.0, 15.0)
PERIOD_MS = 1000
NUM_PARTITIONS = 4
WINDOW_STEPS = 300
# A multiple of the window's length: grids that begin at the epoch cut the same windows as one that begins with
# the cast.
START_TS = 1_763_796_000_000
# Smaller: more batches for every competitor to take apart. Larger: nothing gained.
BATCH_BYTES = 128 * 1024

Headers = Sequence[tuple[str, bytes]]
Record = tuple[str, int, bytes, Headers]
Window = tuple[str, int, bytes]
MSGPACK: Headers = (("content-type", b"application/msgpack"),)


@dataclass(frozen=True)
class Load:
    """Casts side by side, one reading a second each.

    Attributes:
        num_steps: Steps of each cast; what is left behind its last full window closes that one.
    """

    num_casts: int
    num_steps: int

    @property
    def num_readings(self) -> int:
        """Rows of all casts."""
        return self.num_casts * self.num_steps

    @property
    def num_windows(self) -> int:
        """Full windows of all casts."""
        return self.num_casts * (self.num_steps // WINDOW_STEPS)

    @cached_property
    def cast_ids(self) -> list[str]:
        """Ids that the default partitioner spreads evenly, so that two members have the same amount of work."""
        room = [-(-self.num_casts // NUM_PARTITIONS)] * NUM_PARTITIONS
        chosen: list[str] = []
        number = 0
        while len(chosen) < self.num_casts:
            number += 1
            cast_id = f"C{number:06d}"
            partition = (murmur2(cast_id.encode()) & 0x7FFFFFFF) % NUM_PARTITIONS
            if room[partition]:
                room[partition] -= 1
                chosen.append(cast_id)
        return chosen

    @cached_property
    def thousandths(self) -> npt.NDArray[np.int64]:
        """CTF: values in thousandths of their unit, three decimals in JSON."""
        dice = np.random.default_rng(3)
        shape = (self.num_casts, self.num_steps, len(SENSORS))
        walk = np.abs(np.cumsum(dice.integers(-20, 21, shape), axis=1))
        lowest_F = (np.array(LOWEST) * 1000).astype(np.int64)
        values: npt.NDArray[np.int64] = walk + lowest_F
        return values

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """CTF: values as they must lie in Redis."""
        return (self.thousandths / 1000).astype("<f4")

    def windows(self) -> Iterator[Window]:
        """(cast, start in epoch ms, rows) of each full window."""
        values_CTF = self.values
        for number, cast_id in enumerate(self.cast_ids):
            for begin in range(0, self.num_steps - WINDOW_STEPS + 1, WINDOW_STEPS):
                rows = values_CTF[number, begin : begin + WINDOW_STEPS].tobytes()
                yield cast_id, START_TS + begin * PERIOD_MS, rows

    def wide_json(self) -> Iterator[Record]:
        """(cast, time, value, headers): one reading each."""
        texts = [
            (f'{{"cast_id":"{cast_id}","strand":{number % 4 + 1},"ts":').encode()
            for number, cast_id in enumerate(self.cast_ids)
        ]
        body = "%d," + ",".join(f'"{name}":%.3f' for name in SENSORS) + "}"
        for step in range(self.num_steps):
            ts = START_TS + step * PERIOD_MS
            rows = (self.thousandths[:, step] / 1000).tolist()
            for cast_id, text, row in zip(self.cast_ids, texts, rows, strict=True):
                yield cast_id, ts, text + (body % (ts, *row)).encode(), ()

    def msgpack_chunks(self, rows_a_chunk: int = 10) -> Iterator[Record]:
        """(cast, time, value, headers): `rows_a_chunk` readings each."""
        encode = msgspec.msgpack.Encoder().encode
        values_CTF = self.values
        for step in range(0, self.num_steps, rows_a_chunk):
            ts = START_TS + step * PERIOD_MS
            for number, cast_id in enumerate(self.cast_ids):
                rows = values_CTF[number, step : step + rows_a_chunk].tobytes()
                chunk = {"cast_id": cast_id, "strand": number % 4 + 1, "ts": ts, "period_ms": PERIOD_MS}
                yield cast_id, ts + (rows_a_chunk - 1) * PERIOD_MS, encode(chunk | {"values": rows}), MSGPACK


def fill(kafka: KafkaConfig, topic: str, records: Iterable[Record], compression: str | None = None) -> int:
    """Creates a topic and fills it in large batches; Kafka's timestamp is the time of the reading.

    Returns:
        The number of records.
    """
    admin: Any = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    # Quix Streams asks for the retention of what it reads.
    configs = {"retention.ms": "-1", "retention.bytes": "-1"}
    admin.create_topics(
        {topic: {"num_partitions": NUM_PARTITIONS, "replication_factor": 1, "configs": configs}}
    )
    admin.close()
    producer: Any = KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        metrics_enabled=False,
        linger_ms=1000,  # only a full batch is sent
        batch_size=BATCH_BYTES,
        compression_type=compression,
        max_in_flight_requests_per_connection=1,
    )
    number = 0
    failures: list[Exception] = []
    for cast_id, ts, value, headers in records:
        number += 1
        producer.send(topic, value, key=cast_id.encode(), timestamp_ms=ts, headers=list(headers)).add_errback(
            failures.append
        )
    producer.flush()
    producer.close()
    if failures:
        raise RuntimeError(f"{topic}: {len(failures)} records were not taken, the first: {failures[0]}")
    return number


def checksum(windows: Iterable[Window]) -> tuple[int, str]:
    """Number of windows and a digest over (cast, start, rows), whatever their order."""
    digest, number = hashlib.blake2b(digest_size=16), 0
    for cast_id, start, rows in sorted(windows):
        number += 1
        digest.update(cast_id.encode() + struct.pack("<qq", start, len(rows)) + rows)
    return number, digest.hexdigest()
