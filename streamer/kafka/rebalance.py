"""What changed in the assignment, noted by the client's I/O thread and taken by the poll thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from kafka import ConsumerRebalanceListener

from streamer.records import Partition


@dataclass(frozen=True, slots=True)
class Rebalance:
    """What changed in the assignment since it was asked for last; a partition may be in both."""

    revoked: frozenset[Partition]
    assigned: frozenset[Partition]


class RebalanceNotes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Runs on the client's I/O thread, where blocking would stop the heartbeats: it notes and pauses."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self._lock = threading.Lock()
        self._revoked: set[Partition] = set()
        self._assigned: set[Partition] = set()
        self._changed = False

    def on_partitions_revoked(self, revoked: Any) -> None:
        with self._lock:
            self._changed = self._changed or bool(revoked)
            gone = {Partition(*tp) for tp in revoked}
            self._revoked |= gone
            self._assigned -= gone

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Any) -> None:
        with self._lock:
            self._changed = True  # also without a partition: the group has more members than partitions
            self._assigned |= {Partition(*tp) for tp in assigned}
        if assigned:
            self.consumer.pause(*assigned)

    def take(self) -> Rebalance | None:
        with self._lock:
            if not self._changed:
                return None
            rebalance = Rebalance(frozenset(self._revoked), frozenset(self._assigned))
            self._revoked, self._assigned, self._changed = set(), set(), False
            return rebalance
