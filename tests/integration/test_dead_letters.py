"""Dead letters listed, shown and sent again, on real servers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from command_line import Run, as_json, runner
from streamer_harness import Plant, dead_letters, make_settings, member, ms, reader

from streamer.app import have_topics
from streamer.config import EventTimeConfig, KafkaConfig, RedisConfig, StreamerSettings
from streamer.dead_letters import DeadLetter, DeadLetters, LetterReader, Origin, Outcome, Replayer
from streamer.errors import BrokerUnavailableError, CastingError, ConfigError, RecordError
from streamer.kafka import Producer, TopicReader
from streamer.records import Partition, Record
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.replays import ReplayStore
from streamer.windows import Address

EVIL = b'{"tag": "\x1b]0;owned\x07[red]"\n'


@pytest.fixture
def settings(kafka: KafkaConfig, redis: RedisConfig, unique: str) -> StreamerSettings:
    settings = make_settings(kafka, redis, unique)
    have_topics(settings)
    return settings


@pytest.fixture
def plant(settings: StreamerSettings) -> Plant:
    return Plant(settings)


@pytest.fixture
def run(settings: StreamerSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(settings, tmp_path, capsys)


def add_letters(settings: StreamerSettings, *letters: tuple[Record, RecordError]) -> None:
    """Puts dead letters into the topic as the streamer does."""
    with Producer(settings.kafka) as producer:
        out = DeadLetters(producer, settings.topics.dead_letters, settings.redis.namespace)
        for record, error in letters:
            out.add(record, error)
        out.flush()


def bad(
    settings: StreamerSettings, offset: int, value: bytes = b"{", reason: str = "bad_json"
) -> tuple[Record, RecordError]:
    """A record of the readings topic and what is wrong with it."""
    record = Record(
        settings.topics.readings, 1, offset, ms(offset), b"C%d" % offset, value, (("trace", b"t"),)
    )
    return record, RecordError(reason, "not JSON \x1b[2J", stage="decode")


def all_letters(settings: StreamerSettings) -> list[DeadLetter]:
    with LetterReader(settings.kafka, settings.topics.dead_letters) as letters:
        return list(letters.new())


def everything(settings: StreamerSettings, topic: str, num: int) -> list[Record]:
    """All records of a topic, once there are so many, or after a while."""
    records: list[Record] = []
    deadline = time.monotonic() + 20
    with TopicReader(settings.kafka, topic) as reader_:
        while time.monotonic() < deadline and not (len(records) >= num and reader_.at_end()):
            records += reader_.poll(0.2)
    return records


def test_a_window_is_complete_once_its_dead_letter_was_sent_again(
    settings: StreamerSettings, plant: Plant, run: Run
) -> None:
    """Step 3 has a stamp too far ahead of its log time for `max_future_s`, until that is mended."""
    steps = [plant.reading("A", step, at=-30 if step == 3 else 0) for step in range(5)]
    plant.feed(steps)
    origin = f"{settings.topics.readings}/0@0"
    with member(settings) as one:
        one.consume(5)
        (letter,) = all_letters(settings)
        assert (letter.reason, letter.num_attempts, letter.key) == ("future_stamp", 1, b"A")
        origin = str(letter.origin)

        assert as_json(run("dead-letters", "replay", origin, "--json"))["counts"] == {"sent": 1}
        one.consume(6)
        again = {each.num_attempts: each for each in all_letters(settings)}[2]
        assert again.first_origin == letter.origin
        assert again.origin != letter.origin
        assert dict(again.headers)["sent-at"] == str(ms(-30)).encode()

    mended = settings.model_copy(
        update={"event_time": EventTimeConfig(allowed_lateness_s=3, max_future_s=60)}
    )
    with member(mended) as one:
        assert as_json(run("dead-letters", "replay", "--all", "--json"))["counts"] == {
            "sent_before": 1,
            "sent": 1,
        }
        plant.feed([plant.end("A", 4), *plant.time_passes(300)])
        one.run_until(lambda: len(reader(one.client, mended).sealed()) == 1)
        (x_TF,) = reader(one.client, mended).rows([Address("A", ms(0) // 1000, 5)])
        assert x_TF[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert len(all_letters(settings)) == 2


def test_a_dead_letter_is_sent_once_however_often_it_is_asked_for(
    settings: StreamerSettings, run: Run
) -> None:
    add_letters(settings, *(bad(settings, offset) for offset in range(3)), bad(settings, 1))
    origin = f"{settings.topics.readings}/1@1"
    assert run("dead-letters", "replay", origin) == (0, "sent 1\n")
    code, out = run("dead-letters", "replay", origin)
    assert code == 0
    assert "sent again before, at 20" in out
    assert as_json(run("dead-letters", "replay", "--all", "--json"))["counts"] == {
        "sent": 2,
        "sent_before": 1,
    }
    assert as_json(run("dead-letters", "replay", "--all", "--json"))["counts"] == {"sent_before": 3}
    sent = everything(settings, settings.topics.readings, 3)
    assert sorted(record.key or b"" for record in sent) == [b"C0", b"C1", b"C2"]
    assert {record.partition for record in sent} == {1}
    assert {record.value for record in sent} == {b"{"}
    assert dict(sent[0].headers)["trace"] == b"t"


def test_a_dry_run_sends_nothing(settings: StreamerSettings, run: Run) -> None:
    add_letters(settings, bad(settings, 1), bad(settings, 2, reason="bad_time"))
    code, out = run("dead-letters", "replay", "--reason", "bad_time", "--dry-run")
    assert (code, out.splitlines()) == (0, [f"{settings.topics.readings}/1@2: would send", "would send 1"])
    assert as_json(run("dead-letters", "replay", "--all", "--json"))["counts"] == {"sent": 2}


def test_late_records_are_sent_again_only_by_name(settings: StreamerSettings, run: Run) -> None:
    add_letters(settings, bad(settings, 1, reason="late"), bad(settings, 2, reason="partly_late"))
    assert run("dead-letters", "replay", "--all") == (0, "nothing to send\n")
    assert as_json(run("dead-letters", "replay", "--reason", "late", "--json"))["counts"] == {"sent": 1}


def test_what_cannot_be_sent_again_says_why(settings: StreamerSettings, run: Run) -> None:
    foreign = Record("elsewhere", 0, 3, ms(0), b"A", b"{", ())
    error = RecordError("bad_json", "x")
    gone = Record(settings.topics.readings, 7, 3, ms(0), b"A", b"{", ())
    cut = bad(settings, 1, value=b"v" * 1_000_001)
    add_letters(settings, cut, (foreign, error), (gone, error), bad(settings, 2))
    code, out = run("dead-letters", "replay", "--all")
    assert code == 1
    assert f"{settings.topics.readings}/7@3: {settings.topics.readings} has no partition 7 any more" in out
    assert "sent 1" in out
    assert (
        f"{settings.topics.readings}/1@1: not whole, so it cannot be sent again: value.bytes 1000001" in out
    )
    assert "elsewhere/0@3: topics of this configuration are " in out
    code, out = run("dead-letters", "replay", f"{settings.topics.readings}/1@77")
    assert code == 1
    assert f"{settings.topics.dead_letters} holds no dead letter of it" in out


@pytest.mark.parametrize("arguments", [(), ("t/0@1", "--all"), ("--all", "--reason", "late"), ("t/0",)])
def test_a_choice_that_is_none_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        run("dead-letters", "replay", *arguments)


def test_the_list_counts_by_reason_and_shows_the_newest(settings: StreamerSettings, run: Run) -> None:
    letters = [bad(settings, offset, reason="bad_time" if offset < 2 else "bad_json") for offset in range(7)]
    add_letters(settings, *letters, bad(settings, 6))
    run("dead-letters", "replay", f"{settings.topics.readings}/1@6")
    report = as_json(run("dead-letters", "list", "--limit", "3", "--json"))
    assert report["total"] == 7
    assert report["by_reason"] == {"bad_json": 5, "bad_time": 2}
    assert [each["key"] for each in report["letters"]] == ["C4", "C5", "C6"]
    assert [bool(each["sent_again"]) for each in report["letters"]] == [False, False, True]
    assert as_json(run("dead-letters", "list", "--reason", "bad_time", "--json"))["total"] == 2
    assert as_json(run("dead-letters", "list", "--topic", "elsewhere", "--json"))["total"] == 0
    assert as_json(run("dead-letters", "list", "--since", "1h", "--json"))["total"] == 7
    assert as_json(run("dead-letters", "list", "--since", "2099-01-01T00:00:00Z", "--json"))["total"] == 0
    with pytest.raises(ConfigError, match="--since yesterday: expected"):
        run("dead-letters", "list", "--since", "yesterday")


def test_dead_letters_of_other_namespaces_are_left_alone(settings: StreamerSettings, run: Run) -> None:
    """Another configuration could not use these records; ours could, or says so itself."""
    elsewhere = settings.model_copy(
        update={"redis": settings.redis.model_copy(update={"namespace": "elsewhere"})}
    )
    add_letters(elsewhere, bad(settings, 1, reason="late"), bad(settings, 2))
    add_letters(settings, bad(settings, 1, reason="bad_time"))
    report = as_json(run("dead-letters", "list", "--json"))
    assert (report["by_reason"], report["elsewhere"]) == ({"bad_time": 1}, 2)
    assert "2 dead letters of other namespaces are left out" in run("dead-letters", "list")[1]
    assert as_json(run("dead-letters", "replay", "--all", "--json"))["counts"] == {"sent": 1}
    with pytest.raises(CastingError, match=f"@2 for namespace {settings.redis.namespace}"):
        run("dead-letters", "show", f"{settings.topics.readings}/1@2")


def test_no_control_character_reaches_the_terminal(settings: StreamerSettings, run: Run) -> None:
    record, error = bad(settings, 5, value=EVIL)
    evil = Record(record.topic, 1, 5, record.timestamp_ms, b"\x1b[31m[bold]", EVIL, (("\x07bell", b"\x9b"),))
    add_letters(settings, (evil, error))
    listed = run("dead-letters", "list")[1]
    showed = run("dead-letters", "show", f"{settings.topics.readings}/1@5")[1]
    for out in (listed, showed):
        assert out.replace("\n", "").isprintable()
        assert "\\x1b[31m[bold]" in out
    assert '{"tag": "\\x1b]0;owned\\x07[red]"\n' in showed
    assert "header \\x07bell: 0x9b" in showed
    facts = as_json(run("dead-letters", "show", f"{settings.topics.readings}/1@5", "--json"))
    assert facts["reason"] == "bad_json"
    with pytest.raises(CastingError, match="holds no dead letter of"):
        run("dead-letters", "show", f"{settings.topics.readings}/1@6")


class DyingProducer(Producer):
    """Loses its broker at the flush, after the records have arrived."""

    def flush(self) -> None:
        super().flush()
        raise BrokerUnavailableError("gone")


class KilledProducer(Producer):
    """Ends the process at the flush, after the records have arrived."""

    def flush(self) -> None:
        super().flush()
        raise KeyboardInterrupt


def test_a_run_that_died_after_sending_can_be_repeated(settings: StreamerSettings) -> None:
    """A claim of a run that said good-bye is free at once; that of a killed one when it has run out."""
    add_letters(settings, bad(settings, 1))
    client = connect(settings.redis)
    store = ReplayStore(client, Keys(settings.redis.namespace))
    now = time.time()

    def replay(kind: type[Producer], later_s: float = 0.0) -> list[Outcome]:
        with kind(settings.kafka) as producer:
            ours = [Partition(settings.topics.readings, 1)]
            replayer = Replayer(settings.kafka, producer, store, ours, clock=lambda: now + later_s)
            return list(replayer.replay(all_letters(settings)))

    with pytest.raises(BrokerUnavailableError):
        replay(DyingProducer)
    with pytest.raises(KeyboardInterrupt):
        replay(KilledProducer)
    (held,) = replay(Producer)
    assert held.word == "claimed"
    assert held.message.endswith("it runs out in 61 s")
    (sent,) = replay(Producer, later_s=61)
    assert sent == Outcome(Origin(settings.topics.readings, 1, 1), "sent")
    (before,) = replay(Producer, later_s=1000)
    assert before.word == "sent_before"
    # The two that died had sent it as well: the data set judges the others as duplicates.
    assert len(everything(settings, settings.topics.readings, 3)) == 3
    client.close()


def test_notes_are_kept_as_long_as_their_dead_letters(settings: StreamerSettings) -> None:
    client = connect(settings.redis)
    store = ReplayStore(client, Keys(settings.redis.namespace))
    origins = [Origin("t", 0, offset) for offset in range(3)]
    store.confirm(origins[:2], now_ms=1000)
    store.confirm(origins[2:], now_ms=5000)
    assert store.forget({Partition("t", 0): {0}}, before_ms=2000) == 1
    assert [claim is not None for claim in store.held(origins)] == [True, False, True]
    client.close()


def test_what_lies_in_the_topic_is_what_was_sent(settings: StreamerSettings, run: Run) -> None:
    """Null headers, a null key and a null value come back as they were, though the client can send none of them."""
    record = Record(
        settings.topics.labels, 0, 9, ms(1), None, None, (("a", None), ("b", b""), ("a", b"\x00"))
    )
    add_letters(settings, (record, RecordError("tombstone", "no value")))
    (raw,) = dead_letters(settings, 1)
    assert json.loads(dict(raw.headers)["__connect.errors.offset"] or b"") == 9
    (letter,) = all_letters(settings)
    assert (letter.key, letter.value, letter.headers) == (None, None, record.headers)
    assert letter.logged_ms == ms(1)
    assert run("dead-letters", "replay", "--all")[1].startswith(f"{letter.origin}: neither key nor value")
