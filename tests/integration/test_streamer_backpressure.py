"""Redis slow, full, or its answers lost: the stream pauses, the membership stays, nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from streamer_harness import Member, Plant, contents, make_settings, member, reader, story

from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.embedded import EmbeddedRedis
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def settings(kafka: KafkaConfig, server: EmbeddedRedis, unique: str) -> StreamerSettings:
    return make_settings(
        kafka, RedisConfig(url=server.url, namespace=unique, timeout_s=0.5), unique, max_poll_records=50
    )


@pytest.fixture
def one(settings: StreamerSettings) -> Iterator[Member]:
    with member(settings) as one:
        one.run_until(one.assigned)
        yield one
        one.client.config_set("maxmemory", 0)


def outages(one: Member) -> float | None:
    return one.metrics.registry.get_sample_value("casting_streamer_outages_total", {"server": "redis"})


def rebalances(one: Member) -> float | None:
    return one.metrics.registry.get_sample_value("casting_streamer_rebalances_total")


def expect_cast(one: Member, num_steps: int) -> None:
    held = contents(one.client, one.settings)
    assert held["casts"]["{A}"]["steps:placed"] == b"%d" % num_steps
    windows = reader(one.client, one.settings)
    assert len(windows.sealed()) == len(windows.labelled()) == num_steps // 5


def slow(one: Member, _: EmbeddedRedis) -> Callable[[], object]:
    one.client.client_pause(2_500)

    def wait() -> None:
        patient = connect(one.settings.redis.model_copy(update={"timeout_s": 30}))
        patient.ping()
        patient.close()

    return wait


def stuck(_: Member, server: EmbeddedRedis) -> Callable[[], object]:
    os.kill(server.pid, signal.SIGSTOP)
    return lambda: os.kill(server.pid, signal.SIGCONT)


def full(one: Member, _: EmbeddedRedis) -> Callable[[], object]:
    one.client.config_set("maxmemory", 1)
    return lambda: one.client.config_set("maxmemory", 0)


@pytest.mark.parametrize("trouble", [slow, stuck, full])
def test_a_redis_that_is_slow_stuck_or_full_pauses_the_stream_and_loses_nothing(
    one: Member, server: EmbeddedRedis, trouble: Callable[[Member, EmbeddedRedis], Callable[[], object]]
) -> None:
    plant = Plant(one.settings)
    plant.feed([*(plant.reading("A", step) for step in range(7)), plant.label("A", False, 5)])
    one.consume(8)
    before = rebalances(one)
    mend = trouble(one, server)
    plant.feed([*(plant.reading("A", step) for step in range(7, 15)), plant.end("A", 14)])
    one.run_until(lambda: one.health.why_not_ready() is not None)
    began = time.monotonic()
    one.run_until(lambda: time.monotonic() > began + 1)
    assert "Redis" in (one.health.why_not_ready() or "ready")
    assert one.health.why_not_live() is None
    assert outages(one) == 1
    mend()
    one.consume(17)
    one.let_time_pass(4)
    assert rebalances(one) == before
    assert one.health.why_not_ready() is None
    expect_cast(one, 15)


def test_a_redis_that_gets_full_in_mid_batch_has_whole_casts_or_none(one: Member) -> None:
    """Each script is refused before its first write, or goes through to its end."""
    settings, plant, num = one.settings, Plant(one.settings), 300
    one.client.config_set("maxmemory", int(one.client.info("memory")["used_memory"]) + 500_000)
    plant.feed(plant.chunk(f"A{k}", 0, 40) for k in range(num))
    one.run_until(lambda: one.health.why_not_ready() is not None)
    casts = contents(one.client, settings)["casts"]
    written = [fields for name, fields in casts.items() if ":rows:" not in name]
    blocks = [name for name in casts if ":rows:" in name]
    assert 0 < len(written) < num
    assert {fields["steps:placed"] for fields in written} == {b"40"}
    assert len(blocks) == 3 * len(written)
    one.client.config_set("maxmemory", 0)
    one.consume(num)
    casts = contents(one.client, settings)["casts"]
    assert [fields["steps:placed"] for name, fields in casts.items() if ":rows:" not in name] == [b"40"] * num


def test_memory_does_not_grow_with_what_waits_in_kafka(one: Member, server: EmbeddedRedis) -> None:
    plant = Plant(one.settings)
    plant.feed([plant.reading("A", 0)])
    one.consume(1)
    mend = stuck(one, server)
    plant.feed(plant.reading("A", step, note="x" * 900_000) for step in range(1, 51))  # 45 MB
    one.run_until(lambda: one.health.why_not_ready() is not None)
    before, began = resident_mb(), time.monotonic()
    one.run_until(lambda: time.monotonic() > began + 2)
    grown = resident_mb() - before
    mend()
    assert grown < 15
    one.consume(51)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Forgetful(redis_py.Connection):
    """A connection that breaks now and then after Redis has done what it was asked for, before we hear of it."""

    dice = random.Random(3)
    num_lost = 0

    def read_response(self, *args: Any, **options: Any) -> Any:
        answer = super().read_response(*args, **options)
        if self.dice.random() < 0.02:
            Forgetful.num_lost += 1
            self.disconnect()
            raise redis_py.ConnectionError("the answer got lost")
        return answer


def test_a_write_whose_answer_got_lost_is_not_done_twice(
    settings: StreamerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.assignment.MAX_BACKOFF_S", 0.2)  # so many faults in so few records
    log = story(Plant(settings))
    with member(settings) as calm:
        Plant(settings).feed(log)
        calm.consume(len(log))
        expected = contents(calm.client, settings)
    redis = settings.redis.model_copy(update={"namespace": settings.redis.namespace + "-again"})
    consumer = settings.consumer.model_copy(
        update={"group_id": settings.consumer.group_id + "-again", "max_poll_records": 10}
    )
    settings = settings.model_copy(update={"redis": redis, "consumer": consumer})
    with member(settings) as shaken:
        watching = connect(redis)  # over connections that do not break
        positions = PositionStore(watching, Keys(redis.namespace))
        shaken.store.connection_pool.connection_class = Forgetful
        shaken.store.connection_pool.reset()
        shaken.run_until(lambda: sum(each.offset for each in positions.load_all().values()) >= len(log))
        assert Forgetful.num_lost > 5
        assert contents(watching, settings) == expected
        watching.close()
