"""A partition whose records fail for the most part is stopped, and goes on when that is mended."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Run, as_json, runner
from streamer_harness import Member, Plant, Sent, dead_letters, make_settings, member, ms, origins

from streamer.config import BreakerConfig, EventTimeConfig, KafkaConfig, RedisConfig, StreamerSettings
from streamer.errors import CastingError, ConfigError
from streamer.ledger import read_ledger
from streamer.records import Partition
from streamer.stopping import config_digest
from streamer.store.connection import map_redis_errors
from streamer.store.keys import partition_of as named
from streamer.store.stops import StopStore

# Trips at the 11th bad record behind 20 good ones: then more than half of the last 20 failed.
BREAKER = BreakerConfig(share=0.5, min_records=10, window_records=20)


@pytest.fixture
def settings(kafka: KafkaConfig, redis: RedisConfig, unique: str) -> StreamerSettings:
    return make_settings(kafka, redis, unique).model_copy(update={"breaker": BREAKER})


@pytest.fixture
def plant(settings: StreamerSettings) -> Plant:
    return Plant(settings)


@pytest.fixture
def run(settings: StreamerSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(settings, tmp_path, capsys)


def too_early(plant: Plant, cast_id: str, steps: range) -> list[Sent]:
    """Readings of a gateway whose clock is 30 s ahead: future stamps, until `max_future_s` is mended."""
    return [plant.reading(cast_id, step, at=step - 30) for step in steps]


def patient(settings: StreamerSettings) -> StreamerSettings:
    """The configuration mended."""
    event_time = EventTimeConfig(allowed_lateness_s=60, idle_timeout_s=60, max_future_s=60, max_past_s=3600)
    return settings.model_copy(update={"event_time": event_time})


def partition_of(one: Member, cast_id: str) -> Partition:
    return named(one.client.hget(one.keys.cast(cast_id), "source").decode())


def other_cast(one: Member, plant: Plant) -> str:
    """A cast that lies on a partition which goes on, found by sending some."""
    names = [f"other-{k}" for k in range(16)]
    plant.feed([plant.reading(name, 0) for name in names])
    one.run_until(lambda: any(one.client.exists(one.keys.cast(name)) for name in names))
    return next(name for name in names if one.client.exists(one.keys.cast(name)))


@pytest.mark.parametrize("batch", [7, 5000])
def test_it_stops_behind_the_same_record_whatever_the_batches_are(
    settings: StreamerSettings, plant: Plant, batch: int
) -> None:
    settings = settings.model_copy(
        update={"consumer": settings.consumer.model_copy(update={"max_poll_records": batch})}
    )
    plant.feed([*(plant.reading("A", step) for step in range(20)), *too_early(plant, "A", range(20, 60))])
    with member(settings) as one:
        one.run_until(lambda: bool(StopStore(one.client, one.keys).load_all()))
        ((stopped, stop),) = StopStore(one.client, one.keys).load_all().items()
        assert stopped == partition_of(one, "A")
        assert (stop.offset, stop.num_records, stop.num_failures, stop.reasons) == (
            31,
            20,
            11,
            {"future_stamp": 11},
        )
        assert one.positions.load_all()[stopped].offset == 31
        assert {int(offset) for _, _, offset in origins(dead_letters(settings, 11))} == set(range(20, 31))
        one.turn(3)
        assert one.positions.load_all()[stopped].offset == 31


def test_the_others_go_on_and_everybody_can_see_it(
    settings: StreamerSettings, plant: Plant, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with member(settings) as one:
        plant.feed([*(plant.reading("A", step) for step in range(20)), *too_early(plant, "A", range(20, 60))])
        one.run_until(lambda: bool(StopStore(one.client, one.keys).load_all()))
        said = capsys.readouterr().out
        stopped = partition_of(one, "A")
        why = one.health.why_not_ready()
        assert why == f"{stopped} is stopped: 11 of its last 20 records failed (future_stamp 11)"
        assert "partition stopped" in said
        assert f"streamer breaker resume {stopped}" in said
        labels = {"topic": stopped.topic, "partition": str(stopped.partition)}
        assert one.metrics.registry.get_sample_value("casting_streamer_stopped", labels) == 1
        other = other_cast(one, plant)
        plant.feed([plant.reading(other, step) for step in range(1, 5)])
        one.run_until(lambda: one.client.hget(one.keys.cast(other), "records:applied") == b"5")
        assert one.metrics.registry.get_sample_value("casting_streamer_ready") == 0
        resume = f"streamer breaker resume {stopped}"
        assert as_json(run("status", "--json"))["stopped"] == {
            str(stopped): {
                "offset": 31,
                "why": "11 of its last 20 records failed (future_stamp 11)",
                "resume": resume,
            }
        }
        said = run("status")[1]
        assert f"{stopped} is stopped at offset 31: 11 of its last 20 records failed" in said
        assert resume in said
        code, out = run("breaker", "list")
        assert code == 1
        assert re.search(rf"{stopped} +20\d\d-.* 31 +11 of its last 20 records failed", out)
        ledger = read_ledger(settings)
        assert ledger.faults == ()
        assert next(each for each in ledger.partitions if each.partition == stopped).records.pending >= 29


def wait_until_stopped(one: Member, num: int = 1) -> None:
    one.run_until(lambda: len(StopStore(one.client, one.keys).load_all()) == num)


def test_a_restart_without_a_mend_stands_still_and_one_with_a_mend_goes_on(
    settings: StreamerSettings, plant: Plant, run: Run
) -> None:
    """With the dead letters sent again, every reading of the cast is there in the end."""
    plant.feed([*(plant.reading("A", step) for step in range(20)), *too_early(plant, "A", range(20, 60))])
    with member(settings) as one:
        wait_until_stopped(one)
        source = partition_of(one, "A")
    with member(settings) as one:
        one.run_until(lambda: one.health.why_not_ready() not in (None, "starting"))
        one.turn(5)
        assert one.positions.load_all()[source].offset == 31
        assert len(origins(dead_letters(settings, 11))) == 11
    with member(patient(settings)) as one:
        one.run_until(lambda: one.client.hget(one.keys.cast("A"), "records:applied") == b"49")
        assert one.health.why_not_ready() is None
        assert as_json(run("dead-letters", "replay", "--all", "--json"))["counts"] == {"sent": 11}
        one.run_until(lambda: one.client.hget(one.keys.cast("A"), "records:applied") == b"60")
        assert one.client.hget(one.keys.cast("A"), "steps:placed") == b"60"
    assert read_ledger(settings).faults == ()


def test_an_operator_lets_it_go_on_without_a_restart(
    settings: StreamerSettings, plant: Plant, run: Run
) -> None:
    with member(settings) as one:
        plant.feed([*(plant.reading("A", step) for step in range(20)), *too_early(plant, "A", range(20, 35))])
        wait_until_stopped(one)
        source = partition_of(one, "A")
        with pytest.raises(CastingError, match=f"not stopped: {source.topic}/99"):
            run("breaker", "resume", f"{source.topic}/99")
        for wrong in ((), ("--all", str(source)), ("nowhere",)):
            with pytest.raises(ConfigError):
                run("breaker", "resume", *wrong)
        assert run("breaker", "resume", str(source)) == (0, f"{source} goes on at offset 31\n")
        one.skew_s += 2
        one.run_until(lambda: one.positions.load_all()[source].offset == 35)  # 4 more fail: too few to stop
        assert one.health.why_not_ready() is None
        assert one.metrics.registry.get_sample_value("casting_streamer_ready") == 1
        assert run("breaker", "list") == (0, "no partition is stopped\n")
        assert as_json(run("status", "--json"))["stopped"] == {}
        assert len(origins(dead_letters(settings, 15))) == 15


def test_labels_are_watched_as_well(settings: StreamerSettings, plant: Plant) -> None:
    topic = settings.topics.labels
    plant.feed([Sent(topic, "A", b"{}", None) for _ in range(30)])
    with member(settings) as one:
        wait_until_stopped(one)
        ((stopped, stop),) = StopStore(one.client, one.keys).load_all().items()
        assert (stopped.topic, stop.offset) == (topic, 10)
        assert one.positions.load_all()[stopped].offset == 10
        assert len(origins(dead_letters(settings, 10))) == 10
    assert read_ledger(settings).faults == ()


def test_a_stop_outlives_a_crash_before_it_is_noted(settings: StreamerSettings, plant: Plant) -> None:
    """Redis does not take the note at first: the member stands still all the same, and notes it later."""
    plant.feed([Sent(settings.topics.readings, "A", b"{", ms(0) / 1000) for _ in range(30)])
    with member(settings) as one:
        failures = iter([True, True])
        save = StopStore.save

        def failing(store: StopStore, *arguments: object) -> None:
            if next(failures, False):
                store._client.execute_command("HGET", "no such form")
            save(store, *arguments)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StopStore, "save", mapped(failing))
            wait_until_stopped(one)
        (stopped,) = StopStore(one.client, one.keys).load_all()
        assert one.positions.load_all()[stopped].offset == 10
        assert len(origins(dead_letters(settings, 10))) == 10


def mapped(save: Callable[..., None]) -> Callable[..., None]:
    """Errors of redis as the store gives them."""

    def with_our_errors(*arguments: object) -> None:
        with map_redis_errors("stopping a partition"):
            save(*arguments)

    return with_our_errors


def test_only_what_decides_about_records_lets_it_go_on(settings: StreamerSettings) -> None:
    elsewhere = settings.model_copy(update={"http": settings.http.model_copy(update={"port": 1})})
    assert config_digest(elsewhere) == config_digest(settings)
    assert config_digest(patient(settings)) != config_digest(settings)
    lenient = settings.model_copy(update={"breaker": BreakerConfig(share=1)})
    assert config_digest(lenient) != config_digest(settings)
