"""Metrics of the streamer, and the text that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from streamer.config import StreamerSettings
from streamer.open_rows import OUTCOMES
from streamer.outcomes import REASONS, RECORD_KINDS, SERVERS

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(registry: CollectorRegistry) -> bytes:
    """The metrics of a registry in Prometheus' text format."""
    return generate_latest(registry)


class StreamerMetrics:
    """What the streamer counts. No label grows with the number of casts.

    A counter has all its labels from the start, at 0: what is counted first is an increase then.

    Args:
        topics: That are read.
        sensors: By name.
    """

    def __init__(self, topics: Collection[str] = (), sensors: Collection[str] = ()) -> None:
        self.registry = CollectorRegistry()
        prefix = "casting_streamer"

        def counter(name: str, text: str, **labels: Collection[str]) -> Counter:
            made = Counter(f"{prefix}_{name}", text, tuple(labels), registry=self.registry)
            for values in labels.values():
                for value in values:
                    made.labels(value)
            return made

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{prefix}_{name}", text, labels, registry=self.registry)

        self.records = counter("records", "Records by what became of them.", kind=RECORD_KINDS)
        self.producer_batches = counter(
            "producer_batches", "Batches that the records came in, as they were sent."
        )
        self.steps = counter("steps", "Rows of applied readings by outcome.", outcome=OUTCOMES)
        self.dead_letters = counter("dead_letters", "Records sent to the dead-letter topic.", reason=REASONS)
        self.unknown_fields = counter("unknown_fields", "Fields of readings that no sensor bears.")
        self.bad_quality = counter("bad_quality", "Values that their gateway marked as bad: gaps.")
        self.out_of_range = counter(
            "out_of_range", "Values outside the physical range: gaps.", sensor=sensors
        )
        self.windows_sealed = counter("windows_sealed", "Windows that became final.")
        self.log_gaps = counter(
            "log_gaps", "Records that retention removed before they were read.", topic=topics
        )
        self.outages = counter("outages", "Times that a server did not take our work.", server=SERVERS)
        self.rebalances = counter("rebalances", "Changes of the assignment.")
        self.lag = gauge("lag", "Records behind the end of the partition.", "topic", "partition")
        self.partitions = gauge("assigned_partitions", "Partitions that this member reads.")
        self.casts_open = gauge("open_casts", "Casts with steps that are not final.")
        self.many_open_casts = gauge(
            "many_open_casts",
            "1 for a partition with more open casts than consumer.many_open_casts.",
            *("topic", "partition"),
        )
        self.stopped = gauge(
            "stopped", "1 for a partition that the breaker has stopped.", "topic", "partition"
        )
        self.casts_evicted = counter("casts_evicted", "Casts whose rows retention took.")
        self.stubs_dropped = counter("stubs_dropped", "Stubs of evicted casts whose time is over.")
        self.labels_expired = counter("labels_expired", "Labels given up, since their cast did not come.")
        self.stored_casts = gauge("stored_casts", "Casts of the namespace with rows.")
        self.stored_bytes = gauge(
            "stored_bytes", "Bytes of casts that nobody holds, if retention.max_bytes is set."
        )
        self.held_casts = gauge("held_casts", "Casts that data sets hold.")
        self.stubs = gauge("stubs", "Casts of the namespace without rows.")
        self.pending_labels = gauge("pending_labels", "Casts with labels and no reading.")
        self.unlabelled_windows = gauge("unlabelled_windows", "Sealed windows that no label decides.", "spec")
        self.ready = gauge("ready", "1 while records are taken.")
        self.batch_seconds = Histogram(
            f"{prefix}_batch_seconds",
            "Time from poll to commit of a batch with records.",
            registry=self.registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15),
        )
        self.batch_records = Histogram(
            f"{prefix}_batch_records",
            "Records of a batch.",
            registry=self.registry,
            buckets=(1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 20_000),
        )

    @classmethod
    def of(cls, settings: StreamerSettings) -> Self:
        """The metrics of a member with these settings."""
        topics = (*settings.reading_topics, settings.topics.labels)
        return cls(topics, [sensor.name for sensor in settings.data.sensors])
