"""A well-written loop: confluent-kafka in batches, orjson, one pipeline of SETs a batch, commit after the write."""

from __future__ import annotations

from struct import Struct

import orjson
import redis
from confluent_kafka import Consumer, KafkaException

from benchmarks.ingest.stopwatch import Stopwatch
from benchmarks.peers.job import Job, window_key


def main() -> None:
    job, watch = Job.from_arguments(), Stopwatch()
    client = redis.Redis.from_url(job.redis_url)
    consumer = Consumer(
        {
            **job.librdkafka,
            "bootstrap.servers": job.bootstrap_servers,
            "group.id": job.group_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job.topic])
    speed, temperature, level, flow, superheat = job.sensors
    num_values = job.window_steps * len(job.sensors)
    pack = Struct(f"<{num_values}f").pack
    loads, span_ms = orjson.loads, job.span_ms
    open_windows: dict[str, tuple[int, list[float]]] = {}
    num_records = 0
    while num_records < job.num_records:
        messages = consumer.consume(5000, timeout=0.05)
        if not messages:
            continue
        watch.begin()
        pipe = client.pipeline(transaction=False)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            reading = loads(message.value())
            cast_id, start = reading["cast_id"], reading["ts"] // span_ms * span_ms
            window = open_windows.get(cast_id)
            if window is None or window[0] != start:
                window = open_windows[cast_id] = (start, [])
            values = window[1]
            values += (
                reading[speed],
                reading[temperature],
                reading[level],
                reading[flow],
                reading[superheat],
            )
            if len(values) == num_values:
                pipe.set(window_key(cast_id, start), pack(*values))
                del open_windows[cast_id]
        if len(pipe):
            pipe.execute()
        consumer.commit(asynchronous=True)
        num_records += len(messages)
        watch.mark()
    print(watch.report())
    consumer.close()


if __name__ == "__main__":
    main()
