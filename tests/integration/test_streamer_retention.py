"""Retention in a running member: limits, late records and labels of what is gone, ledgers, a Redis that is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import as_json, runner
from streamer_harness import Member, Plant, dead_letters, make_settings, member, ms, origins, reader

from streamer.config import KafkaConfig, RedisConfig, RetentionConfig, StreamerSettings
from streamer.embedded import EmbeddedRedis
from streamer.errors import ConfigError, StoreUnavailableError
from streamer.ledger import read_ledger
from streamer.records import Partition
from streamer.store.connection import connect
from streamer.store.counts import read_counts
from streamer.store.holds import CastHolds
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore
from streamer.store.summary import summarise

Limited = Callable[..., StreamerSettings]


@pytest.fixture
def limited(kafka: KafkaConfig, redis: RedisConfig, unique: str) -> Limited:
    """Settings with limits; a member looks at them at every turn."""

    def make(**limits: float) -> StreamerSettings:
        retention = RetentionConfig.model_validate({"interval_s": 0.001, **limits})
        return make_settings(kafka, redis, unique).model_copy(update={"retention": retention})

    return make


def cast(plant: Plant, number: int) -> list[object]:
    """Ten steps from 100 * number on, and their end."""
    name, begin = f"C{number}", 100 * number
    return [*(plant.reading(name, step) for step in range(begin, begin + 10)), plant.end(name, begin + 9)]


def season(plant: Plant, num_casts: int) -> list[object]:
    log = [record for number in range(num_casts) for record in cast(plant, number)]
    labels = [plant.label(f"C{number}", number % 2 == 0, 100 * number + 20) for number in range(num_casts)]
    return [*log, *labels, *plant.time_passes(100 * num_casts)]


def metric(one: Member, name: str) -> float | None:
    return one.metrics.registry.get_sample_value(f"casting_streamer_{name}")


def terms(one: Member) -> Counter[str]:
    """Terms of the ledger over all partitions."""
    found, _ = read_counts(one.client, one.keys, one.positions.load_all())
    return sum(found.values(), Counter())


def test_old_casts_go_and_their_late_records_and_labels_are_still_counted(limited: Limited) -> None:
    settings = limited(max_casts=12)  # with the eight casts that only move the clock
    plant = Plant(settings)
    log = season(plant, 10)
    plant.feed(log)  # type: ignore[arg-type]
    with member(settings) as one:
        one.consume(len(log))
        one.run_until(lambda: one.client.zcard(one.keys.stored) == 12)
        left = {address.cast_id for address in reader(one.client, settings).sealed()}
        assert left == {"C6", "C7", "C8", "C9"}
        assert metric(one, "casts_evicted_total") == metric(one, "stubs") == 6
        assert read_ledger(settings).faults == ()
        before = terms(one)
        plant.feed(
            [
                plant.reading("C0", 5, at=1_000, speed=99),
                plant.label("C0", True, 2_000),
                plant.end("C1", 200),
            ]
        )
        one.consume(len(log) + 3)
        assert one.client.hget(one.keys.cast("C0"), "records:late") == b"1"
        assert one.client.hget(one.keys.cast("C1"), "evicted") == b"1"
        assert one.client.zcard(one.keys.casts) == 18
        assert not one.client.keys(f"{one.keys.cast('C0')}:rows:*")
        assert {address.cast_id for address in reader(one.client, settings).sealed()} == left
        assert terms(one) - before == {
            "records:late": 1,
            "label": 1,
            "records:control": 1,
        }
        assert read_ledger(settings).faults == ()
    (letter,) = dead_letters(settings, 1)
    assert len(origins([letter])) == 1


def test_the_ledger_balances_when_stubs_are_gone_as_well(limited: Limited) -> None:
    settings = limited(max_casts=10, stubs_s=400)
    plant = Plant(settings)
    log = season(plant, 10)
    plant.feed(log)  # type: ignore[arg-type]
    with member(settings) as one:
        one.consume(len(log))
        one.run_until(lambda: metric(one, "stubs_dropped_total") == 6)
        assert metric(one, "stubs") == 2
        assert not one.client.exists(one.keys.cast("C0"))
        summary = summarise(one.client, one.keys, settings.windows.name)
        assert (summary.casts, summary.evicted_casts, summary.steps["placed"]) == (12, 2, 108)
        assert read_ledger(settings).faults == ()
    # Another member knows it all: nothing of it is in memory.
    plant.feed(cast(plant, 11))  # type: ignore[arg-type]
    with member(settings) as other:
        other.consume(len(log) + 11)
        assert read_ledger(settings).faults == ()


def test_a_late_record_that_is_read_again_finds_its_stub(limited: Limited) -> None:
    """An outage between its cast and its position, in which another member's clock makes the stub due."""
    settings = limited(max_casts=8, stubs_s=600)
    plant = Plant(settings)
    log = [*cast(plant, 1), *plant.time_passes(400)]
    plant.feed(log)  # type: ignore[arg-type]
    move, outages = PositionStore.move, []

    def failing(self: PositionStore, *arguments: Any) -> None:
        if not outages:
            outages.append(self)
            self._client.hset(self._keys.clock, "elsewhere/0", ms(701))
            raise StoreUnavailableError("gone")
        move(self, *arguments)

    with member(settings) as one:
        one.consume(len(log))
        one.run_until(lambda: metric(one, "stubs") == 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PositionStore, "move", failing)
            plant.feed([plant.reading("C1", 105, at=500)])
            one.consume(len(log) + 1)
        assert len(outages) == 1
        one.run_until(lambda: metric(one, "stubs_dropped_total") == 1)
        assert read_ledger(settings).faults == ()
        assert terms(one)["records:late"] == 1
        assert not one.client.exists(one.keys.cast("C1"))


def test_a_held_cast_outlives_every_limit(limited: Limited) -> None:
    settings = limited(max_age_s=100)
    plant = Plant(settings)
    log = season(plant, 6)
    with member(settings) as one:
        one.run_until(one.assigned)
        CastHolds(one.client, one.keys).hold("model/replay", ["C0", "C3"])
        plant.feed(log)  # type: ignore[arg-type]
        one.consume(len(log))
        one.run_until(lambda: one.client.zcard(one.keys.stubs) == 3)
        assert {address.cast_id for address, _ in reader(one.client, settings).labelled()} == {
            "C0",
            "C3",
            "C5",
        }


def test_labels_wait_for_readings_and_are_given_up_when_none_come(limited: Limited) -> None:
    settings = limited(pending_labels_s=300)
    plant = Plant(settings)
    with member(settings) as one:
        plant.feed([plant.label("C1", True, 50), plant.label("C2", True, 60), plant.label("C2", None, 70)])
        one.consume(3)
        assert one.client.zcard(one.keys.pending_labels) == 2
        plant.feed([*cast(plant, 1), *plant.time_passes(200)])  # type: ignore[list-item]
        one.consume(3 + 11 + 16)
        assert one.client.zrange(one.keys.pending_labels, 0, -1) == [b"C2"]
        assert {address.cast_id for address, _ in reader(one.client, settings).labelled()} == {"C1"}
        plant.feed(plant.time_passes(500))
        one.run_until(lambda: metric(one, "labels_expired_total") == 2)
        one.turn(2)
        assert metric(one, "pending_labels") == 0
        assert terms(one)["label"] == 3
        assert read_ledger(settings).faults == ()


def test_windows_that_no_label_decides_are_counted_until_one_does(limited: Limited) -> None:
    settings = limited()
    plant = Plant(settings)
    with member(settings) as one:

        def unlabelled() -> float | None:
            one.turn(2)
            shown = summarise(one.client, one.keys, settings.windows.name).unlabelled_windows
            spec = {"spec": settings.windows.name}
            assert one.metrics.registry.get_sample_value("casting_streamer_unlabelled_windows", spec) == shown
            return shown

        log = [record for number in range(3) for record in cast(plant, number)] + plant.time_passes(300)
        plant.feed(log)  # type: ignore[arg-type]
        one.consume(len(log))
        assert unlabelled() == 6
        plant.feed(
            [plant.label("C0", False, 300), plant.label("C1", True, 300, from_ts=ms(100), to_ts=ms(104))]
        )
        one.consume(len(log) + 2)
        assert unlabelled() == 3
        plant.feed([plant.label("C0", None, 310)])
        one.consume(len(log) + 3)
        assert unlabelled() == 5
        assert len(reader(one.client, settings).sealed()) == 6


@pytest.fixture
def small_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


def test_a_redis_that_is_full_is_emptied_and_the_stream_goes_on(
    kafka: KafkaConfig, small_redis: EmbeddedRedis, unique: str
) -> None:
    settings = make_settings(kafka, RedisConfig(url=small_redis.url), unique)
    plant = Plant(settings)
    log = [
        record
        for k in range(200)
        for record in (plant.chunk(f"C{k}", 200 * k, 150), plant.end(f"C{k}", 200 * k + 149))
    ]
    log += plant.time_passes(40_000)
    with member(settings) as hoarder:
        plant.feed(log)
        hoarder.consume(len(log))
        hoarder.let_time_pass(5)
        hoarder.client.config_set("maxmemory", 1)
        plant.feed(cast(plant, 500))  # type: ignore[arg-type]
        hoarder.run_until(lambda: hoarder.health.why_not_ready() is not None)
        used = int(hoarder.client.info("memory")["used_memory"])
        hoarder.client.config_set(
            "maxmemory", used - 200_000
        )  # there is room once half of the casts are gone
    retention = RetentionConfig(max_casts=100, interval_s=0.001)
    with member(settings.model_copy(update={"retention": retention})) as tidy:
        tidy.consume(len(log) + 11)
        assert tidy.health.why_not_ready() is None
        tidy.run_until(lambda: tidy.client.zcard(tidy.keys.stored) <= 101)
        assert int(tidy.client.info("memory")["used_memory"]) < used
        assert Partition(settings.topics.readings, 0) in tidy.positions.load_all()


def test_an_operator_sees_who_holds_casts_and_can_release_them(
    limited: Limited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = limited()
    client = connect(settings.redis)
    held = CastHolds(client, Keys(settings.redis.namespace))
    held.hold("steel/abc", ["A", "B"])
    held.hold("old-model/def", ["C"])
    run = runner(settings, tmp_path, capsys)
    assert as_json(run("holds", "--json")) == {"steel/abc": 2, "old-model/def": 1}
    assert "steel/abc" in run("holds", "--release", "old-model/def")[1]
    assert held.held() == {"A", "B"}
    with pytest.raises(ConfigError, match="nobody called typo holds casts; holders: steel/abc"):
        run("holds", "--release", "typo")
    client.close()
