"""One assigned partition of the readings topic: its position, log clock and open casts. No I/O.

Everything here moves in offset order, so the same log gives the same windows whatever the batches are.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

from streamer.errors import RecordError
from streamer.records import Partition, Record
from streamer.schema import CastEnd, Reading
from streamer.store.casts import CastState
from streamer.timeline import Grid, Lateness, LogClock, Outcome, check_stamps, count


@dataclass(slots=True)
class ReadingsPartition:
    """State of one partition between two batches, and what the current batch changed.

    Attributes:
        source: The partition.
        offset: Next offset to read.
        position: Offset up to which Redis knows the log; the clock has seen what lies before it.
        casts: Open casts, and those that the batch touches.
        touched: Casts that the batch changed.
        first_seen: Casts that Redis does not hold yet, and the log time of their first record.
        num_unknown_fields: Fields that no sensor bears, in this batch.
        waiting_since: Monotonic seconds since which nothing more lay in the log, None while there is more.
    """

    source: Partition
    offset: int
    position: int | None
    clock: LogClock
    grid: Grid
    bounds: Lateness
    casts: dict[str, CastState] = field(default_factory=dict)
    touched: dict[str, CastState] = field(default_factory=dict)
    first_seen: dict[str, int] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    num_unknown_fields: int = 0
    waiting_since: float | None = None
    _deadlines: list[tuple[int, str]] = field(default_factory=list)

    def adopt(self, states: dict[str, CastState]) -> None:
        """Takes loaded casts in."""
        for cast_id, state in states.items():
            self.casts[cast_id] = state
            if self.may_move(state):
                self._schedule(state)

    def may_move(self, state: CastState) -> bool:
        """Whether a cast is open and ours; a cast belongs to the partition of its first record."""
        return not state.timeline.ended and state.source in (None, str(self.source))

    def observe(self, record: Record, log_time_ms: int) -> None:
        """Moves log time on, unless the record was counted before a restart, and ends the casts that are over."""
        if self.position is None or record.offset >= self.position:
            self.clock.observe(log_time_ms)
        self.close_due()

    def take(self, record: Record, message: Reading | CastEnd, log_time_ms: int) -> str:
        """Applies one record whose cast is loaded.

        Returns:
            What became of the record: ``applied``, ``control``, ``late`` or ``redelivered``.

        Raises:
            RecordError: The record cannot be used; it counts as judged all the same.
        """
        state = self.casts[message.cast_id]
        if state.applied is not None and record.offset < state.applied:
            return "redelivered"
        if state.source not in (None, str(self.source)):
            raise RecordError(
                "second_partition",
                f"cast {state.cast_id} comes from {state.source}; send it with its cast_id as key",
                stage="place",
            )
        check_stamps(message, self.bounds, log_time_ms)
        state.source = str(self.source)
        state.next_applied = record.offset + 1
        self.touched[state.cast_id] = state
        if state.version is None:
            self.first_seen.setdefault(state.cast_id, log_time_ms)
        if isinstance(message, CastEnd):
            return self._end(state, message, log_time_ms)
        return self._place(state, message, log_time_ms)

    def _end(self, state: CastState, event: CastEnd, log_time_ms: int) -> str:
        if event.group is not None and state.group is None:
            state.group = event.group
        state.timeline.end(event, self.grid, self.bounds, log_time_ms)
        state.counts["control"] += 1
        self._schedule(state)
        return "control"

    def _place(self, state: CastState, reading: Reading, log_time_ms: int) -> str:
        if state.strand is None:
            state.strand = reading.strand
        new = state.timeline.seen_at is None
        outcomes = state.timeline.place(reading, self.grid, self.bounds, log_time_ms)
        for k, outcome in enumerate(outcomes):
            if outcome in _WRITES:
                state.dirty_steps.add(self.grid.step(reading.ts + k * reading.period_ms))
        for name, number in count(outcomes).items():
            state.counts[name] += number
            self.outcomes[name] += number
        self.num_unknown_fields += reading.unknown_fields
        if new:
            self._schedule(state)
        num_late = outcomes.count(Outcome.LATE)
        state.counts["late_records" if num_late == len(outcomes) else "readings"] += 1
        return "late" if num_late else "applied"

    def close_due(self) -> None:
        """Ends the casts whose time is over by the log clock."""
        now = self.clock.now()
        while now is not None and self._deadlines and self._deadlines[0][0] <= now:
            _, cast_id = heapq.heappop(self._deadlines)
            state = self.casts.get(cast_id)
            deadline = state.timeline.deadline(self.bounds) if state else None
            if state is None or deadline is None:
                continue
            if deadline > now:
                heapq.heappush(self._deadlines, (deadline, cast_id))
                continue
            state.timeline.close()
            self.touched[cast_id] = state

    def _schedule(self, state: CastState) -> None:
        deadline = state.timeline.deadline(self.bounds)
        if deadline is not None:
            heapq.heappush(self._deadlines, (deadline, state.cast_id))

    def batch_done(self) -> None:
        """Forgets what is written, casts that are over, of other partitions, or of refused records only."""
        for cast_id, state in list(self.casts.items()):
            if state.version is None or not self.may_move(state):
                del self.casts[cast_id]
        self.touched.clear()
        self.first_seen.clear()
        self.outcomes.clear()
        self.num_unknown_fields = 0


_WRITES = frozenset({Outcome.PLACED, Outcome.SUPERSEDED})
