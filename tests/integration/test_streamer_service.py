"""Kafka in, labelled windows in Redis out: one member, turned by hand, on real servers."""

from __future__ import annotations

import gc
import json
import random
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from streamer_harness import (
    T0,
    Member,
    Plant,
    Sent,
    contents,
    dead_letters,
    make_settings,
    member,
    ms,
    origins,
    reader,
    story,
)
from structlog.testing import capture_logs

from streamer.app import have_topics
from streamer.codec import checks
from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.embedded import EmbeddedBroker
from streamer.errors import (
    BrokerUnavailableError,
    FencedError,
    OffsetGoneError,
    RecordError,
    RefusedError,
)
from streamer.kafka import GroupConsumer, Producer, TopicSpec, ensure_topics
from streamer.kafka.connection import topic_partition
from streamer.records import Partition, Record, RecordBatch
from streamer.schema import Label
from streamer.service import Batches, BatchResult, StreamerService
from streamer.store.index import IndexResult, WindowIndex
from streamer.store.positions import PositionStore
from streamer.windows import Address


@pytest.fixture
def settings(kafka: KafkaConfig, redis: RedisConfig, unique: str) -> StreamerSettings:
    settings = make_settings(kafka, redis, unique)
    have_topics(settings)
    return settings


@pytest.fixture
def plant(settings: StreamerSettings) -> Plant:
    return Plant(settings)


def with_namespace(settings: StreamerSettings, name: str, **consumer: object) -> StreamerSettings:
    """Another group over the same topics, into a namespace of its own."""
    own = settings.consumer.model_copy(
        update={"group_id": f"{settings.consumer.group_id}-{name}", **consumer}
    )
    redis = settings.redis.model_copy(update={"namespace": f"{settings.redis.namespace}-{name}"})
    return settings.model_copy(update={"consumer": own, "redis": redis})


def test_readings_and_labels_end_as_labelled_windows(settings: StreamerSettings, plant: Plant) -> None:
    # A: wide readings 0..9, the one for 4 comes two seconds late; defective from 5 on, said before the cast
    # B: one chunk 0..6, good, said afterwards; a short tail is dropped
    # C: four readings, padded; no verdict
    early = [plant.label("A", False, -50), plant.label("A", True, -40, from_ts=ms(7), to_ts=ms(8))]
    wide = [plant.reading("A", step) for step in (0, 1, 2, 3, 5, 6)] + [plant.reading("A", 4, at=6)]
    wide += [plant.reading("A", step) for step in (7, 8, 9)] + [plant.end("A", 9, group="H1")]
    rest = [plant.chunk("B", 0, 7), plant.end("B", 6), plant.label("B", False, 100)]
    rest += [plant.reading("C", step) for step in range(4)] + [plant.end("C", 3)]
    log = [*early, *wide, *rest]
    plant.feed(log)
    with member(settings) as one:
        one.consume(len(log))
        one.let_time_pass(4)
        windows = reader(one.client, settings)
        assert sorted(windows.sealed()) == [
            Address("A", T0, 5),
            Address("A", T0 + 5, 5),
            Address("B", T0, 5),
            Address("C", T0, 4),
        ]
        assert windows.labelled() == [
            (Address("A", T0, 5), False),
            (Address("A", T0 + 5, 5), True),
            (Address("B", T0, 5), False),
        ]
        for address, x_TF in zip(windows.sealed(), windows.rows(windows.sealed()), strict=True):
            steps = np.arange(address.start - T0, address.end - T0, dtype=np.float32)
            np.testing.assert_array_equal(x_TF, np.stack([steps, -steps], axis=1))
        assert windows.casts(["A", "B"])["A"].group == "H1"
        assert windows.casts(["A", "B"])["B"].group == "B"
        assert one.service.run_once().records == {}
        assert contents(one.client, settings)["open"] == []


def test_a_record_that_cannot_be_used_goes_aside_and_the_good_ones_go_on(
    settings: StreamerSettings, plant: Plant
) -> None:
    good = [plant.reading("A", step) for step in range(12)]
    bad = {
        b"{not json": "bad_json",
        b"\x00\x00\x00\x00\x01x": "schema_registry",
        json.dumps({"cast_id": "A", "ts": ms(900), "speed": 1}).encode(): "future_stamp",
        json.dumps({"cast_id": "bad id", "ts": ms(4)}).encode(): "bad_cast_id",
        json.dumps({"cast_id": "A", "ts": ms(1), "speed": 99.0}).encode(): "late",
    }
    log: list[Sent] = [*good, *(plant.raw("A", value, 11, ("trace", b"t1")) for value in bad)]
    log += [plant.raw("A", b"{}", None, ("sent-at", b"now")), plant.label("A", None, 50, from_ts="later")]
    log.append(replace(plant.label("A", True, 50), at=None, headers=(("sent-at", b"now"),)))
    log += [plant.reading("A", 12), plant.end("A", 12)]
    plant.feed(log)
    with member(settings) as one:
        one.consume(len(log))
        one.let_time_pass(4)
        cast = contents(one.client, settings)["casts"]["{A}"]
        assert (cast["steps:placed"], cast["labels"]) == (b"13", [])
        rows = reader(one.client, settings).rows([Address("A", T0, 5)])[0]
        assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]  # the late 99.0 changed nothing
    letters = dead_letters(settings, 8)
    assert len(letters) == len(origins(letters)) == 8
    for letter in letters:
        headers = dict(letter.headers)
        reason = (headers["__connect.errors.exception.message"] or b"").decode().split(":")[0]
        has_bad_header = letter.headers[0] == ("sent-at", b"now")
        assert reason == bad.get(letter.value or b"", "bad_sent_at" if has_bad_header else "bad_time")
        assert letter.key == b"A"
        assert headers["__connect.errors.exception.class.name"] == b"RecordError"
        assert headers["__connect.errors.stage"] in {b"decode", b"validate", b"place"}
        if letter.value in bad:
            assert headers["trace"] == b"t1"


def test_a_fault_of_ours_costs_its_records_and_is_logged_once_for_each_place(
    settings: StreamerSettings, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(name: str, value: object) -> str | None:
        if value == "H1":
            raise ZeroDivisionError(f"{name} is {value}")
        return None

    monkeypatch.setattr(checks, "text", text)
    bad = [plant.end("A", 3, group="H1")] * 3 + [plant.label("A", True, 3, group="H1")]
    log = [plant.reading("A", 0), *bad, plant.reading("A", 1), plant.label("A", False, 4)]
    plant.feed(log)
    with member(settings) as one, capture_logs() as logged:
        one.consume(len(log))
        cast = contents(one.client, settings)["casts"]["{A}"]
        assert (cast["steps:placed"], [label.defect for label in cast["labels"]]) == (b"2", [False])
    letters = dead_letters(settings, 4)
    reasons = {dict(letter.headers)["casting.errors.reason"] for letter in letters}
    assert (len(letters), reasons) == (4, {b"undecodable"})
    (told,) = [entry for entry in logged if entry["event"] == "unforeseen"]
    assert isinstance(told["exc_info"], ZeroDivisionError)


class Stumbling(StreamerService):
    """Falls over before a step of its batch, again and again: everything in memory is forgotten."""

    def _write_readings(self, result: BatchResult) -> None:
        busy = any(partition.touched for partition in self._assignment.readings.values())
        stumble("dead letters are safe", busy)
        super()._write_readings(result)
        stumble("rows are written", busy)

    def _write_labels(
        self, batches: Batches, labels: Sequence[tuple[Partition, int, Label]], result: BatchResult
    ) -> None:
        super()._write_labels(batches, labels, result)
        stumble("labels are written", bool(labels))

    def _commit(self, batches: Batches) -> None:
        stumble("positions have moved", bool(batches))
        super()._commit(batches)


class StumblingIndex(WindowIndex):
    """Falls over when rows are written and windows are not."""

    def update(self, cast_ids: Collection[str]) -> IndexResult:
        stumble("rows are not indexed", bool(cast_ids))
        return super().update(cast_ids)


class StumblingMember(Member):
    service_class = Stumbling
    index_class = StumblingIndex


VISITS: Counter[str] = Counter()


def stumble(where: str, busy: bool) -> None:
    VISITS[where] += busy
    if busy and VISITS[where] % 7 == 1:
        raise FencedError(where)


def test_a_value_as_large_as_brokers_take_is_cut_to_leave_room_for_the_reason(
    settings: StreamerSettings,
) -> None:
    value = random.Random(1).randbytes(1_048_000)
    record = Record(settings.topics.readings, 1, 9, 0, b"A", value, (("trace", b"t1"), ("empty", None)))
    with Producer(settings.kafka) as producer:
        letters = DeadLetters(producer, settings.topics.dead_letters)
        letters.add(record, RecordError("bad_json", "x" * 5_000, stage="decode"))
        letters.flush()
    letter = dead_letters(settings, 1)[0]
    headers = dict(letter.headers)
    assert 990_000 < len(letter.value or b"") < 1_000_000
    assert value.startswith(letter.value or b"")
    assert headers["casting.errors.value.bytes"] == b"1048000"
    assert headers["__connect.errors.offset"] == b"9"


def test_falling_over_between_any_two_steps_changes_nothing(settings: StreamerSettings, plant: Plant) -> None:
    log = story(plant)
    plant.feed(log)
    with member(with_namespace(settings, "calm")) as calm:
        calm.consume(len(log))
        expected = contents(calm.client, calm.settings)
    letters = dead_letters(settings, 1)
    restless = StumblingMember(with_namespace(settings, "restless", max_poll_records=25))
    try:
        restless.consume(len(log))
        assert contents(restless.client, restless.settings) == expected
    finally:
        restless.close()
    assert len(VISITS) == 5
    assert expected["defective"]
    assert expected["good"]
    late = sum(
        int(cast.get("records:late") or 0) for cast in expected["casts"].values() if isinstance(cast, dict)
    )
    assert late > 0
    # No origin is missing, and none is new.
    assert origins(dead_letters(settings, 2 * len(letters))) == origins(letters)


class DyingIndex(WindowIndex):
    """Dies once, when told to, after rows are written and before their windows are."""

    dies = False

    def update(self, cast_ids: Collection[str]) -> IndexResult:
        if self.dies and cast_ids:
            self.dies = False
            raise FencedError("died")
        return super().update(cast_ids)


class DyingMember(Member):
    index_class = DyingIndex


def test_a_cast_that_ended_just_before_a_crash_is_indexed_at_the_next_assignment(
    settings: StreamerSettings, plant: Plant
) -> None:
    log = [plant.label("A", True, 0), *(plant.reading("A", step) for step in range(10)), plant.end("A", 9)]
    plant.feed(log)
    one = DyingMember(settings)
    try:
        one.consume(len(log))
        before = len(reader(one.client, settings).sealed())
        index = one.service._index
        assert isinstance(index, DyingIndex)
        index.dies = True
        plant.feed(plant.time_passes(20))
        one.consume(len(log) + 16)
        assert index.dies is False
        windows = reader(one.client, settings)
        assert before < 2
        assert windows.labelled() == [(Address("A", T0, 5), True), (Address("A", T0 + 5, 5), True)]
        assert b"A" not in contents(one.client, settings)["open"]
    finally:
        one.close()


def test_a_cast_with_a_late_record_just_before_a_crash_may_go_all_the_same(
    settings: StreamerSettings, plant: Plant
) -> None:
    """Retention takes a cast once its indexes show it as it is; this one was over, and is looked at once more."""
    log = [*(plant.reading("A", step) for step in range(10)), plant.end("A", 9), *plant.time_passes(20)]
    plant.feed(log)
    one = DyingMember(settings)
    try:
        one.consume(len(log))
        index = one.service._index
        assert isinstance(index, DyingIndex)
        index.dies = True
        plant.feed([plant.reading("A", 3, at=20)])
        one.consume(len(log) + 1)
        assert index.dies is False
        names = ["records:late", "revision", f"indexed:{settings.windows.name}"]
        late, revision, shown = one.client.hmget(one.keys.cast("A"), names)
        assert late == b"1"
        assert shown.split()[0] == revision
        assert b"A" not in contents(one.client, settings)["open"]
    finally:
        one.close()


@contextmanager
def running(one: Member) -> Iterator[None]:
    """Its loop turns in a thread of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=one.service.run, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_two_members_share_the_partitions_and_hand_them_over(
    settings: StreamerSettings, plant: Plant
) -> None:
    log = story(plant)
    half = len(log) // 2
    shared = with_namespace(settings, "shared")
    plant.feed(log[:half])
    with member(shared) as first:
        first.consume(half)
        with member(shared) as second, running(second):
            # Until the group has settled: each of them holds something.
            first.run_until(lambda: second.assigned() and 0 < len(first.consumer.assignment()) < 4)
            plant.feed(log[half:])
            first.consume(len(log))
        result = contents(first.client, shared)
    with member(with_namespace(settings, "alone")) as alone:
        alone.consume(len(log))
        assert contents(alone.client, alone.settings) == result


def test_records_of_a_partition_that_came_back_behind_their_poll_are_read_again(
    settings: StreamerSettings, plant: Plant
) -> None:
    """The group took all partitions back, and gave them out once more, before they were taken in."""
    with member(settings) as one:
        plant.feed(plant.reading("A", step) for step in range(4))
        one.consume(4)
        poll = one.consumer.poll

        def poll_then_rebalance() -> list[RecordBatch]:
            batches = poll()
            if batches:
                one.consumer.poll = poll  # type: ignore[method-assign]  # once
                held = one.consumer.assignment()
                one.consumer._notes.on_partitions_revoked(held)
                one.consumer._notes.on_partitions_assigned([topic_partition(each) for each in held])
            return batches

        one.consumer.poll = poll_then_rebalance  # type: ignore[method-assign]  # the moment that the test is about
        plant.feed(plant.reading("A", step) for step in range(4, 8))
        one.consume(8)
        assert one.client.hget(one.keys.cast("A"), "steps:placed") == b"8"


def test_an_emptied_namespace_is_refused_until_told_to_reset(
    settings: StreamerSettings, plant: Plant
) -> None:
    log = [*(plant.reading("A", step) for step in range(10)), plant.end("A", 9)]
    plant.feed(log)
    with member(settings) as one:
        one.consume(len(log))
        before = contents(one.client, settings)
        for key in one.client.scan_iter(f"{settings.redis.namespace}:*"):
            one.client.delete(key)
        # A member at work notices with the next record, and does not go on in an empty namespace.
        plant.feed([plant.reading("A", 10)])
        with pytest.raises(RefusedError, match=r"knows nothing of it.*--reset"):
            one.run_until(lambda: False)
    with member(settings, reset=True) as again:
        again.consume(len(log) + 1)
        after = contents(again.client, settings)
        assert after["casts"]["{A}"] | {"records:late": b"1"} == after["casts"]["{A}"]
        assert after["windows"] == before["windows"]
        # Told once, it reads the topics once: after a hiccup it goes on from where it was.
        redelivered = {"kind": "redelivered"}
        again.service._assignment.suspend(FencedError("hiccup"))
        again.run_until(lambda: again.service._assignment._num_failures == 0)
        again.service.run_once()
        assert again.metrics.registry.get_sample_value("casting_streamer_records_total", redelivered) == 0


@pytest.fixture
def other_broker(settings: StreamerSettings) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def collect_sockets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The client leaves sockets of refused connections to the collector, and its logs hold on to them."""
    yield
    caplog.get_records("call").clear()
    gc.collect()


@pytest.mark.usefixtures("collect_sockets")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_no_offset_is_committed_before_the_dead_letters_are_safe(
    settings: StreamerSettings, plant: Plant, other_broker: EmbeddedBroker
) -> None:
    elsewhere = KafkaConfig(bootstrap_servers=other_broker.bootstrap_servers, request_timeout_ms=1000)
    topic = {settings.topics.dead_letters: TopicSpec(1)}
    ensure_topics(elsewhere, topic)
    log = [plant.reading("A", 0), plant.raw("A", b"poison", 1), plant.reading("A", 1)]
    with member(settings, dead_letters=elsewhere) as one:
        one.run_until(one.assigned)
        one.producer.send(settings.topics.dead_letters, b"the client knows the broker")
        one.producer.flush()
        other_broker.kill()
        plant.feed(log)
        one.run_until(lambda: one.health.why_not_ready() is not None)
        assert one.num_consumed() == 0
        assert contents(one.client, settings)["casts"] == {}
        assert all(one.consumer.committed(source) is None for source in one.consumer.assignment())
        other_broker.start()
        ensure_topics(elsewhere, topic)
        one.consume(len(log))
        assert one.health.why_not_ready() is None
        assert contents(one.client, settings)["casts"]["{A}"]["steps:placed"] == b"2"
    moved = settings.model_copy(update={"kafka": elsewhere})
    assert {record.value for record in dead_letters(moved, 1)} == {b"poison"}


def test_topics_that_are_not_there_are_named_where_none_may_be_created(
    kafka: KafkaConfig, redis: RedisConfig, unique: str
) -> None:
    settings = make_settings(kafka, redis, unique)
    topics = settings.topics.model_copy(update={"create": False})
    waits = settings.model_copy(update={"topics": topics})
    ensure_topics(kafka, {topics.labels: TopicSpec(1)})
    with pytest.raises(BrokerUnavailableError) as caught:
        have_topics(waits)
    assert f"has no topic {topics.dead_letters}, {topics.readings}; create it" in str(caught.value)
    have_topics(settings)
    have_topics(waits)


class ShorteningConsumer(GroupConsumer):
    """Says what Apache Kafka says of an offset outside of a log; the embedded broker says nothing, and keeps all."""

    gone: dict[tuple[str, int], int] | None = None
    beginnings: Mapping[Partition, int] = {}
    num_failures = 0
    commits: Mapping[Partition, int] = {}

    def poll(self) -> list[RecordBatch]:
        if self.gone:
            gone, self.gone = self.gone, None  # from now on it is paused
            raise OffsetGoneError("Kafka: an offset is out of range", gone)
        return super().poll()

    def beginning_offset(self, partition: Partition) -> int:
        return self.beginnings.get(partition, super().beginning_offset(partition))

    def committed(self, partition: Partition) -> int | None:
        return self.commits.get(partition, super().committed(partition))

    def seek(self, partition: Partition, offset: int) -> None:
        if self.num_failures and partition in self.beginnings:
            self.num_failures -= 1
            raise BrokerUnavailableError("Kafka: gone for a moment")
        super().seek(partition, offset)


class ShortenedMember(Member):
    consumer_class = ShorteningConsumer


@dataclass
class Shortened:
    one: Member
    consumer: ShorteningConsumer
    partition: Partition


@pytest.fixture
def shortened(settings: StreamerSettings, plant: Plant) -> Iterator[Shortened]:
    """A member that has read three records, all of one partition."""
    plant.feed([plant.reading("A", step) for step in range(3)])
    one = ShortenedMember(settings)
    one.consume(3)
    assert isinstance(one.consumer, ShorteningConsumer)
    topic, _, number = one.client.hget(one.keys.cast("A"), "source").decode().rpartition("/")
    yield Shortened(one, one.consumer, Partition(topic, int(number)))
    one.close()


def test_a_topic_made_anew_is_refused(shortened: Shortened) -> None:
    shortened.consumer.gone = {shortened.partition: 3}
    with pytest.raises(RefusedError, match=r"out of range.*made anew"):
        shortened.one.run_until(lambda: False)


def test_a_record_that_is_gone_and_was_only_to_be_known_again_is_no_loss(
    shortened: Shortened, plant: Plant
) -> None:
    """Retention passed the record before the position, between the look at the log's start and the fetch."""
    one = shortened.one
    shortened.consumer.gone, shortened.consumer.beginnings = (
        {shortened.partition: 2},
        {shortened.partition: 3},
    )
    one.turn(1)
    plant.feed([plant.reading("A", 3)])
    one.run_until(lambda: one.client.hget(one.keys.cast("A"), "records:applied") == b"4")
    topic = {"topic": shortened.partition.topic}
    assert one.metrics.registry.get_sample_value("casting_streamer_log_gaps_total", topic) == 0


@pytest.mark.parametrize(("num_failures", "committed"), [(0, 3), (2, 3), (0, 1)])
def test_what_retention_took_unread_is_counted_once_and_reading_goes_on_behind_it(
    shortened: Shortened, plant: Plant, num_failures: int, committed: int
) -> None:
    """It is what lies behind the position: that Redis has the records before it is so without a commit, too."""
    one, partition = shortened.one, shortened.partition
    plant.feed([plant.reading("A", step) for step in range(3, 7)])
    shortened.consumer.gone, shortened.consumer.beginnings = {partition: 3}, {partition: 5}
    shortened.consumer.num_failures, shortened.consumer.commits = num_failures, {partition: committed}
    with capture_logs() as logs:
        one.consume(7)
    told = [each for each in logs if each["event"] == "retention passed us"]
    assert [(each["partition"], each["records_lost"], each["go_on_from"]) for each in told] == [
        (str(partition), 2, 5)
    ]
    topic = {"topic": partition.topic}
    assert one.metrics.registry.get_sample_value("casting_streamer_log_gaps_total", topic) == 2
    assert one.client.hget(one.keys.cast("A"), "steps:placed") == b"5"
    assert one.health.why_not_ready() is None


def test_an_offset_that_is_gone_is_forgotten_with_its_partition(shortened: Shortened, plant: Plant) -> None:
    one, partition = shortened.one, shortened.partition
    one.service._assignment.suspend(OffsetGoneError("Kafka: an offset is out of range", {partition: 3}))
    one.consumer._notes.on_partitions_revoked([topic_partition(partition)])
    one.run_until(lambda: len(one.service._assignment.next_offsets()) == 3)
    one.consumer._notes.on_partitions_assigned([topic_partition(partition)])
    plant.feed([plant.reading("A", 3)])
    one.consume(4)


@pytest.mark.usefixtures("collect_sockets")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    ("num_records", "words"),
    [(3, r"ends at offset 3, but was read up to 6"), (9, r"at offset 5 is not the one that was read")],
    ids=["shorter", "outgrown"],
)
def test_a_topic_that_another_broker_made_anew_is_refused(
    settings: StreamerSettings, other_broker: EmbeddedBroker, num_records: int, words: str
) -> None:
    kafka = KafkaConfig(bootstrap_servers=other_broker.bootstrap_servers)
    topics = settings.topics.model_copy(update={"num_partitions": 1})
    settings = settings.model_copy(update={"kafka": kafka, "topics": topics})
    plant = Plant(settings)
    have_topics(settings)
    plant.feed([plant.reading("A", step) for step in range(5)])
    with member(settings) as one:
        one.consume(5)
    with member(settings) as again:  # the record before the position is known again, and not counted twice
        again.run_until(again.assigned)
        plant.feed([plant.reading("A", 5)])
        again.consume(6)
        assert contents(again.client, settings)["casts"]["{A}"]["steps:placed"] == b"6"
        assert PositionStore(again.client, again.keys).load_all()[
            Partition(settings.topics.readings, 0)
        ].counts == {"consumed": 6, "dead_lettered": 0}
    other_broker.kill()
    other_broker.start()
    have_topics(settings)
    plant.feed([plant.reading("B", step) for step in range(num_records)])
    with member(settings) as late, pytest.raises(RefusedError, match=words):
        late.run_until(lambda: False)


def test_casts_without_end_are_told_and_none_is_refused(
    kafka: KafkaConfig, redis: RedisConfig, unique: str
) -> None:
    settings = make_settings(kafka, redis, unique, many_open_casts=5)
    plant = Plant(settings)
    with member(settings) as one, capture_logs() as logs:
        plant.feed(plant.reading(f"{ms(step)}", step) for step in range(30))
        one.consume(30)
        told = [each for each in logs if each["event"] == "many open casts"]
        assert {each["partition"] for each in told} == {f"{settings.topics.readings}/{k}" for k in (0, 1)}
        assert len(told) == 2
        sample = one.metrics.registry.get_sample_value
        labels = {"topic": settings.topics.readings, "partition": "0"}
        assert sample("casting_streamer_many_open_casts", labels) == 1
        assert sample("casting_streamer_open_casts") == 30
