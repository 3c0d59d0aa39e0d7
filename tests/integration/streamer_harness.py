"""What the streamer's flows share: a small plant, one member driven by hand, and what a namespace holds."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from streamer.app import have_topics, make_housekeeping
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
from streamer.dead_letters import DeadLetters
from streamer.http import Health
from streamer.kafka import GroupConsumer, Producer, TopicReader
from streamer.metrics import StreamerMetrics
from streamer.records import Partition, Record
from streamer.service import CHECK_INTERVAL_S, StreamerService
from streamer.store.casts import CastStore, decode_labels
from streamer.store.connection import Client, connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import check_server, claim_namespace, claim_spec
from streamer.store.positions import PositionStore
from streamer.store.reading import WindowReader
from streamer.store.stops import StopStore

# Enough for a loaded machine; a test that passes does not wait for it.
PATIENCE_S = 60.0
# The embedded broker lets a group form in half of it. Smaller: a loaded machine drops out of its group. Brokers of
# others take no less than 6 s.
SESSION_MS = 6_000 if os.environ.get("CASTING_TEST_KAFKA") else 3_000
T0 = 1_763_796_000  # first step of the plant, seconds
DATA = DataConfig(sensors=(SensorConfig(name="speed"), SensorConfig(name="level")), block_steps=16)
WINDOWS = WindowsConfig(size_steps=5, hop_steps=5)


def make_settings(kafka: KafkaConfig, redis: RedisConfig, unique: str, **consumer: Any) -> StreamerSettings:
    """Settings with topics and a group of their own; lateness 3 s, idle 60 s, two partitions."""
    return StreamerSettings(
        kafka=kafka,
        topics=TopicsConfig(
            readings=f"readings-{unique}",
            labels=f"labels-{unique}",
            dead_letters=f"dead-{unique}",
            num_partitions=2,
        ),
        redis=redis,
        data=DATA,
        event_time=EventTimeConfig(allowed_lateness_s=3, idle_timeout_s=60, max_future_s=10, max_past_s=3600),
        windows=WINDOWS,
        consumer=ConsumerConfig(
            group_id=consumer.pop("group_id", f"group-{unique}"),
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 6,
            poll_timeout_ms=50,
            **consumer,
        ),
        logging=LoggingConfig(level="info", format="json"),
    )


@dataclass(frozen=True)
class Sent:
    """A record on its way; `at` is its log time in seconds after T0, None for no header."""

    topic: str
    cast_id: str
    value: bytes
    at: float | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Plant:
    """Builds records for the topics of some settings. Steps and times are seconds after T0."""

    def __init__(self, settings: StreamerSettings) -> None:
        self.settings = settings

    def reading(self, cast_id: str, step: float, *, at: float | None = None, **fields: object) -> Sent:
        """A wide reading whose values tell where they belong: speed = step, level = -step."""
        body = {"cast_id": cast_id, "strand": 1, "ts": ms(step), "speed": step, "level": -step, **fields}
        return self._sent("readings", cast_id, body, step if at is None else at)

    def chunk(self, cast_id: str, first: int, num: int) -> Sent:
        """One record with `num` rows from step `first` on."""
        rows = [[step, -step] for step in range(first, first + num)]
        body = {"cast_id": cast_id, "strand": 2, "ts": ms(first), "period_ms": 1000, "values": rows}
        return self._sent("readings", cast_id, body, first + num - 1)

    def end(self, cast_id: str, step: int, **fields: object) -> Sent:
        """The end of a cast at its last step."""
        return self._sent(
            "readings", cast_id, {"cast_id": cast_id, "ts": ms(step), "event": "cast_end", **fields}, step
        )

    def label(self, cast_id: str, defect: bool | None, inspected_at: float, **fields: object) -> Sent:
        """A verdict."""
        body = {"cast_id": cast_id, "defect": defect, "inspected_at": ms(inspected_at), **fields}
        return self._sent("labels", cast_id, body, inspected_at)

    def raw(self, cast_id: str, value: bytes, at: float | None, *headers: tuple[str, bytes]) -> Sent:
        """Any bytes on the readings topic."""
        return Sent(self.settings.topics.readings, cast_id, value, at, headers)

    def time_passes(self, at: float) -> list[Sent]:
        """Two readings for each partition, of casts that are not looked at: log time goes on to `at`."""
        return [self.reading(f"clock-{k}", at, at=at) for k in range(8) for _ in range(2)]

    def _sent(self, topic: str, cast_id: str, body: dict[str, object], at: float) -> Sent:
        name = self.settings.topics.readings if topic == "readings" else self.settings.topics.labels
        return Sent(name, cast_id, json.dumps(body).encode(), at)

    def feed(self, records: Iterable[Sent]) -> None:
        """Sends records and waits until the broker has them."""
        with Producer(self.settings.kafka) as producer:
            for sent in records:
                headers = list(sent.headers)
                if sent.at is not None:
                    headers.append(("sent-at", str(ms(sent.at)).encode()))
                producer.send(sent.topic, sent.value, key=sent.cast_id.encode(), headers=headers)
            producer.flush()


def story(plant: Plant, num_casts: int = 6, num_steps: int = 23) -> list[Sent]:
    """Casts side by side: late, missing and repeated readings, poison, labels before, after and changed."""
    dice = random.Random(7)
    log: list[Sent] = []
    for k in range(num_casts):
        cast_id, begin = f"S{k}", 10 * k
        log.append(plant.label(cast_id, k % 2 == 0, begin + dice.randrange(-5, 40)))
        for step in range(begin, begin + num_steps):
            if dice.random() < 0.1:
                continue
            delay = dice.choice([0, 0, 0, 1, 2, 9])
            log.append(plant.reading(cast_id, step, at=step + delay))
            if dice.random() < 0.1:
                log.append(plant.reading(cast_id, step + 0.2, at=step + delay))
            if dice.random() < 0.03:
                log.append(plant.raw(cast_id, b"poison", step))
        log.append(plant.end(cast_id, begin + num_steps - 1))
        log.append(plant.label(cast_id, True, begin + 60, from_ts=ms(begin + 6), to_ts=ms(begin + 7)))
    log.sort(key=lambda sent: sent.at or 0)
    return [*log, *plant.time_passes(500)]


def ms(seconds: float) -> int:
    """Epoch ms of seconds after T0."""
    return round((T0 + seconds) * 1000)


class Member:
    """One member of the group, its loop turned by the test; `skew_s` moves its clock."""

    service_class: type[StreamerService] = StreamerService
    index_class: type[WindowIndex] = WindowIndex
    consumer_class: type[GroupConsumer] = GroupConsumer

    def __init__(
        self,
        settings: StreamerSettings,
        *,
        dead_letters: KafkaConfig | None = None,
        reset: bool = False,
    ) -> None:
        have_topics(settings)
        self.settings = settings
        self.client: Client = connect(settings.redis)  # of who looks on; the member has its own
        self.store: Client = connect(settings.redis)
        self.keys = Keys(settings.redis.namespace)
        check_server(self.store)
        claim_namespace(self.store, self.keys, settings.data)
        claim_spec(self.store, self.keys, settings.windows)
        self.positions = PositionStore(self.store, self.keys)
        self.producer = Producer(dead_letters or settings.kafka)
        self.metrics = StreamerMetrics.of(settings)
        self._counted_labels = counted_labels(self.metrics)
        self.health = Health(60)
        self.skew_s = 0.0
        topics = (settings.topics.readings, settings.topics.labels)
        self.consumer = self.consumer_class(settings.kafka, settings.consumer, topics, clock=self._now)
        self.service = self.service_class(
            settings,
            consumer=self.consumer,
            casts=CastStore(self.store, self.keys, settings.data),
            index=self.index_class(self.store, self.keys, settings.data, settings.windows),
            positions=self.positions,
            dead_letters=DeadLetters(self.producer, settings.topics.dead_letters, settings.redis.namespace),
            stops=StopStore(self.store, self.keys),
            metrics=self.metrics,
            health=self.health,
            housekeeping=make_housekeeping(settings, self.store, self.metrics, self._now),
            reset=reset,
            clock=self._now,
        )

    def _now(self) -> float:
        return time.monotonic() + self.skew_s

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Turns the loop as the service does, outages included, until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        self.service.run(lambda: condition() or time.monotonic() > deadline)
        assert condition(), "the member did not get there in time"

    def consume(self, num_records: int) -> None:
        """Turns the loop until so many records of both topics lie behind the positions."""
        self.run_until(lambda: self.num_consumed() >= num_records)
        assert self.num_consumed() == num_records

    def num_consumed(self) -> int:
        return sum(each.offset for each in PositionStore(self.client, self.keys).load_all().values())

    def assigned(self) -> bool:
        """Whether the group has given it partitions and it has loaded them."""
        return self.health.why_not_ready() is None and bool(self.consumer.assignment())

    def let_time_pass(self, seconds: float) -> None:
        """Moves the clock on while nothing arrives, and lets the loop see it."""
        self.skew_s += CHECK_INTERVAL_S  # a Redis that was restarted is noticed now, not in between
        self.turn(2)
        self.run_until(lambda: self.health.why_not_ready() is None and self._was_quiet_at(0))
        self.skew_s += seconds
        moved = self._now()
        self.run_until(lambda: self._was_quiet_at(moved))
        self.turn(1)

    def _was_quiet_at(self, moment: float) -> bool:
        """Whether the broker has said of all readings partitions that nothing lay there then."""
        readings = self.service._assignment.readings
        known = [self.consumer._quiet.get(each) for each in readings if self._is_quiet(each)]
        return 0 < len(readings) == sum(quiet is not None and quiet.until >= moment for quiet in known)

    def _is_quiet(self, source: Partition) -> bool:
        return self.consumer.quiet_s(source, self.service._assignment.readings[source].offset) is not None

    def turn(self, times: int) -> None:
        """Turns the loop so often, outages included."""
        turns = iter([False] * times + [True])
        self.service.run(lambda: next(turns))

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()
        self.client.close()
        self.store.close()
        assert counted_labels(self.metrics) == self._counted_labels, "a counter was born with its first count"


def counted_labels(metrics: StreamerMetrics) -> set[tuple[str, ...]]:
    """Names and labels of the counters that are shown."""
    return {
        (sample.name, *sample.labels.values())
        for family in metrics.registry.collect()
        if family.type == "counter"
        for sample in family.samples
    }


@contextmanager
def member(settings: StreamerSettings, **options: Any) -> Iterator[Member]:
    """A member that leaves the group at the end."""
    one = Member(settings, **options)
    try:
        yield one
    finally:
        one.close()


def reader(client: Client, settings: StreamerSettings) -> WindowReader:
    """The trainer's view of the namespace."""
    return WindowReader(client, Keys(settings.redis.namespace), settings.data, settings.windows)


_CAST_FIELDS = (
    *("strand", "group", "source", "first_step", "newest_ts", "sealed", "last_step", "ended", "seen_at"),
    *("end_seen_at", "open_steps", "open_jitter"),
    *(f"records:{kind}" for kind in ("applied", "duplicate", "late", "control")),
    *(f"steps:{outcome}" for outcome in ("carried", "placed", "duplicate", "superseded", "late", "gap")),
)


def contents(client: Client, settings: StreamerSettings) -> dict[str, Any]:
    """All that a namespace says of the log; equal for two runs over the same log."""
    keys, spec = Keys(settings.redis.namespace), settings.windows.name
    cast_keys = sorted(key for key in client.scan_iter(f"{keys.namespace}:cast:*", count=1000))
    casts: dict[str, Any] = {}
    for key in cast_keys:
        name = key.decode().removeprefix(f"{keys.namespace}:cast:")
        if ":rows:" in name:
            casts[name] = client.get(key)
        else:
            casts[name] = dict(zip(_CAST_FIELDS, client.hmget(key, _CAST_FIELDS), strict=True))
            casts[name]["labels"] = decode_labels("", client.hget(key, "labels"))
    return {
        "casts": casts,
        "listed": client.zrange(keys.casts, 0, -1, withscores=True),
        "windows": client.zrange(keys.windows(spec), 0, -1, withscores=True),
        "defective": sorted(client.zrange(keys.defective(spec), 0, -1)),
        "good": sorted(client.zrange(keys.good(spec), 0, -1)),
        "open": sorted(
            cast_id
            for key in client.scan_iter(f"{keys.namespace}:open:*")
            for cast_id in client.smembers(key)
        ),
    }


def dead_letters(settings: StreamerSettings, num: int) -> list[Record]:
    """Reads the dead-letter topic until it has given `num` records, and whatever more lies in it."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    with TopicReader(settings.kafka, settings.topics.dead_letters) as topic:
        while time.monotonic() < deadline:
            records += topic.poll(0.3)
            if len(records) >= num and topic.at_end():
                return records
    return records


def origins(records: Iterable[Record]) -> set[tuple[str, str, str]]:
    """(topic, partition, offset) that dead letters name, each once."""
    prefix = "__connect.errors."
    found = set()
    for record in records:
        headers = {name: (value or b"").decode() for name, value in record.headers}
        found.add((headers[prefix + "topic"], headers[prefix + "partition"], headers[prefix + "offset"]))
    return found
