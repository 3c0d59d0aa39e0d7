"""The loop that most begin with: kafka-python message by message, json, one SET a window."""

from __future__ import annotations

import json
import struct

import redis
from kafka import KafkaConsumer

from benchmarks.ingest.stopwatch import Stopwatch
from benchmarks.peers.job import Job, window_key


def main() -> None:
    job, watch = Job.from_arguments(), Stopwatch()
    client = redis.Redis.from_url(job.redis_url)
    consumer = KafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap_servers,
        group_id=job.group_id,
        auto_offset_reset="earliest",
        session_timeout_ms=job.session_timeout_ms,
        heartbeat_interval_ms=job.session_timeout_ms // 6,
    )
    windows: dict[tuple[str, int], list[list[float]]] = {}
    for num_records, message in enumerate(consumer, start=1):
        watch.begin()
        reading = json.loads(message.value)
        start = reading["ts"] // job.span_ms * job.span_ms
        window = windows.setdefault((reading["cast_id"], start), [])
        window.append([reading[name] for name in job.sensors])
        if len(window) == job.window_steps:
            rows = b"".join(struct.pack(f"<{len(row)}f", *row) for row in window)
            client.set(window_key(reading["cast_id"], start), rows)
            del windows[reading["cast_id"], start]
        if num_records == job.num_records:
            break
    watch.mark()
    print(watch.report())
    consumer.close()


if __name__ == "__main__":
    main()
