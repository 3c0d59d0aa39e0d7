"""Event time: which step a reading belongs to, and when a step is final. No clock, no network, no globals.

    event time  ...|--- sealed: final ---|--- open: within the allowed lateness ---|
                   first_step            sealed = step(newest - lateness)          newest

Steps lie on an absolute grid, so no write needs to know where its cast begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from streamer.errors import RecordError
from streamer.schema import CastEnd, Reading, Row


@dataclass(frozen=True, slots=True)
class Grid:
    """The absolute grid of steps: step = round((ts - phase) / period)."""

    period_ms: int
    phase_ms: int = 0

    def step(self, ts: int) -> int:
        """The nearest step; a time halfway between two belongs to the later one."""
        return (2 * (ts - self.phase_ms) + self.period_ms) // (2 * self.period_ms)

    def time(self, step: int) -> int:
        """Epoch ms of a step."""
        return step * self.period_ms + self.phase_ms


@dataclass(frozen=True, slots=True)
class Lateness:
    """Bounds of event time against the log, in ms."""

    allowed_ms: int
    idle_ms: int
    max_future_ms: int
    max_past_ms: int


def check_stamps(message: Reading | CastEnd, bounds: Lateness, log_time_ms: int) -> None:
    """Refuses stamps that cannot be meant, before anything is placed.

    Raises:
        RecordError: ``future_stamp`` or ``past_stamp``.
    """
    newest = message.ts
    if isinstance(message, Reading):
        newest += (len(message.rows) - 1) * message.period_ms
    if newest > log_time_ms + bounds.max_future_ms:
        ahead = (newest - log_time_ms) / 1000
        raise RecordError("future_stamp", f"ts {newest} lies {ahead:.0f} s after its log time", stage="place")
    if message.ts < log_time_ms - bounds.max_past_ms:
        behind = (log_time_ms - message.ts) / 1000
        raise RecordError(
            "past_stamp", f"ts {message.ts} lies {behind:.0f} s before its log time", stage="place"
        )


class Outcome(Enum):
    """What became of one row; each row has exactly one."""

    PLACED = "placed"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    LATE = "late"
    GAP = "gap"


@dataclass(slots=True)
class OpenStep:
    """A step that may still change: the value of each sensor and the time of the reading that won it."""

    row: list[float]
    ts: list[int]


@dataclass(slots=True)
class LogClock:
    """Log time of a partition: the largest time that two records have reached.

    One wild stamp moves nothing. While the reader waits at the partition's end, time goes on by the seconds
    waited.
    """

    highest: int | None = None
    second: int | None = None
    waited_ms: int = 0

    def observe(self, log_time_ms: int) -> None:
        """Takes one record's log time into account."""
        self.waited_ms = 0
        if self.highest is None or log_time_ms >= self.highest:
            self.highest, self.second = log_time_ms, self.highest
        elif self.second is None or log_time_ms > self.second:
            self.second = log_time_ms

    def now(self) -> int | None:
        """Log time in epoch ms, None before the second record."""
        return None if self.second is None else self.second + self.waited_ms


@dataclass(slots=True)
class CastTimeline:
    """Event time of one cast: plain state, moved on only by the methods here.

    Attributes:
        first_step: Smallest step with a value; fixed once it is sealed.
        newest_ts: Newest event time of any reading.
        sealed: First step that is not final yet; the watermark may stand before the first step.
        last_step: Set by the end of the cast.
        ended: Every step is final.
        seen_at: Log time of the newest record of this cast.
        end_seen_at: Log time of its end event.
        open_steps: Steps from `sealed` on.
    """

    first_step: int | None = None
    newest_ts: int | None = None
    sealed: int | None = None
    last_step: int | None = None
    ended: bool = False
    seen_at: int | None = None
    end_seen_at: int | None = None
    open_steps: dict[int, OpenStep] = field(default_factory=dict)

    def place(self, reading: Reading, grid: Grid, bounds: Lateness, log_time_ms: int) -> list[Outcome]:
        """Places the rows of one record, then moves the watermark on.

        Returns:
            The outcome of each row, in order.
        """
        if self._is_over(bounds, log_time_ms):
            return [Outcome.LATE] * len(reading.rows)
        ts, outcomes = reading.ts, []
        for row in reading.rows:
            outcomes.append(self._place_row(grid.step(ts), ts, row, grid))
            ts += reading.period_ms
        newest = ts - reading.period_ms
        self.seen_at = max(self.seen_at or 0, log_time_ms)
        if outcomes.count(Outcome.LATE) < len(outcomes):
            self.newest_ts = newest if self.newest_ts is None else max(self.newest_ts, newest)
            self._seal_up_to(grid.step(self.newest_ts - bounds.allowed_ms))
        return outcomes

    def _place_row(self, step: int, ts: int, row: Row, grid: Grid) -> Outcome:
        if self.is_final(step):
            return Outcome.LATE
        if all(map(math.isnan, row)):
            return Outcome.GAP
        open_step = self.open_steps.get(step)
        if open_step is None:
            self.open_steps[step] = OpenStep(list(row), [ts] * len(row))
            self.first_step = step if self.first_step is None else min(self.first_step, step)
            return Outcome.PLACED
        return _merge(open_step, grid.time(step), ts, row)

    def is_final(self, step: int) -> bool:
        """Whether a reading for this step comes too late."""
        if self.ended or (self.sealed is not None and step < self.sealed):
            return True
        return self.last_step is not None and step > self.last_step

    def _is_over(self, bounds: Lateness, log_time_ms: int) -> bool:
        """Whether a record comes behind the deadline of its cast.

        Judged by its own log time: live, waiting for it has closed the cast; in a backfill no one waited, and
        the log clock moves with the next record only. A wild log time is turned away and moves nothing.
        """
        deadline = self.deadline(bounds)
        return self.ended or (deadline is not None and log_time_ms >= deadline)

    def end(self, event: CastEnd, grid: Grid, bounds: Lateness, log_time_ms: int) -> None:
        """Fixes the last step; what lies before it seals once log time has gone on by the lateness."""
        if self._is_over(bounds, log_time_ms):
            return
        self.seen_at = max(self.seen_at or 0, log_time_ms)
        if self.last_step is not None:
            return
        final = -1 if self.sealed is None else self.sealed - 1
        self.last_step = max(grid.step(event.ts), final, *self.open_steps)
        self.end_seen_at = log_time_ms

    def deadline(self, bounds: Lateness) -> int | None:
        """Log time at which the cast is over; None if it is already, or nothing of it was seen."""
        if self.ended or self.seen_at is None:
            return None
        if self.end_seen_at is not None:
            return self.end_seen_at + bounds.allowed_ms
        return self.seen_at + bounds.idle_ms

    def close(self) -> None:
        """Seals what is left: the end was announced and its lateness is over, or the cast is idle."""
        if self.last_step is None:
            self.last_step = max([(self.sealed or 0) - 1, *self.open_steps])
        self._seal_up_to(self.last_step + 1)
        self.ended = True

    def _seal_up_to(self, step: int) -> None:
        if self.last_step is not None:
            step = min(step, self.last_step + 1)
        self.sealed = step if self.sealed is None else max(self.sealed, step)

    def forget_sealed(self) -> None:
        """Drops the values of final steps, once they are written."""
        if self.sealed is not None:
            for step in [step for step in self.open_steps if step < self.sealed]:
                del self.open_steps[step]


def _merge(open_step: OpenStep, step_time: int, ts: int, row: Row) -> Outcome:
    """Two readings on one step: the one nearest to the step's time wins each value, then the later stamp,
    then the later record."""
    filled = changed = False
    for index, value in enumerate(row):
        if math.isnan(value):
            continue
        held = open_step.row[index]
        if math.isnan(held):
            filled = True
        else:
            changed = changed or held != value
            old = open_step.ts[index]
            if (abs(ts - step_time), -ts) > (abs(old - step_time), -old):
                continue
        open_step.row[index], open_step.ts[index] = value, ts
    if filled:
        return Outcome.PLACED
    return Outcome.SUPERSEDED if changed else Outcome.DUPLICATE


def count(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Counts outcomes by name, only those that occur."""
    return {outcome.value: outcomes.count(outcome) for outcome in set(outcomes)}
