"""A rebalance is noted on the client's I/O thread, where whatever waits would stop the heartbeats."""

from __future__ import annotations

from unittest.mock import Mock

from streamer.kafka.connection import topic_partition
from streamer.kafka.rebalance import Rebalance, RebalanceNotes
from streamer.records import Partition

A, B, C = (Partition("readings", number) for number in range(3))


def test_a_listener_only_notes_and_pauses() -> None:
    notes = RebalanceNotes()
    notes.consumer = Mock(spec_set=["pause"])  # anything else that it asked of the client would raise
    assert notes.take() is None
    notes.on_partitions_assigned([topic_partition(each) for each in (A, B)])
    notes.consumer.pause.assert_called_once_with(topic_partition(A), topic_partition(B))
    notes.on_partitions_revoked([topic_partition(A)])
    notes.on_partitions_lost([topic_partition(B)])
    notes.on_partitions_assigned([topic_partition(each) for each in (B, C)])
    assert notes.take() == Rebalance(revoked=frozenset({A, B}), assigned=frozenset({B, C}))
    assert notes.take() is None


def test_a_member_without_a_partition_is_told_of_the_rebalance_too() -> None:
    notes = RebalanceNotes()
    notes.consumer = Mock(spec_set=[])
    notes.on_partitions_revoked([])
    assert notes.take() is None
    notes.on_partitions_assigned([])
    assert notes.take() == Rebalance(frozenset(), frozenset())
