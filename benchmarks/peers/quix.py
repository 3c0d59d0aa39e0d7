"""Quix Streams with tumbling windows of event time, and its own Redis sink."""

from __future__ import annotations

import struct
import tempfile
from typing import Any

import redis
from quixstreams import Application
from quixstreams.sinks.community.redis import RedisSink

from benchmarks.ingest.stopwatch import Stopwatch
from benchmarks.peers.job import Job, window_key


class MarkedSink(RedisSink):  # type: ignore[misc]  # it lives in the peers' environment
    """The sink as it is, with the marks of the stopwatch."""

    def __init__(self, watch: Stopwatch, **options: Any) -> None:
        super().__init__(**options)
        self._watch = watch

    def flush(self) -> None:
        super().flush()
        self._watch.mark()


def main() -> None:
    job, watch = Job.from_arguments(), Stopwatch()
    num_records = 0

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        nonlocal num_records
        num_records += 1
        if num_records == job.num_records:
            app.stop()

    def row(reading: dict[str, Any]) -> list[float]:
        watch.begin()
        return [reading[name] for name in job.sensors]

    def pack(window: dict[str, Any]) -> bytes:
        values = [value for row in window["value"] for value in row]
        return struct.pack(f"<{len(values)}f", *values)

    with tempfile.TemporaryDirectory() as state_dir:
        app = Application(
            broker_address=job.bootstrap_servers,
            consumer_group=job.group_id,
            auto_offset_reset="earliest",
            consumer_extra_config=job.librdkafka,
            state_dir=state_dir,
            on_message_processed=processed,
            loglevel="WARNING",
        )
        address = redis.ConnectionPool.from_url(job.redis_url).connection_kwargs
        sink = MarkedSink(
            watch,
            host=address["host"],
            port=address["port"],
            db=address["db"],
            key_serializer=lambda key, window: window_key(key.decode(), window["start"]),
            value_serializer=pack,
        )
        stream = app.dataframe(app.topic(job.topic, value_deserializer="json"))
        windows = (
            stream.apply(row).tumbling_window(job.span_ms, grace_ms=job.lateness_s * 1000).collect().final()
        )
        windows.sink(sink)
        app.run()
    print(watch.report())


if __name__ == "__main__":
    main()
