"""Waiting at the end of a log: time passes while its broker says that nothing comes, and never by silence."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import kafka as client
import pytest
from streamer_harness import Member, Plant, Sent, make_settings, member, ms

from streamer.app import have_topics
from streamer.backfill import run_backfill
from streamer.cli.running import _status
from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.embedded import EmbeddedBroker
from streamer.kafka import end_offsets, hold_records, quiet
from streamer.ledger import read_ledger
from streamer.process import StopRequest
from streamer.records import Partition, RecordBatch
from streamer.stretch import Stretch

# A transactional producer leaves a socket to the collector, and its logs hold on to it.
pytestmark = [
    pytest.mark.usefixtures("collect_sockets"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
IDLE_S = 61
FastPath = Literal["auto", "off"]


@pytest.fixture
def collect_sockets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    for when in ("setup", "call"):
        caplog.get_records(when).clear()
    gc.collect()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """One that may be stopped."""
    with EmbeddedBroker() as broker:
        yield broker


def settings_for(broker: EmbeddedBroker, redis_url: str, fast_path: FastPath = "auto") -> StreamerSettings:
    unique = uuid.uuid4().hex[:12]
    redis = RedisConfig(url=redis_url, namespace=f"t{unique}")
    return make_settings(
        KafkaConfig(bootstrap_servers=broker.bootstrap_servers), redis, unique, fast_path=fast_path
    )


@pytest.fixture(scope="module", params=["auto", "off"])
def shared(broker: EmbeddedBroker, redis_url: str, request: pytest.FixtureRequest) -> Iterator[Member]:
    """A member of each read path, since joining takes seconds."""
    with member(settings_for(broker, redis_url, request.param)) as one:
        one.run_until(one.assigned)
        yield one


NUMBERS = count()


@dataclass
class Waiting:
    """A member that has read ten steps of a cast and waits for more; each test has a cast of its own."""

    one: Member
    number: int

    @property
    def cast_id(self) -> str:
        return f"A{self.number}"

    def feed(self, steps: range) -> None:
        plant, begin = Plant(self.one.settings), 1_000 * self.number
        plant.feed(plant.reading(self.cast_id, begin + step) for step in steps)

    def expect(self, num_records: int) -> None:
        """The cast gets so many records in the end, each in time, and stays open."""
        names = ["records:applied", "records:late", "ended"]
        key = self.one.keys.cast(self.cast_id)
        self.one.run_until(
            lambda: sum(int(n or 0) for n in self.one.client.hmget(key, names[:2])) >= num_records
        )
        assert self.one.client.hmget(key, names) == [b"%d" % num_records, None, b"0"]

    def has_ended(self) -> bool:
        return has_ended(self.one, self.cast_id)


def has_ended(one: Member, cast_id: str) -> bool:
    return bool(one.client.hget(one.keys.cast(cast_id), "ended") == b"1")


@pytest.fixture
def waiting(shared: Member) -> Waiting:
    waiting = Waiting(shared, next(NUMBERS))
    waiting.feed(range(10))
    waiting.expect(10)
    shared.let_time_pass(1)
    return waiting


@contextmanager
def stopped(broker: EmbeddedBroker) -> Iterator[None]:
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def test_a_cast_of_which_nothing_comes_is_over(waiting: Waiting) -> None:
    waiting.one.let_time_pass(IDLE_S - 5)
    assert not waiting.has_ended()
    waiting.one.let_time_pass(5)
    assert waiting.has_ended()


def test_while_the_broker_is_out_of_reach_nobody_knows_what_comes(
    waiting: Waiting, broker: EmbeddedBroker
) -> None:
    with stopped(broker):
        waiting.one.turn(3)
        waiting.one.skew_s += IDLE_S
        waiting.one.turn(3)
        assert not waiting.has_ended()
    waiting.feed(range(10, 14))
    waiting.expect(14)


def test_what_gateways_could_not_send_to_a_broker_that_was_away_is_waited_for(
    waiting: Waiting, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "MAX_ANSWER_S", 0.2)
    with stopped(broker):
        waiting.one.turn(10)
        waiting.one.skew_s += IDLE_S
        waiting.one.turn(3)
    waiting.one.let_time_pass(IDLE_S - 10)
    waiting.feed(range(10, 14))
    waiting.expect(14)


def test_a_process_that_stood_still_does_not_know_what_came_meanwhile(waiting: Waiting) -> None:
    consumer = waiting.one.consumer
    poll = consumer.poll

    def stand_still() -> list[RecordBatch]:
        consumer.poll = poll  # type: ignore[method-assign]  # once, behind the answer of the broker
        batches = poll()
        waiting.feed(range(10, 14))
        waiting.one.skew_s += IDLE_S
        return batches

    consumer.poll = stand_still  # type: ignore[method-assign]  # as above
    waiting.one.turn(1)
    assert not waiting.has_ended()
    waiting.expect(14)


@pytest.fixture
def settings(broker: EmbeddedBroker, redis_url: str) -> StreamerSettings:
    return settings_for(broker, redis_url)


@pytest.fixture
def plant(settings: StreamerSettings) -> Plant:
    return Plant(settings)


def transaction(settings: StreamerSettings, records: list[Sent]) -> None:
    """Sends records in a transaction: the log ends with its marker, which no consumer is given."""
    producer = client.KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        transactional_id=uuid.uuid4().hex,
        metrics_enabled=False,
    )
    producer.init_transactions()
    producer.begin_transaction()
    for sent in records:
        headers = [("sent-at", b"%d" % ms(sent.at or 0))]
        producer.send(sent.topic, sent.value, key=sent.cast_id.encode(), headers=headers)
    producer.commit_transaction()
    producer.close()


def test_behind_the_marker_of_a_transaction_lies_nothing(settings: StreamerSettings, plant: Plant) -> None:
    with member(settings) as one:
        one.run_until(one.assigned)
        readings = [*(plant.reading("A", step) for step in range(10)), plant.end("A", 9)]
        transaction(settings, [*readings, plant.label("A", True, 3)])
        one.consume(12)
        one.let_time_pass(4)
        assert has_ended(one, "A")
        lags = [one.metrics.registry.get_sample_value("casting_streamer_lag", each) for each in sources(one)]
        assert lags == [0, 0, 0, 0]
        ends = end_offsets(settings.kafka, (settings.topics.readings, settings.topics.labels))
        assert {source: one.consumer.committed(source) or 0 for source in ends} == ends
        assert _status(settings)["lag"] == 0
        ledger = read_ledger(settings)
        assert [each.records.pending for each in ledger.partitions] == [0, 0, 0, 0]
        transaction(settings, [plant.reading("B", step) for step in range(3)])
        assert sum(each.records.pending for each in read_ledger(settings).partitions) >= 3
        assert _status(settings)["lag"] >= 3


def sources(one: Member) -> list[dict[str, Any]]:
    return [{"topic": topic, "partition": str(number)} for topic, number in one.consumer.assignment()]


def test_a_record_behind_the_end_is_none_before_it(settings: StreamerSettings, plant: Plant) -> None:
    have_topics(settings)
    for step in range(2):
        transaction(settings, [plant.reading("A", step)])
    (source,) = (each for each, end in end_offsets(settings.kafka, [settings.topics.readings]).items() if end)
    assert hold_records(settings.kafka, {source: 1}, {source: 2}) == frozenset()
    assert hold_records(settings.kafka, {source: 1}, {source: 3}) == {source}


def test_a_backfill_closes_what_is_open_behind_such_a_marker(
    settings: StreamerSettings, plant: Plant
) -> None:
    have_topics(settings)
    transaction(settings, [plant.reading("A", step) for step in range(10)])
    backfill = run_backfill(settings, Stretch(0, 2**62), StopRequest(), close_open=True)
    assert (backfill.num_casts, backfill.num_open_casts) == (1, 0)


def test_with_a_client_that_tells_nothing_of_its_answers_no_time_passes(
    settings: StreamerSettings, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet.QuietLogs, "watch", lambda *_: False)
    with member(settings) as one:
        plant.feed(plant.reading("A", step) for step in range(10))
        one.consume(10)
        one.skew_s += IDLE_S
        one.turn(5)
        assert not has_ended(one, "A")
        plant.feed(plant.time_passes(10 + IDLE_S))
        one.consume(26)
        assert has_ended(one, "A")
        assert one.consumer.quiet_s(Partition(settings.topics.readings, 0), 0) is None
