"""Every record and every step is accounted for, and a figure that was tampered with is seen."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Run, as_json, runner
from streamer_harness import Plant, Sent, make_settings, member, ms, story

from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.dead_letters import DeadLetters, LetterReader
from streamer.errors import RecordError
from streamer.kafka import Producer
from streamer.ledger import Ledger, PartitionLedger, RecordLedger, StepLedger, read_ledger
from streamer.records import Partition, Record
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys, partition_of


@dataclass(frozen=True)
class Namespace:
    """One that a member has read `mixed` into, and has left."""

    settings: StreamerSettings
    client: Client
    keys: Keys
    readings: Partition
    labels_of_b: Partition

    @contextmanager
    def tampered(self, key: str, field: str, by: int) -> Iterator[None]:
        """A count that is moved, and moved back at the end."""
        self.client.hincrby(key, field, by)
        try:
            yield
        finally:
            self.client.hincrby(key, field, -by)


@pytest.fixture(scope="module")
def full(kafka: KafkaConfig, redis_url: str) -> Iterator[Namespace]:
    unique = uuid.uuid4().hex[:12]
    settings = make_settings(kafka, RedisConfig(url=redis_url, namespace=f"t{unique}"), unique)
    log = mixed(Plant(settings))
    Plant(settings).feed(log)
    with member(settings) as one:
        one.consume(len(log))
    client, keys = connect(settings.redis), Keys(settings.redis.namespace)
    (field,) = (name.decode() for name in client.hkeys(keys.cast("B")) if name.startswith(b"label:"))
    source = client.hget(keys.cast("A"), "source")
    assert isinstance(source, bytes)
    yield Namespace(
        settings, client, keys, partition_of(source.decode()), partition_of(field.removeprefix("label:"))
    )
    client.close()


@pytest.fixture
def run(full: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(full.settings, tmp_path, capsys)


def mixed(plant: Plant) -> list[Sent]:
    """One record of each kind, and one step of each outcome, all of one cast on one partition."""
    return [
        *(plant.reading("A", step) for step in range(4)),
        plant.reading("A", 1, at=3),  # duplicate
        plant.reading("A", 2, at=3, speed=9.0),  # superseded
        plant.chunk("A", 3, 3),  # one duplicate, two placed
        plant.reading("A", 6, speed=None, level=None),  # gap
        plant.raw("A", b"poison", 6),
        plant.reading("A", 40, at=6),  # future stamp
        *(plant.reading("A", step) for step in (12, 13)),
        plant.reading("A", 2, at=13),  # late
        plant.end("A", 13),
        plant.label("A", True, 14),
        plant.label("B", False, 14),  # of a cast that never comes
        plant.label("A", True, 14),
        Sent(plant.settings.topics.labels, "A", b"{}", None),
    ]


def together(ledger: Ledger) -> tuple[dict[str, int], dict[str, int]]:
    """Sums over all partitions, without zeros."""
    report = ledger.as_dict()["partitions"]
    sums = []
    for kind in ("records", "steps"):
        each = {name: sum(row[kind][name] for row in report) for name in report[0][kind]}
        sums.append({name: number for name, number in each.items() if number})
    return sums[0], sums[1]


RECORDS = {
    **{"consumed": 18, "applied": 9, "duplicate": 1, "late": 1, "dead_lettered": 3, "label": 3},
    "control": 1,
}
STEPS = {"carried": 11, "placed": 8, "duplicate": 1, "superseded": 1, "gap": 1}


def test_each_kind_and_each_outcome_is_counted(full: Namespace, run: Run) -> None:
    ledger = read_ledger(full.settings)
    assert (ledger.faults, ledger.is_calm, ledger.dead_letters_are_whole) == ((), True, True)
    assert together(ledger) == (RECORDS, STEPS)
    report = as_json(run("ledger", "--json"))
    assert report == ledger.as_dict()
    assert report["balanced"]
    code, out = run("ledger")
    assert code == 0
    assert "everything is accounted for" in out
    assert str(full.readings) in out


@pytest.mark.parametrize(
    ("field", "by", "said"),
    [
        ("records:applied", 1, "records differ by -1"),
        ("records:late", -1, "records differ by +1"),
        ("steps:placed", -1, "steps differ by +1"),
        ("steps:carried", 2, "steps differ by +2"),
    ],
)
def test_a_cast_that_was_tampered_with_is_seen(full: Namespace, field: str, by: int, said: str) -> None:
    with full.tampered(full.keys.cast("A"), field, by):
        (fault,) = read_ledger(full.settings).faults
    assert fault.startswith(f"{full.readings}: {said}: ")


def test_a_label_that_got_lost_is_seen(full: Namespace, run: Run) -> None:
    """Its cast has nothing else."""
    with full.tampered(full.keys.cast("B"), f"label:{full.labels_of_b}", -1):
        code, out = run("ledger")
    assert code == 1
    assert f"{full.labels_of_b}: records differ by +1: consumed " in out


def test_a_position_that_was_tampered_with_is_seen(full: Namespace) -> None:
    with full.tampered(full.keys.position(full.readings), "n:consumed", 5):
        (fault,) = read_ledger(full.settings).faults
    assert fault.startswith(f"{full.readings}: records differ by +5: consumed 19, but applied 9 + ")


@pytest.mark.parametrize(
    ("offset", "namespace"),
    [
        (999, None),  # a member died after its dead letters and before its position: it is read again
        (0, "elsewhere"),  # another configuration could not use it, ours could
    ],
)
def test_a_dead_letter_that_is_not_of_a_record_read_here_does_not_count(
    full: Namespace, offset: int, namespace: str | None
) -> None:
    with Producer(full.settings.kafka) as producer:
        letters = DeadLetters(producer, full.settings.topics.dead_letters, namespace)
        record = Record(*full.readings, offset, ms(0), b"A", b"{", ())
        letters.add(record, RecordError("bad_json", "not JSON"))
        letters.flush()
    assert read_ledger(full.settings).faults == ()


def test_counts_that_retention_has_folded_are_kept(full: Namespace) -> None:
    """Halfway, when the counts stand in the totals and the cast still stands, and when it is gone."""
    before = read_ledger(full.settings)
    dumps = {cast_id: full.client.dump(full.keys.cast(cast_id)) for cast_id in ("A", "B")}
    for cast_id in dumps:
        fold(full, cast_id)
        assert read_ledger(full.settings) == before
        full.client.delete(full.keys.cast(cast_id))
        assert read_ledger(full.settings) == before
    for key in full.client.scan_iter(f"{full.keys.totals_partitions}:*"):
        full.client.delete(key)
    assert len(read_ledger(full.settings).faults) > 0
    for cast_id, dump in dumps.items():
        full.client.restore(full.keys.cast(cast_id), 0, dump)


def fold(full: Namespace, cast_id: str) -> None:
    """What retention does before the cast goes: counts go to the totals of their partition, with a marker."""
    full.client.hset(full.keys.cast(cast_id), "going", "a token")
    fields = {name.decode(): value for name, value in full.client.hgetall(full.keys.cast(cast_id)).items()}
    added: dict[Partition, dict[str, int]] = {}
    for name, value in fields.items():
        kind, _, rest = name.partition(":")
        if kind in ("records", "steps", "label"):
            owner = partition_of(rest if kind == "label" else fields["source"].decode())
            added.setdefault(owner, {})["label" if kind == "label" else name] = int(value)
    for owner, terms in added.items():
        for term, number in terms.items():
            full.client.hincrby(full.keys.totals(owner), term, number)
        full.client.hset(full.keys.totals(owner), f"cast:{cast_id} {owner}", json.dumps(terms))


def test_where_retention_has_cut_the_dead_letters_the_position_counts(
    full: Namespace, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded broker cannot delete records, so the answer of one that did is put in its place."""
    monkeypatch.setattr(LetterReader, "has_lost_its_beginning", lambda _: True)
    ledger = read_ledger(full.settings)
    assert (ledger.faults, together(ledger), ledger.dead_letters_are_whole) == ((), (RECORDS, STEPS), False)
    assert "retention has cut the dead-letter topic" in run("ledger")[1]
    with full.tampered(full.keys.position(full.readings), "n:dead_lettered", -1):
        assert len(read_ledger(full.settings).faults) == 1


@contextmanager
def moving(full: Namespace) -> Iterator[None]:
    """A position that moves all the time, as under load."""
    stop = threading.Event()
    key = full.keys.position(full.readings)
    before = full.client.hget(key, "highest")

    def move() -> None:
        at = ms(0)
        while not stop.is_set():
            at += 1
            full.client.hset(key, "highest", str(at))

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        full.client.hset(key, "highest", before)


def test_while_positions_move_only_what_is_missing_for_certain_is_a_fault(full: Namespace, run: Run) -> None:
    cast = full.keys.cast("A")
    with moving(full):
        with full.tampered(cast, "records:applied", 1):  # as if a batch were in flight
            ledger = read_ledger(full.settings, patience_s=0.2)
            assert (ledger.is_calm, ledger.faults) == (False, ())
            assert "members were at work all the time" in run("ledger", "--patience", "0")[1]
        with full.tampered(cast, "records:applied", -2):
            (fault,) = read_ledger(full.settings, patience_s=0.2).faults
    assert fault == f"{full.readings}: 2 of 14 records are missing"


def test_a_difference_that_goes_away_is_none(full: Namespace) -> None:
    """A batch in flight: its casts are written, its position is not yet."""
    cast = full.keys.cast("A")
    full.client.hincrby(cast, "records:applied", 1)
    mend = threading.Timer(0.8, full.client.hincrby, (cast, "records:applied", -1))
    mend.start()
    assert read_ledger(full.settings).faults == ()
    mend.join()


def test_a_mixed_stream_balances_over_a_restart_and_for_another_group(
    kafka: KafkaConfig, redis: RedisConfig, unique: str
) -> None:
    """Dead letters of the other namespace lie in the same topic and are not ours."""
    settings = make_settings(kafka, redis, unique)
    plant = Plant(settings)
    log = [plant.raw("S0", b"poison", 0), *story(plant)]
    plant.feed(log[:60])
    with member(settings) as one:
        one.consume(60)
    plant.feed(log[60:])
    half = read_ledger(settings)
    assert half.faults == ()
    assert sum(each.records.pending for each in half.partitions) == len(log) - 60
    with member(settings) as one:
        one.consume(len(log))
    whole = read_ledger(settings)
    assert whole.faults == ()
    assert together(whole)[0]["consumed"] == len(log)
    assert together(whole)[0]["dead_lettered"] > 0
    other = settings.model_copy(
        update={
            "redis": redis.model_copy(update={"namespace": f"other{unique}"}),
            "consumer": settings.consumer.model_copy(update={"group_id": f"other-{unique}"}),
        }
    )
    nothing = read_ledger(other)
    assert nothing.faults == ()
    assert together(nothing)[0] == {"pending": len(log)}
    with member(other) as one:
        one.consume(len(log))
    assert read_ledger(other) == whole
    assert read_ledger(settings) == whole


def test_sums_are_shown_of_what_the_partitions_hold() -> None:
    records = RecordLedger(3, 1, 1, 0, 0, 0, 1, 0)
    steps = StepLedger(2, 1, 1, 0, 0, 0)
    assert (records.judged, steps.judged) == (3, 2)
    assert Ledger((PartitionLedger(Partition("t", 0), records, steps, ("a",)),), True, True).faults == ("a",)
