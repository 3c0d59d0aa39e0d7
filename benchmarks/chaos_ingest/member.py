"""One member of the group as a process of its own, which kills itself where it was told to.

It is the streamer as it is; what is here is put around its methods, and for the broken variants in their place.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import kafka

from benchmarks.chaos_ingest import broken
from benchmarks.chaos_ingest.patching import wrap
from streamer.app import run_streamer
from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.embedded import end_with_parent
from streamer.errors import CastingError
from streamer.kafka import GroupConsumer
from streamer.logs import configure_logging
from streamer.process import StopRequest
from streamer.records import Partition
from streamer.service import StreamerService
from streamer.store.casts import CastStore
from streamer.store.index import WindowIndex

# Points at which a member can kill itself, and how the result names them.
POINTS = {
    "rows-position": "write-commit",
    "position-commit": "write-commit",
    "seal-index": "seal-index",
    "letter-commit": "letter-commit",
    "revoke-assign": "revoke-assign",
}
# Only for the broken variants: where each of them is sure to do harm.
END_INDEX, VARIANT = "end-index", "variant"


@dataclass(frozen=True)
class MemberPlan:
    """What a member is to do.

    Attributes:
        ends: End of each readings partition, as (topic, partition): what lag is measured against.
        notes: File for the member's last words.
        log: File for its log.
        point: Where it kills itself, None: nowhere.
        skip: How often it passes that point before.
        pause_s: Pause after each batch to begin with, so that there is lag to be killed in.
        variant: Name of the broken variant, None: none.
    """

    settings: StreamerSettings
    ends: dict[tuple[str, int], int]
    notes: Path
    log: Path
    point: str | None = None
    skip: int = 0
    pause_s: float = 0.0
    variant: str | None = None


def run_member(plan: MemberPlan, pause: Synchronized[float]) -> None:
    """Target of the process: runs the streamer until it is stopped or kills itself; it pauses as it is told."""
    end_with_parent()
    with plan.log.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    configure_logging(plan.settings.logging)
    strike = Strike(plan, pause)
    if plan.variant is not None:
        broken.VARIANTS[plan.variant](strike.at)
    _watch(strike)
    stop = StopRequest()
    stop.install()
    try:
        run_streamer(plan.settings, stop)
    except CastingError as exc:
        sys.stderr.write(f"error: {exc}\n")
        raise SystemExit(1) from exc
    raise SystemExit(stop.exit_code())


@dataclass
class Strike:
    """Kills the process at its point, if there is lag."""

    plan: MemberPlan
    pause: Synchronized[float]
    left: int = 0
    offsets: dict[Partition, int] = field(default_factory=dict)
    owned: Callable[[], frozenset[Partition]] = frozenset

    def __post_init__(self) -> None:
        self.left = self.plan.skip

    def lag(self) -> int:
        """Records behind what was polled last, of the partitions that this member holds."""
        ends = {Partition(*source): end for source, end in self.plan.ends.items()}
        return sum(max(0, ends[each] - self.offsets.get(each, 0)) for each in self.owned() if each in ends)

    def at(self, point: str) -> None:
        """Called when a point is reached."""
        if point != self.plan.point or not (lag := self.lag()):
            return
        self.left -= 1
        if self.left < 0:
            note = {"point": point, "lag": lag, "pid": os.getpid()}
            with self.plan.notes.open("ab", buffering=0) as notes:
                notes.write(json.dumps(note).encode() + b"\n")
            os.kill(os.getpid(), signal.SIGKILL)


def _watch(strike: Strike) -> None:
    """Puts the points around the streamer's methods."""
    _watch_poll(strike)
    _watch_index(strike)
    _watch_rebalance(strike)

    def before(point: str) -> Callable[[Any], Any]:
        def make(original: Any) -> Any:
            def method(self: Any, batches: Any, *rest: Any) -> Any:
                if any(tuple(source) in strike.plan.ends for source in batches):  # readings, not labels alone
                    strike.at(point)
                return original(self, batches, *rest)

            return method

        return make

    wrap(StreamerService, "_move_positions", before("rows-position"))
    wrap(StreamerService, "_commit", before("position-commit"))

    def flush(original: Any) -> Any:
        def method(self: Any) -> Any:
            queued = self._producer.num_unflushed()
            original(self)
            if queued:
                strike.at("letter-commit")

        return method

    wrap(DeadLetters, "flush", flush)


def _watch_poll(strike: Strike) -> None:
    def poll(original: Any) -> Any:
        def method(self: GroupConsumer) -> Any:
            strike.owned = self.assignment
            batches = original(self)
            for batch in batches:
                strike.offsets[batch.source] = batch.next_offset
            if batches:
                time.sleep(strike.pause.value)
            return batches

        return method

    wrap(GroupConsumer, "poll", poll)


def _watch_index(strike: Strike) -> None:
    """Between the rows of a cast and its windows; labels enter windows as well, but they seal nothing."""
    saved: dict[str, bool] = {}

    def save(original: Any) -> Any:
        def method(self: Any, partition: Any, states: Any) -> Any:
            ids = {state.cast_id: state.timeline.ended for state in states}
            original(self, partition, states)
            saved.update(ids)

        return method

    def update(original: Any) -> Any:
        def method(self: Any, cast_ids: Any, *rest: Any) -> Any:
            if saved.keys() & set(cast_ids):
                strike.at("seal-index")
            if any(saved.get(cast_id) for cast_id in cast_ids):
                strike.at(END_INDEX)
            saved.clear()
            return original(self, cast_ids, *rest)

        return method

    wrap(CastStore, "save", save)
    wrap(WindowIndex, "update", update)


def _watch_rebalance(strike: Strike) -> None:
    """Between the revocation and the next assignment, on the thread on which the client tells of it."""

    def subscribe(original: Any) -> Any:
        def method(self: Any, topics: Any, *rest: Any, listener: Any = None) -> Any:
            def revoked(told: Any) -> Any:
                def listen(partitions: Any) -> Any:
                    held = frozenset(Partition(*each) for each in partitions)
                    told(partitions)
                    strike.owned = lambda: held
                    strike.at("revoke-assign")

                return listen

            listener.on_partitions_revoked = revoked(listener.on_partitions_revoked)
            return original(self, topics, *rest, listener=listener)

        return method

    wrap(kafka.KafkaConsumer, "subscribe", subscribe)
