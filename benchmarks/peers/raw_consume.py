"""The ceiling: confluent-kafka's `consume(5000)`, and nothing done with the records."""

from __future__ import annotations

from confluent_kafka import Consumer

from benchmarks.ingest.stopwatch import Stopwatch
from benchmarks.peers.job import Job


def main() -> None:
    job, watch = Job.from_arguments(), Stopwatch()
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
    num_records = 0
    while num_records < job.num_records:
        messages = consumer.consume(5000, timeout=0.05)
        if messages:
            watch.begin()
            num_records += len(messages)
    watch.mark()
    print(watch.report())
    consumer.close()


if __name__ == "__main__":
    main()
