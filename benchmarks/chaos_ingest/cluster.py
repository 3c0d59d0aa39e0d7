"""Servers, topics and the log in them: what every run of the benchmark stands on."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Self

import kafka

from benchmarks.chaos_ingest.generator import Plan
from benchmarks.chaos_ingest.log import LABELS, READINGS, RULES, Entry, Source
from benchmarks.chaos_ingest.servers import FragileRedis, ProxiedBroker
from streamer.app import have_topics
from streamer.config import (
    ConsumerConfig,
    DataConfig,
    EventTimeConfig,
    KafkaConfig,
    LoggingConfig,
    RedisConfig,
    SensorConfig,
    StreamerSettings,
    TopicsConfig,
    WindowsConfig,
)
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore

# The embedded broker lets a group form in half of it. Smaller: a loaded machine drops out of its group.
SESSION_MS = 2_000
# Records of a batch: smaller, and there is more to be killed between; larger, and the run is over sooner.
BATCH_RECORDS = 40


Assignment = Literal["range", "cooperative-sticky"]


class Cluster:
    """A broker, a Redis and a folder, for as long as the context lasts."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.broker = ProxiedBroker()
        self.redis = FragileRedis()
        self.folder = Path()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="castloop-chaos-")))
        self._stack.enter_context(self.broker)
        self._stack.enter_context(self.redis)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settings(
        self, log: str, run: str, num_partitions: int, assignment: Assignment = "range"
    ) -> StreamerSettings:
        """Settings of one run over one log: topics by the log, namespace, group and dead letters by the run."""
        return StreamerSettings(
            kafka=KafkaConfig(bootstrap_servers=self.broker.bootstrap_servers, request_timeout_ms=5_000),
            topics=TopicsConfig(
                readings=f"readings-{log}",
                labels=f"labels-{log}",
                dead_letters=f"dead-{log}-{run}",
                num_partitions=num_partitions,
            ),
            redis=RedisConfig(url=self.redis.url, namespace=f"{log}-{run}", timeout_s=2),
            data=DataConfig(
                sensors=tuple(SensorConfig(name=name) for name in RULES.sensors),
                period_ms=RULES.period,
                grid_phase_ms=RULES.phase,
                block_steps=64,
            ),
            event_time=EventTimeConfig(
                allowed_lateness_s=RULES.lateness / 1000,
                idle_timeout_s=RULES.idle / 1000,
                max_future_s=RULES.future / 1000,
                max_past_s=RULES.past / 1000,
            ),
            windows=WindowsConfig(
                size_steps=RULES.size,
                hop_steps=RULES.hop,
                min_valid_ratio=RULES.min_valid,
                short_casts="pad",
                tail="align_end",
            ),
            consumer=ConsumerConfig(
                group_id=f"{log}-{run}",
                assignment=assignment,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=SESSION_MS // 6,
                max_poll_records=BATCH_RECORDS,
                poll_timeout_ms=50,
            ),
            logging=LoggingConfig(level="info", format="json"),
        )


class Feeder:
    """Sends a log, each record to the partition that the plan says, so that its offset is its place there.

    A context: its end closes the producer.
    """

    def __init__(self, settings: StreamerSettings, plan: Plan) -> None:
        have_topics(settings)
        self._topics = {READINGS: settings.topics.readings, LABELS: settings.topics.labels}
        self._plan = plan
        self._sent = dict.fromkeys(plan.log, 0)
        self._producer = kafka.KafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap_servers, linger_ms=20, metrics_enabled=False
        )

    def send(self, kind: str, share: float = 1.0) -> None:
        """Sends records of one topic until so large a share of each partition is sent, and waits for them."""
        futures = []
        for source, entries in self._plan.log.items():
            if source[0] == kind:
                end = round(len(entries) * share)
                futures += [self._one(source, entry) for entry in entries[self._sent[source] : end]]
                self._sent[source] = max(end, self._sent[source])
        self._producer.flush(timeout=60)
        for future in futures:
            future.get(0)

    def _one(self, source: Source, entry: Entry) -> kafka.future.Future:
        headers = [("sent-at", entry.sent_at), ("content-type", entry.content_type)]
        return self._producer.send(
            self._topics[source[0]],
            entry.value,
            key=entry.key.encode(),
            partition=source[1],
            headers=headers,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=5)


def num_consumed(settings: StreamerSettings) -> int:
    """Records of both topics that lie behind the positions."""
    client = connect(settings.redis)
    try:
        positions = PositionStore(client, Keys(settings.redis.namespace)).load_all()
        return sum(position.offset for position in positions.values())
    finally:
        client.close()
