"""A stretch of the topics once more, into a namespace of its own; a window spec over what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from power_cuts import power_cut, sizes
from streamer_harness import Plant, Sent, contents, make_settings, member, ms, reader, story

from streamer.app import have_topics, run_streamer
from streamer.backfill import BackfillResult, run_backfill
from streamer.cli.backfilling import backfill as backfill_command
from streamer.cli.indexing import index
from streamer.cli.running import status
from streamer.config import KafkaConfig, RedisConfig, StreamerSettings, WindowsConfig
from streamer.embedded import EmbeddedRedis
from streamer.errors import BrokerUnavailableError, ConfigError, RefusedError
from streamer.kafka import end_offsets
from streamer.kafka.log_consumer import LogConsumer
from streamer.ledger import read_ledger
from streamer.process import StopRequest
from streamer.store.casts import CastStore
from streamer.store.connection import Client, connect
from streamer.store.content import content_hash
from streamer.store.keys import Keys
from streamer.store.namespace import claim_namespace, claim_spec
from streamer.store.positions import PositionStore
from streamer.store.reading import WindowReader
from streamer.stretch import FirstPass, Stretch

ROOT = Path(__file__).parents[2]
ALL = Stretch(0, 10**15)


@pytest.fixture
def settings(kafka: KafkaConfig, redis: RedisConfig, unique: str) -> StreamerSettings:
    return make_settings(kafka, redis, unique)


@pytest.fixture
def client(redis: RedisConfig) -> Iterator[Client]:
    client = connect(redis)
    yield client
    client.close()


@pytest.fixture
def live(settings: StreamerSettings) -> StreamerSettings:
    """A story that one member has read to its end."""
    plant = Plant(settings)
    log = [plant.raw("S1", b"poison", 12), *story(plant, num_casts=4)]
    have_topics(settings)
    plant.feed(log)
    with member(settings) as one:
        one.consume(len(log))
    return settings


def into(settings: StreamerSettings, suffix: str) -> StreamerSettings:
    namespace = f"{settings.redis.namespace}-{suffix}"
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"namespace": namespace})})


def digest(client: Client, settings: StreamerSettings) -> str:
    return content_hash(reader(client, settings))


def windows(client: Client, settings: StreamerSettings) -> dict[str, tuple[bytes, bool | None]]:
    """Rows and verdict by address."""
    view = reader(client, settings)
    verdicts, sealed = dict(view.labelled()), view.sealed()
    return {
        str(window): (x_TF.tobytes(), verdicts.get(window))
        for window, x_TF in zip(sealed, view.rows(sealed), strict=True)
    }


def in_small_polls(settings: StreamerSettings, num_records: int) -> StreamerSettings:
    consumer = settings.consumer.model_copy(update={"max_poll_records": num_records})
    return settings.model_copy(update={"consumer": consumer})


def backfill(settings: StreamerSettings, stretch: Stretch = ALL, **options: Any) -> BackfillResult:
    return run_backfill(settings, stretch, StopRequest(), **options)


def test_the_full_stretch_gives_what_the_live_stream_gave_and_touches_nothing_of_it(
    live: StreamerSettings, client: Client
) -> None:
    topics = (live.topics.readings, live.topics.labels, live.topics.dead_letters)
    before = (contents(client, live), end_offsets(live.kafka, topics))
    again = into(live, "again")
    result = backfill(again)
    assert result.is_complete
    assert (digest(client, again), windows(client, again)) == (digest(client, live), windows(client, live))
    assert len(windows(client, live)) == result.num_sealed_windows > 10
    assert (contents(client, live), end_offsets(live.kafka, topics)) == before
    # Poison and stragglers were kept when they came, and are counted now.
    assert {"bad_json", "late"} <= set(result.dead_letters)
    kept = sum(end for partition, end in before[1].items() if partition.topic == live.topics.dead_letters)
    assert sum(result.dead_letters.values()) == kept
    assert result.num_records == sum(before[1][p] for p in before[1] if p.topic != live.topics.dead_letters)


def test_a_stretch_has_the_casts_that_began_in_it_whole_and_no_others(
    live: StreamerSettings, client: Client
) -> None:
    # casts begin at  0    10    20    30
    # stretch              |-----------|
    part = into(live, "part")
    result = backfill(in_small_polls(part, 7), Stretch(ms(9), ms(29)))
    everything = windows(client, live)
    inside = {address: what for address, what in everything.items() if address.startswith(("S1/", "S2/"))}
    assert windows(client, part) == inside
    assert len(inside) >= 8
    assert any(verdict is not None for _, verdict in inside.values())
    assert (result.num_casts, result.num_open_casts) == (2, 0)
    assert sorted(client.zrange(Keys(part.redis.namespace).casts, 0, -1)) == [b"S1", b"S2"]
    held = {key.decode() for key in client.scan_iter(f"{part.redis.namespace}:cast:*", count=1000)}
    assert {key for key in held if ":rows:" not in key} == {
        Keys(part.redis.namespace).cast(cast_id) for cast_id in ("S1", "S2")
    }
    assert result.dead_letters["bad_json"] == 1
    # The other side of a border has the rest.
    left = backfill(into(live, "left"), Stretch(0, ms(9)))
    assert {each[:2] for each in windows(client, into(live, "left"))} == {"S0"}
    assert "bad_json" not in left.dead_letters


def test_a_backfill_broken_off_goes_on_and_ends_the_same(live: StreamerSettings, client: Client) -> None:
    again = into(live, "again")
    small = in_small_polls(again, 7)

    class After(StopRequest):
        def __init__(self, turns: int) -> None:
            super().__init__()
            self.turns = turns

        def __call__(self) -> bool:
            self.turns -= 1
            return self.turns < 0

    stops = 0
    for turns in range(5, 60, 9):
        stops += not run_backfill(small, ALL, After(turns)).is_complete
    assert stops >= 2
    assert run_backfill(small, ALL, StopRequest()).is_complete
    assert digest(client, again) == digest(client, live)


def test_an_outage_in_the_middle_changes_nothing(
    live: StreamerSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = into(live, "again")
    poll, failed = LogConsumer.poll, []

    def failing(self: LogConsumer) -> Any:
        """Fails once a topic, with the last records of it in hand."""
        batches = poll(self)
        if batches and self not in failed and self.at_end():
            failed.append(self)
            raise BrokerUnavailableError("gone")
        return batches

    small = in_small_polls(again, 40)
    monkeypatch.setattr(LogConsumer, "poll", failing)
    assert run_backfill(small, ALL, StopRequest()).num_casts == 12
    monkeypatch.undo()
    assert len(failed) == 3  # while it looked for the casts, in their readings, in the labels
    assert windows(client, again) == windows(client, live)


def test_a_redis_that_loses_readings_while_labels_are_read_ends_the_command(
    live: StreamerSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are read once more by themselves; what the pass over the readings wrote last is not."""
    move, add, kept = PositionStore.move, CastStore.add_labels, []

    def move_first(self: PositionStore, *arguments: Any) -> None:
        kept.append(sizes(server))
        move(self, *arguments)

    def lose_once(self: CastStore, *arguments: Any) -> Any:
        if kept:
            power_cut(server, kept[0])
            kept.clear()
        return add(self, *arguments)

    with EmbeddedRedis() as server:
        redis = live.redis.model_copy(update={"url": server.url, "namespace": "again"})
        again = live.model_copy(update={"redis": redis})
        fresh = connect(redis)
        fresh.config_set("appendfsync", "always")  # so that the size of its file says what it holds
        with monkeypatch.context() as patch:
            patch.setattr(PositionStore, "move", move_first)
            patch.setattr(CastStore, "add_labels", lose_once)
            with pytest.raises(RefusedError, match=r"Redis was restarted.*: run it again"):
                backfill(in_small_polls(again, 40))
        assert backfill(again).is_complete
        assert windows(fresh, again) == windows(client, live)
        fresh.close()


def test_casts_open_at_the_end_stay_open_unless_nothing_more_will_come(
    settings: StreamerSettings, client: Client
) -> None:
    plant = Plant(settings)
    have_topics(settings)
    log = [plant.reading("A", step, at=step) for step in range(12)] + [plant.label("A", False, 99)]
    plant.feed(log)
    with member(settings) as one:
        one.consume(len(log))
        open_still = digest(client, settings)
        one.let_time_pass(100)
        assert len(reader(client, settings).sealed()) == 2
    result = backfill(into(settings, "open"))
    assert (result.num_casts, result.num_open_casts) == (1, 1)
    assert digest(client, into(settings, "open")) == open_still
    assert backfill(into(settings, "closed"), close_open=True).num_open_casts == 0
    assert digest(client, into(settings, "closed")) == digest(client, settings) != open_still
    # The log goes on: the same backfill takes up where it was.
    plant.feed([plant.reading("A", step, at=step) for step in range(12, 20)])
    assert backfill(into(settings, "open")).num_open_casts == 1
    assert len(reader(client, into(settings, "open")).sealed()) == 3


def test_what_comes_while_a_backfill_runs_is_taken_by_the_next_run(
    settings: StreamerSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cast that begins behind the end of the first pass, with a label long before it."""
    plant = Plant(settings)
    have_topics(settings)
    log = [*(plant.reading("A", step) for step in range(12)), plant.label("B", True, 3)]
    later = [plant.reading("B", step) for step in range(20, 27)]
    plant.feed(log)
    again, look = into(settings, "again"), FirstPass.casts_of

    def while_more_comes(*arguments: Any) -> frozenset[str]:
        found = look(*arguments)
        plant.feed(later)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(FirstPass, "casts_of", while_more_comes)
        result = backfill(again, close_open=True)
    assert (result.num_casts, result.num_open_casts, result.num_records) == (1, 0, 13)
    rest = [
        *(plant.reading("B", step) for step in range(27, 30)),
        plant.end("B", 29),
        *plant.time_passes(100),
    ]
    plant.feed(rest)
    assert backfill(again, close_open=True).num_casts == 10
    with member(settings) as one:
        one.consume(len(log) + len(later) + len(rest))
        one.let_time_pass(100)
    expected = windows(client, settings)
    assert windows(client, again) == expected
    assert {verdict for address, (_, verdict) in expected.items() if address.startswith("B/")} == {True}


def test_records_that_cannot_be_used_count_where_they_lie(live: StreamerSettings) -> None:
    """By their log time; those that tell none by Kafka's time, which is today's."""
    labels, odd = live.topics.labels, ("sent-at", b"soon")
    plant = Plant(live)
    plant.feed([Sent(labels, "S1", b"{}", 15), Sent(labels, "S1", b"{}", 95)])
    plant.feed([Sent(labels, "S1", b"{", None, (odd,)), plant.raw("S1", b"{}", None, odd)])
    part = backfill(into(live, "part"), Stretch(ms(9), ms(29))).dead_letters
    assert {reason: n for reason, n in part.items() if reason != "late"} == {"bad_json": 1, "bad_label": 1}
    everything = backfill(into(live, "all")).dead_letters
    assert everything["bad_label"] == 2
    assert everything["bad_json"] + everything["bad_sent_at"] == 3


def test_nobody_reads_live_into_a_backfill_or_asks_for_its_ledger(live: StreamerSettings) -> None:
    again = into(live, "again")
    backfill(again)
    with pytest.raises(RefusedError, match=r"holds the backfill of 0\.\..*a redis.namespace of its own"):
        run_streamer(again, StopRequest())
    with pytest.raises(RefusedError, match=r"holds the backfill of 0\.\..*its records cannot balance"):
        read_ledger(again)


def test_a_namespace_that_holds_something_else_is_refused(live: StreamerSettings) -> None:
    with pytest.raises(RefusedError, match=r"holds what a streamer reads live.*namespace of its own"):
        backfill(live)
    again = into(live, "again")
    backfill(again, Stretch(0, ms(9)))
    with pytest.raises(RefusedError, match=r"holds the backfill of 0\.\."):
        backfill(again, Stretch(0, ms(10)))
    backfill(again, Stretch(0, ms(9)))


def test_the_log_is_read_without_a_group_and_nobody_waits_at_its_end(live: StreamerSettings) -> None:
    topic = live.topics.readings
    consumer = LogConsumer(live.kafka, live.consumer, (topic,))
    for partition in consumer.partitions:
        assert consumer.committed(partition) is None
        consumer.seek(partition, consumer.beginning_offset(partition))
        consumer.resume(partition)
    assert not consumer.at_end()
    while not consumer.at_end():
        consumer.poll()
    ends = end_offsets(live.kafka, (topic,))
    assert consumer.num_records == sum(ends.values())
    assert {consumer.quiet_s(*each) for each in ends.items()} == {None}
    consumer.waited_s = 5.0
    assert {consumer.quiet_s(*each) for each in ends.items()} == {5.0}
    consumer.seek(consumer.partitions[0], 0)
    assert consumer.quiet_s(consumer.partitions[0], 0) is None
    consumer.close()
    with pytest.raises(BrokerUnavailableError, match="Kafka has no topic nowhere"):
        LogConsumer(live.kafka, live.consumer, (topic, "nowhere"))


# Commands


@pytest.fixture
def config(settings: StreamerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "streamer.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    # Commands that run here leave the signals and the logs of the tests alone.
    monkeypatch.setattr(StopRequest, "install", lambda _: None)
    monkeypatch.setattr("streamer.cli.options.configure_logging", lambda _: None)
    return path


def command(*arguments: str) -> dict[str, Any]:
    """What a command prints, run as a process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CASTING_")}
    done = subprocess.run(
        [sys.executable, "-c", "from streamer.cli import main; main()", *arguments],
        cwd=ROOT, env=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a command printed last; the logs of the tests go the same way."""
    report: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return report


def again_config(config: Path, settings: StreamerSettings) -> Path:
    path = config.with_name("again.yaml")
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return path


def test_the_backfill_command_says_what_it_did(
    live: StreamerSettings,
    client: Client,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = into(live, "again")
    stretch = {"begin": "2025-11-22T07:00:00Z", "end": str(ms(1000))}
    report = command(
        *("backfill", "-c", str(config), "--from", stretch["begin"], "--to", stretch["end"]),
        *("--namespace", again.redis.namespace),
    )
    dead = report.pop("dead_letters")
    assert report.pop("records") > 100
    assert set(dead) == {"bad_json", "late"}
    assert report == {
        "namespace": again.redis.namespace,
        "complete": True,
        "casts": 12,
        "open_casts": 8,
        "sealed_windows": len(windows(client, live)),
    }
    status(again_config(config, again), as_json=True, with_hash=True)
    assert printed(capsys)["content_hash"] == digest(client, again)
    monkeypatch.setenv("COLUMNS", "60")  # narrower than a hash
    status(again_config(config, again), with_hash=True)
    assert f"content hash {digest(client, again)}\n" in capsys.readouterr().out
    other = again.model_copy(update={"data": again.data.model_copy(update={"period_ms": 500})})
    with pytest.raises(RefusedError, match="period_ms: it has 1000, the configuration says 500"):
        status(again_config(config, other), with_hash=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"begin": "yesterday"}, "--from yesterday: expected a time with its zone"),
        ({"end": "4"}, "--to 4: expected a time with its zone"),
        ({"begin": "2025-11-22T07:30:00Z"}, "does not lie before --to"),
        ({"namespace": "a b"}, "--namespace a b: String should match"),
    ],
)
def test_a_backfill_that_cannot_be_meant_is_refused(config: Path, options: dict[str, str], said: str) -> None:
    asked = {"begin": str(ms(1)), "end": str(ms(2)), "namespace": "x", **options}
    with pytest.raises(ConfigError, match=said):
        backfill_command(config=config, **asked)


def test_a_backfill_into_the_live_namespace_is_refused(settings: StreamerSettings, config: Path) -> None:
    with pytest.raises(ConfigError, match="is the one that is read live"):
        backfill_command(config=config, begin="0", end="9", namespace=settings.redis.namespace)


TIGHT = WindowsConfig(name="tight", size_steps=4, hop_steps=3)


def test_the_index_command_enters_a_spec_over_what_is_there(
    live: StreamerSettings, client: Client, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = config.parent / "spec.yaml"
    spec.write_text(yaml.safe_dump({"windows": TIGHT.model_dump(mode="json")}))
    report = command("index", "-c", str(config), "--spec", str(spec))
    view = WindowReader(client, Keys(live.redis.namespace), live.data, TIGHT)
    assert report == {
        "spec": "tight",
        "casts": 12,
        "evicted_casts": 0,
        "new_windows": len(view.sealed()),
        "sealed_windows": len(view.sealed()),
        "labelled_windows": len(view.labelled()),
    }
    assert 0 < len(view.labelled()) < len(view.sealed())
    # A namespace that knew the spec from the beginning has the same.
    early = into(live, "early").model_copy(update={"windows": TIGHT})
    backfill(early)
    assert content_hash(view) == digest(client, early)
    # Once more there is nothing to do; a cast without rows is passed over.
    client.hset(view_key(live, "S0"), mapping={"evicted": 1, "indexed:tight": ""})
    index(config=config, spec=spec)
    assert printed(capsys) == report | {"new_windows": 0, "evicted_casts": 1}
    index(config=config, drop="tight")
    assert printed(capsys) == {"spec": "tight", "dropped": True}


def view_key(settings: StreamerSettings, cast_id: str) -> str:
    return Keys(settings.redis.namespace).cast(cast_id)


def test_an_index_that_cannot_be_meant_is_refused(
    settings: StreamerSettings, client: Client, config: Path
) -> None:
    claim_namespace(client, Keys(settings.redis.namespace), settings.data)
    claim_spec(client, Keys(settings.redis.namespace), settings.windows)
    with pytest.raises(ConfigError, match="--spec FILE to add a window spec, or --drop NAME"):
        index(config=config)
    with pytest.raises(ConfigError, match="its members would keep it on"):
        index(config=config, drop=settings.windows.name)
    wrong = config.parent / "wrong.yaml"
    wrong.write_text("windows: {size_steps: 0}\n")
    with pytest.raises(ConfigError, match=r"wrong.yaml:1: windows.size_steps: expected 2 to"):
        index(config=config, spec=wrong)
    wrong.write_text("windows: {size_steps: 7}\n")
    with pytest.raises(RefusedError, match="give the new spec a name of its own"):
        index(config=config, spec=wrong)
    wrong.write_text("windows: {name: theirs}\n")
    client.set(Keys(settings.redis.namespace).windows("theirs"), "theirs")
    with pytest.raises(RefusedError, match="another program writes under our"):
        index(config=config, spec=wrong)
