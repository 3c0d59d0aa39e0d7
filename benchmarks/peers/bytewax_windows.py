"""Bytewax with tumbling windows of event time, its Kafka source, and a sink that writes a pipeline a batch."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
import redis
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from benchmarks.ingest.stopwatch import Stopwatch
from benchmarks.peers.job import Job, window_key

JOB, WATCH = Job.from_arguments(), Stopwatch()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = tuple[datetime, list[float]]


class RedisPartition(StatelessSinkPartition[Any]):  # type: ignore[misc]  # it lives in the peers' environment
    """Writes full windows; what the end of the topic cuts off is not written."""

    def __init__(self) -> None:
        self._client = redis.Redis.from_url(JOB.redis_url)

    def write_batch(self, items: list[tuple[str, tuple[int, list[Row]]]]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for cast_id, (window, rows) in items:
            if len(rows) == JOB.window_steps:
                values = [value for _, row in rows for value in row]
                pipe.set(window_key(cast_id, window * JOB.span_ms), struct.pack(f"<{len(values)}f", *values))
        pipe.execute()
        WATCH.mark()


class RedisSink(DynamicSink[Any]):  # type: ignore[misc]  # it lives in the peers' environment
    """One client a worker."""

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> RedisPartition:
        return RedisPartition()


def parse(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, Row]:
    WATCH.begin()
    reading = orjson.loads(message.value)
    at = datetime.fromtimestamp(reading["ts"] / 1000, UTC)
    return reading["cast_id"], (at, [reading[name] for name in JOB.sensors])


def dataflow() -> Dataflow:
    flow = Dataflow("windows")
    source = KafkaSource(
        [JOB.bootstrap_servers], [JOB.topic], tail=False, add_config=JOB.librdkafka, batch_size=5000
    )
    readings = op.map("parse", op.input("readings", flow, source), parse)
    clock = win.EventClock(
        ts_getter=lambda row: row[0], wait_for_system_duration=timedelta(seconds=JOB.lateness_s)
    )
    windower = win.TumblingWindower(length=timedelta(milliseconds=JOB.span_ms), align_to=EPOCH)
    windows = win.collect_window("windows", readings, clock, windower)
    op.output("redis", windows.down, RedisSink())
    return flow


if __name__ == "__main__":
    run_main(dataflow())
    print(WATCH.report())
