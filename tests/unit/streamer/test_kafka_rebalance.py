"""A rebalance is noted on the client's I/O thread, where whatever waits would stop the heartbeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer

from streamer.config import KafkaConfig
from streamer.kafka.connection import topic_partition
from streamer.kafka.rebalance import Rebalance, RebalanceNotes
from streamer.records import Partition

A, B, C = (Partition("readings", number) for number in range(3))
WAITS = {"commit", "commit_async", "committed", "poll", "position", "seek", "end_offsets", "close"}


class WatchedConsumer(KafkaConsumer):
    """The client itself, which notes what it is asked for."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            object.__getattribute__(self, "__dict__").setdefault("asked", set()).add(name)
        return super().__getattribute__(name)


@pytest.fixture
def consumer(kafka: KafkaConfig) -> Iterator[WatchedConsumer]:
    consumer = WatchedConsumer(bootstrap_servers=kafka.bootstrap_servers)
    consumer.assign([topic_partition(each) for each in (A, B, C)])
    consumer.__dict__["asked"] = set()
    yield consumer
    consumer.close()


def test_a_listener_only_notes_and_pauses(consumer: WatchedConsumer) -> None:
    notes = RebalanceNotes()
    notes.consumer = consumer
    assert notes.take() is None
    notes.on_partitions_assigned([topic_partition(each) for each in (A, B)])
    assert consumer.paused() == {topic_partition(A), topic_partition(B)}
    notes.on_partitions_revoked([topic_partition(A)])
    notes.on_partitions_lost([topic_partition(B)])
    notes.on_partitions_assigned([topic_partition(each) for each in (B, C)])
    assert consumer.__dict__["asked"] & WAITS == set()
    assert notes.take() == Rebalance(revoked=frozenset({A, B}), assigned=frozenset({B, C}))
    assert notes.take() is None


def test_a_member_without_a_partition_is_told_of_the_rebalance_too() -> None:
    notes = RebalanceNotes()
    notes.on_partitions_revoked([])
    assert notes.take() is None
    notes.on_partitions_assigned([])
    assert notes.take() == Rebalance(frozenset(), frozenset())
