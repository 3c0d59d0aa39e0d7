"""The consumer against a real broker: both read paths, seeking, pausing, rebalances under both strategies."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any, Literal

import kafka as client
import pytest
from kafka.consumer.fetcher import Fetcher

from streamer.config import ConsumerConfig, KafkaConfig
from streamer.errors import BrokerUnavailableError
from streamer.kafka import GroupConsumer, TopicSpec, ensure_topics
from streamer.kafka.rebalance import RebalanceNotes
from streamer.records import Partition, Record, RecordBatch

Strategy = Literal["range", "cooperative-sticky"]
BOTH_STRATEGIES = pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
NUM_TOPICS = 10
POLL_RECORDS = 15


def config(group: str, **options: Any) -> ConsumerConfig:
    return ConsumerConfig(
        group_id=group, session_timeout_ms=2_000, heartbeat_interval_ms=300, poll_timeout_ms=50, **options
    )


def fill(
    kafka: KafkaConfig, topic: str, num: int, *, partitions: int = 1, start: int = 0, codec: str | None = None
) -> list[Record]:
    """Writes the numbers from `start` on to each partition, 40 records a producer batch; returns the records."""
    producer = client.KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        linger_ms=1_000,
        metrics_enabled=False,
        compression_type=codec,
    )
    sent = []
    for number in range(start, start + num):
        for partition in range(partitions):
            record = Record(
                topic=topic,
                partition=partition,
                offset=number,
                timestamp_ms=1_000 + number,
                key=None if number % 50 == 9 else b"k%d" % (number % 7),
                value=None if number % 50 == 7 else b"value %d" % number,
                headers=(("sent-at", b"%d" % number),) if number % 3 else (),
            )
            sent.append(record)
            producer.send(
                topic,
                record.value,
                key=record.key,
                partition=partition,
                headers=list(record.headers),
                timestamp_ms=record.timestamp_ms,
            )
        if number % 40 == 39:
            producer.flush()
    producer.flush()
    producer.close()
    return sent


def wait_until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def read(consumer: GroupConsumer, num: int) -> list[RecordBatch]:
    batches: list[RecordBatch] = []

    def enough() -> bool:
        batches.extend(consumer.poll())
        return sum(map(len, batches)) >= num

    wait_until(enough)
    return batches


def records(batches: list[RecordBatch]) -> list[Record]:
    return [batch.record(index) for batch in batches for index in range(len(batch))]


def offsets(batches: list[RecordBatch]) -> list[int]:
    return [offset for batch in batches for offset in batch.offset_M.tolist()]


class Shared:
    """One consumer for all tests of a path, since joining takes seconds; each test has a topic of its own."""

    def __init__(self, kafka: KafkaConfig, path: str) -> None:
        name = f"readings-{uuid.uuid4().hex[:8]}"
        self.topics = [f"{name}-{number}" for number in range(NUM_TOPICS)]
        ensure_topics(kafka, dict.fromkeys(self.topics, TopicSpec(num_partitions=2)))
        fast_path: Literal["auto", "off"] = "auto" if path == "seam" else "off"
        self.consumer = GroupConsumer(
            kafka, config(name, fast_path=fast_path, max_poll_records=POLL_RECORDS), self.topics
        )
        assert self.consumer.path == path
        wait_until(lambda: self.consumer.poll() == [] and len(self.consumer.assignment()) == 2 * NUM_TOPICS)
        rebalance = self.consumer.take_rebalance()
        assert rebalance is not None
        for partition in rebalance.assigned:
            self.consumer.seek(partition, 0)


@pytest.fixture(scope="module", params=["seam", "public"])
def shared(kafka: KafkaConfig, request: pytest.FixtureRequest) -> Iterator[Shared]:
    """A member that holds all topics, each partition at offset 0 and paused."""
    shared = Shared(kafka, request.param)
    with closing(shared.consumer):
        yield shared


@pytest.fixture
def topic(shared: Shared) -> Iterator[str]:
    """A topic that no other test uses and that only this one reads."""
    name = shared.topics.pop()
    for number in range(2):
        shared.consumer.resume(Partition(name, number))
    yield name
    shared.consumer.pause(Partition(name, 0), Partition(name, 1))


@pytest.fixture
def consumer(shared: Shared) -> GroupConsumer:
    return shared.consumer


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_every_record_comes_as_it_was_sent(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str, codec: str | None
) -> None:
    sent = fill(kafka, topic, 100, partitions=2, codec=codec)
    seen = read(consumer, 200)
    assert max(map(len, seen)) == POLL_RECORDS
    assert sorted(records(seen), key=lambda record: (record.partition, record.offset)) == sorted(
        sent, key=lambda record: (record.partition, record.offset)
    )
    if consumer.path == "seam":
        assert sum(batch.num_producer_batches for batch in seen) == 6


def test_seeking_into_a_batch_back_and_forth(kafka: KafkaConfig, consumer: GroupConsumer, topic: str) -> None:
    fill(kafka, topic, 120)
    partition = Partition(topic, 0)
    assert offsets(read(consumer, 10)) == list(range(15))
    consumer.seek(partition, 57)
    assert offsets(read(consumer, 10)) == list(range(57, 72))
    consumer.seek(partition, 71)  # one back: how a topic that was made anew is told
    (again,) = read(consumer, 10)
    assert (again.record(0).offset, again.record(0).value, again.record(0).timestamp_ms) == (
        71,
        b"value 71",
        1_071,
    )
    consumer.seek(partition, 119)
    assert offsets(read(consumer, 1)) == [119]


def test_what_lay_in_the_buffer_of_a_paused_partition_comes_after_it(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str
) -> None:
    fill(kafka, topic, 100, partitions=2)
    begun = read(consumer, 15)
    paused = begun[0].source
    consumer.pause(paused)
    meanwhile = read(consumer, 100)
    assert {batch.source for batch in meanwhile} == {Partition(topic, 1 - paused.partition)}
    consumer.resume(paused)
    assert offsets(begun + read(consumer, 85)) == list(range(100))


def test_a_seek_while_paused_drops_the_buffer(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str
) -> None:
    fill(kafka, topic, 100)
    partition = Partition(topic, 0)
    read(consumer, 15)
    consumer.pause(partition)
    assert consumer.poll() == []
    consumer.seek(partition, 3)
    consumer.resume(partition)
    assert offsets(read(consumer, 15)) == list(range(3, 18))


def test_records_that_come_later_are_read_and_the_end_is_known(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str
) -> None:
    fill(kafka, topic, 40, partitions=2)
    read(consumer, 80)
    fill(kafka, topic, 40, start=40)
    assert offsets(read(consumer, 40)) == list(range(40, 80))
    wait_until(lambda: consumer.poll() == [] and consumer.highwater(Partition(topic, 0)) == 80)
    assert consumer.highwater(Partition(topic, 1)) == 40


def test_the_end_is_known_where_nothing_is_new(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str
) -> None:
    fill(kafka, topic, 10)
    partition = Partition(topic, 0)
    consumer.seek(partition, 10)
    wait_until(lambda: consumer.poll() == [] and consumer.highwater(partition) == 10)


def test_a_damaged_record_raises_each_time_and_what_lies_before_it_is_read(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str
) -> None:
    fill(kafka, topic, 120)
    damage(consumer, b"value 44")
    assert offsets(read(consumer, 40)) == list(range(40))
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError, match="crc"):
            read(consumer, 1)
    consumer.seek(Partition(topic, 0), 80)
    assert offsets(read(consumer, 40)) == list(range(80, 120))


def test_with_a_client_that_was_not_tested_the_public_path_is_taken(
    kafka: KafkaConfig, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "__version__", "3.0.99")
    with closing(GroupConsumer(kafka, config(unique), [f"no-such-{unique}"])) as consumer:
        assert consumer.path == "public"
        assert consumer._consumer._fetcher.PartitionRecords is Fetcher.PartitionRecords


def damage(consumer: GroupConsumer, value: bytes) -> None:
    """From now on answers arrive with one bit turned in a value, as from a broken disk."""
    fetcher = consumer._consumer._fetcher
    arrived = fetcher._handle_fetch_response

    def turn(node: Any, fetch_offsets: Any, sent: Any, response: Any) -> None:
        for part in (part for answer in response.responses for part in answer.partitions):
            if part.records and (at := bytes(part.records).find(value)) >= 0:
                turned = bytearray(part.records)
                turned[at] ^= 1
                part.records = bytes(turned)
        arrived(node, fetch_offsets, sent, response)

    fetcher._handle_fetch_response = turn


def test_records_of_a_partition_that_the_caller_has_not_resumed_are_held_back(
    kafka: KafkaConfig, consumer: GroupConsumer, topic: str
) -> None:
    fill(kafka, topic, 10)
    partition = Partition(topic, 0)
    consumer._resumed.remove(partition)  # as if its listener, which pauses it, were still to come
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        assert consumer.poll() == []
    consumer.seek(partition, 0)
    consumer.resume(partition)
    assert offsets(read(consumer, 10)) == list(range(10))


class Member:
    """A member in a thread of its own that takes its rebalances as the service does."""

    def __init__(self, kafka: KafkaConfig, topic: str, consumer: ConsumerConfig) -> None:
        self._consumer = GroupConsumer(kafka, consumer, [topic])
        self.owned: frozenset[Partition] = frozenset()
        self.moves: list[tuple[frozenset[Partition], frozenset[Partition]]] = []
        self.read: list[tuple[int, int]] = []  # partition and offset
        self.stray = 0
        self._positions: dict[Partition, int] = {}
        self._stop = threading.Event()
        self._sleep = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for batch in self._consumer.poll():
                self.stray += batch.source not in self.owned
                self.read += [(batch.source.partition, offset) for offset in batch.offset_M.tolist()]
                self._positions[batch.source] = batch.next_offset
            self._take_rebalance()
            if self._positions:
                with suppress(BrokerUnavailableError):  # a rebalance is under way
                    self._consumer.commit(self._positions)
                    self._positions = {}
            while self._sleep.is_set() and not self._stop.is_set():
                time.sleep(0.02)
        self._consumer.close()

    def _take_rebalance(self) -> None:
        rebalance = self._consumer.take_rebalance()
        if rebalance is None:
            return
        self.moves.append((rebalance.revoked, rebalance.assigned))
        owned = (self.owned - rebalance.revoked) | rebalance.assigned
        for partition in rebalance.revoked | rebalance.assigned:
            self._positions.pop(partition, None)
        for partition in rebalance.assigned:
            self._consumer.seek(partition, self._consumer.committed(partition) or 0)
            self._consumer.resume(partition)
        self.owned = owned

    def sleep(self, seconds: float) -> None:
        """Polls no more for so long: more than `max_poll_interval_ms`, and it has left the group."""
        self._sleep.set()
        time.sleep(seconds)
        self._sleep.clear()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()


def settled(members: list[Member], topic: str) -> bool:
    """Each partition has one owner, and the owners have about the same number."""
    owned = [partition for member in members for partition in member.owned]
    sizes = [len(member.owned) for member in members]
    return sorted(owned) == [Partition(topic, number) for number in range(4)] and max(sizes) - min(sizes) <= 1


@pytest.fixture
def fours(kafka: KafkaConfig, unique: str) -> str:
    """A topic of four partitions."""
    name = f"readings-{unique}"
    ensure_topics(kafka, {name: TopicSpec(num_partitions=4)})
    return name


@BOTH_STRATEGIES
def test_two_members_share_the_partitions_and_the_one_that_stays_gets_all(
    kafka: KafkaConfig, fours: str, unique: str, strategy: Strategy
) -> None:
    fill(kafka, fours, 80, partitions=4)
    consumer = config(unique, assignment=strategy)
    with ExitStack() as stack:
        first = stack.enter_context(closing(Member(kafka, fours, consumer)))
        wait_until(lambda: settled([first], fours) and len(first.read) == 320)
        second = stack.enter_context(closing(Member(kafka, fours, consumer)))
        wait_until(lambda: settled([first, second], fours))
        kept = first.owned
        second.close()
        wait_until(lambda: settled([first], fours))
        fill(kafka, fours, 40, partitions=4, start=80)
        wait_until(lambda: set(first.read) | set(second.read) == everything(120))
        assert first.stray == second.stray == 0
        revoked, assigned = first.moves[-1]
        # cooperative-sticky leaves alone what stays, range takes all and gives all
        assert bool(kept & (revoked | assigned)) == (strategy == "range")


@pytest.mark.slow
@BOTH_STRATEGIES
def test_three_members_come_and_go_and_each_partition_has_one_owner(
    kafka: KafkaConfig, fours: str, unique: str, strategy: Strategy
) -> None:
    fill(kafka, fours, 80, partitions=4)
    consumer = config(unique, assignment=strategy)
    with ExitStack() as stack:
        members: list[Member] = []
        for _ in range(3):
            members.append(stack.enter_context(closing(Member(kafka, fours, consumer))))
            wait_until(lambda: settled(members, fours))
        gone = members.pop(1)
        gone.close()
        wait_until(lambda: settled(members, fours))
        fill(kafka, fours, 40, partitions=4, start=80)
        everyone = [*members, gone]
        wait_until(lambda: {entry for member in everyone for entry in member.read} == everything(120))
        assert [member.stray for member in everyone] == [0, 0, 0]


@BOTH_STRATEGIES
def test_a_member_that_slept_too_long_lost_its_partitions_and_joins_again(
    kafka: KafkaConfig, fours: str, unique: str, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Any] = []
    notes_loss = RebalanceNotes.on_partitions_lost

    def noted(self: RebalanceNotes, partitions: Any) -> None:
        lost.append(frozenset(Partition(*tp) for tp in partitions))
        notes_loss(self, partitions)

    monkeypatch.setattr(RebalanceNotes, "on_partitions_lost", noted)
    with closing(
        Member(kafka, fours, config(unique, assignment=strategy, max_poll_interval_ms=2_000))
    ) as member:
        wait_until(lambda: settled([member], fours))
        num_moves = len(member.moves)
        member.sleep(3)
        wait_until(lambda: len(member.moves) > num_moves and settled([member], fours))
        moves = member.moves[num_moves:]
    assert lost == [member.owned]
    assert frozenset[Partition]().union(*(revoked for revoked, _ in moves)) == member.owned
    assert frozenset[Partition]().union(*(assigned for _, assigned in moves)) == member.owned


def everything(num: int) -> set[tuple[int, int]]:
    """Partition and offset of what `fours` holds."""
    return {(number, offset) for number in range(4) for offset in range(num)}
