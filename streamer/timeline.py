"""Event time: which step a reading belongs to, and when a step is final. No clock, no network, no globals.

    event time  ...|--- sealed: final ---|--- open: within the allowed lateness ---|
                   first_step            sealed = step(newest - lateness)          newest

Steps lie on an absolute grid, so no write needs to know where its cast begins. Readings come in columns, many at
once; what becomes of each is what it would be if they came one by one.

Shape suffixes: R readings of one cast, N their rows, F sensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import overload

import numpy as np

from streamer.columns import NO_TIME, BoolArray, FloatArray
from streamer.open_rows import Carry, JitterArray, OpenRows, Outcome, OutcomeArray
from streamer.records import IntArray
from streamer.schema import CastEnd

# Before every time and every step.
NEVER = -(2**62)


@dataclass(frozen=True, slots=True)
class Grid:
    """The absolute grid of steps: step = round((ts - phase) / period)."""

    period_ms: int
    phase_ms: int = 0

    @overload
    def step(self, ts: int) -> int: ...
    @overload
    def step(self, ts: IntArray) -> IntArray: ...
    def step(self, ts: int | IntArray) -> int | IntArray:
        """The nearest step; a time halfway between two belongs to the later one."""
        return (2 * (ts - self.phase_ms) + self.period_ms) // (2 * self.period_ms)

    @overload
    def time(self, step: int) -> int: ...
    @overload
    def time(self, step: IntArray) -> IntArray: ...
    def time(self, step: int | IntArray) -> int | IntArray:
        """Epoch ms of a step."""
        return step * self.period_ms + self.phase_ms


@dataclass(frozen=True, slots=True)
class Lateness:
    """Bounds of event time against the log, in ms.

    Attributes:
        carry_ms: How old a value may be that is carried over silent steps; None: nothing is carried.
    """

    allowed_ms: int
    idle_ms: int
    max_future_ms: int
    max_past_ms: int
    carry_ms: int | None = None


@dataclass(slots=True)
class LogClock:
    """Log time of a partition: the largest time that two records have reached.

    One wild stamp moves nothing. While the reader waits at the partition's end, time goes on by the seconds
    waited.
    """

    highest: int | None = None
    second: int | None = None
    waited_ms: int = 0

    def observe(self, log_time_M: IntArray, seen_M: BoolArray) -> IntArray:
        """Takes the log times of consecutive records into account.

        Args:
            log_time_M: Epoch ms; `NO_TIME` moves nothing.
            seen_M: Records that were taken into account before.

        Returns:
            now_M: Log time once each record had come, `NEVER` before the second one.
        """
        before = self.now()
        counts_M = (log_time_M != NO_TIME) & ~seen_M
        if not counts_M.any():
            return np.full(len(log_time_M), NEVER if before is None else before)
        time_C = log_time_M[counts_M]
        first = NEVER if self.highest is None else self.highest
        highest = np.maximum.accumulate(np.concatenate(([first], time_C)))
        first = NEVER if self.second is None else self.second
        second = np.maximum.accumulate(np.concatenate(([first], np.minimum(time_C, highest[:-1]))))
        self.highest = int(highest[-1])
        self.second = None if second[-1] == NEVER else int(second[-1])
        self.waited_ms = 0
        second[0] = NEVER if before is None else before
        return np.asarray(second[np.cumsum(counts_M)], dtype=np.int64)

    def now(self) -> int | None:
        """Log time in epoch ms, None before the second record."""
        return None if self.second is None else self.second + self.waited_ms


@dataclass(frozen=True, slots=True)
class CastReadings:
    """Readings of one cast, in offset order.

    Attributes:
        log_time_R: When each entered the log, epoch ms.
        now_R: Log time of the partition once it had come.
        ts_R, first_step_R: Time of its first row in epoch ms, and its step.
        newest_R: Time of its last row, epoch ms.
        reading_N: The reading of each row, ascending.
        step_N, jitter_N: Step of each row, and its stamp less the step's time in ms.
        value_NF: float32, NaN where a sensor said nothing.
        stop_NF: Where a sensor said that its value is bad.
    """

    log_time_R: IntArray
    now_R: IntArray
    ts_R: IntArray
    first_step_R: IntArray
    newest_R: IntArray
    reading_N: IntArray
    step_N: IntArray
    jitter_N: JitterArray
    value_NF: FloatArray
    stop_NF: BoolArray | None

    def __len__(self) -> int:
        return len(self.log_time_R)

    def between(self, begin: int, end: int) -> CastReadings:
        """The readings from `begin` to before `end`."""
        if begin == 0 and end == len(self):
            return self
        low, high = np.searchsorted(self.reading_N, [begin, end])
        return CastReadings(
            self.log_time_R[begin:end],
            self.now_R[begin:end],
            self.ts_R[begin:end],
            self.first_step_R[begin:end],
            self.newest_R[begin:end],
            self.reading_N[low:high] - begin,
            self.step_N[low:high],
            self.jitter_N[low:high],
            self.value_NF[low:high],
            None if self.stop_NF is None else self.stop_NF[low:high],
        )


@dataclass(slots=True)
class CastTimeline:
    """Event time of one cast: plain state, moved on only by the methods here.

    Attributes:
        rows: Rows from `sealed` on.
        first_step: Smallest step for which a value came; fixed once it is sealed.
        newest_ts: Newest event time of any reading.
        sealed: First step that is not final yet; the watermark may stand before the first step.
        last_step: Set by the end of the cast.
        ended: Every step is final.
        seen_at: Log time of the newest record of this cast.
        end_seen_at: Log time of its end event.
        carry: Last values, where silent steps are filled with them.
        settled: Steps before it have been filled.
    """

    rows: OpenRows
    first_step: int | None = None
    newest_ts: int | None = None
    sealed: int | None = None
    last_step: int | None = None
    ended: bool = False
    seen_at: int | None = None
    end_seen_at: int | None = None
    carry: Carry | None = None
    settled: int | None = field(default=None)

    def take(self, readings: CastReadings, grid: Grid, bounds: Lateness) -> OutcomeArray:
        """Places the rows of these readings, and moves the watermark on after each reading.

        Returns:
            outcome_N of each row.
        """
        outcome_N = np.full(len(readings.step_N), Outcome.LATE, np.int8)
        begin, num_readings = 0, len(readings)
        while begin < num_readings and not self.ended:
            end, deadline = self._first_over(readings, begin, bounds)
            if end > begin:
                low, high = np.searchsorted(readings.reading_N, [begin, end])
                outcome_N[low:high] = self._place(readings.between(begin, end), grid, bounds)
            if end < num_readings and readings.now_R[end] >= deadline:
                self.close()
            begin = end + 1  # a wild log time is turned away and moves nothing
        return outcome_N

    def _first_over(self, readings: CastReadings, begin: int, bounds: Lateness) -> tuple[int, int]:
        """The first reading behind the deadline of its cast, and that deadline.

        Judged by its own log time, too: live, waiting for it has closed the cast; in a backfill no one waited,
        and the log clock moves with the next record only.
        """
        log_time_R, now_R = readings.log_time_R[begin:], readings.now_R[begin:]
        deadline = self.deadline(bounds)
        if deadline is not None and max(int(log_time_R.max()), int(now_R.max())) < deadline:
            return len(readings), 0  # it only moves on
        if self.end_seen_at is not None:
            deadline_R = np.full(len(log_time_R), self.end_seen_at + bounds.allowed_ms)
        else:
            first = NEVER if self.seen_at is None else self.seen_at
            seen_R = np.maximum.accumulate(np.concatenate(([first], log_time_R[:-1])))
            deadline_R = np.where(seen_R == NEVER, -NEVER, seen_R + bounds.idle_ms)
        over = np.flatnonzero(np.maximum(log_time_R, now_R) >= deadline_R)
        if not len(over):
            return len(readings), 0
        return begin + int(over[0]), int(deadline_R[over[0]])

    def _place(self, readings: CastReadings, grid: Grid, bounds: Lateness) -> OutcomeArray:
        newest_R = readings.newest_R
        if self.last_step is not None:  # a reading behind the announced end is late and moves nothing
            newest_R = np.where(readings.first_step_R <= self.last_step, newest_R, NEVER)
        newest = np.maximum.accumulate(
            np.concatenate(([NEVER if self.newest_ts is None else self.newest_ts], newest_R))
        )
        self.seen_at = max(self.seen_at or 0, int(readings.log_time_R.max()))
        late_N = self._late(readings, newest[:-1], grid, bounds)
        if newest[-1] != NEVER:
            self.newest_ts = int(newest[-1])
            self._seal_up_to(grid.step(self.newest_ts - bounds.allowed_ms))
        return self._merge(readings, late_N)

    def _late(
        self, readings: CastReadings, newest_R: IntArray, grid: Grid, bounds: Lateness
    ) -> BoolArray | None:
        """late_N: rows whose step is final, None if there is none.

        Args:
            newest_R: Newest event time before each reading, `NEVER` before the first.
        """
        sealed = NEVER if self.sealed is None else self.sealed
        in_time = (newest_R - readings.ts_R).max() <= bounds.allowed_ms
        if in_time and self.last_step is None and readings.step_N.min() >= sealed:
            return None
        edge_R = np.where(newest_R == NEVER, NEVER, grid.step(newest_R - bounds.allowed_ms))
        late_N = readings.step_N < np.maximum(edge_R, sealed)[readings.reading_N]
        if self.last_step is not None:
            late_N |= readings.step_N > self.last_step
        return late_N if late_N.any() else None

    def _seal_up_to(self, step: int) -> None:
        if self.last_step is not None:
            step = min(step, self.last_step + 1)
        self.sealed = step if self.sealed is None else max(self.sealed, step)

    def _merge(self, readings: CastReadings, late_N: BoolArray | None) -> OutcomeArray:
        step_N, jitter_N = readings.step_N, readings.jitter_N
        value_NF, stop_NF = readings.value_NF, readings.stop_NF
        if late_N is not None:
            on_time_N = ~late_N
            step_N, jitter_N, value_NF = step_N[on_time_N], jitter_N[on_time_N], value_NF[on_time_N]
            stop_NF = None if stop_NF is None else stop_NF[on_time_N]
        placed_N = self.rows.place(step_N, jitter_N, value_NF, stop_NF)
        valued = step_N[placed_N != Outcome.GAP]
        if len(valued):
            first = int(valued.min())
            self.first_step = first if self.first_step is None else min(self.first_step, first)
        if late_N is None:
            return placed_N
        outcome_N = np.full(len(late_N), Outcome.LATE, np.int8)
        outcome_N[on_time_N] = placed_N
        return outcome_N

    def end(self, event: CastEnd, grid: Grid, bounds: Lateness, log_time_ms: int, now_ms: int) -> None:
        """Fixes the last step; what lies before it seals once log time has gone on by the lateness.

        Args:
            log_time_ms: When the event entered the log.
            now_ms: Log time of the partition once it had come.
        """
        deadline = self.deadline(bounds)
        if deadline is not None and now_ms >= deadline:
            self.close()
        if self.ended or (deadline is not None and log_time_ms >= deadline):
            return
        self.seen_at = max(self.seen_at or 0, log_time_ms)
        if self.last_step is not None:
            return
        self.last_step = max(grid.step(event.ts), self._last_known())
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
            self.last_step = self._last_known()
        self._seal_up_to(self.last_step + 1)
        self.ended = True

    def _last_known(self) -> int:
        """The last step with a value, or else the last final one."""
        final = -1 if self.sealed is None else self.sealed - 1
        valued = self.rows.last_valued()
        return final if valued is None else max(final, valued)

    def settle(self, grid: Grid, carry_ms: int) -> None:
        """Carries values over the silent steps that became final; to be called before what changed is written."""
        if self.sealed is None or self.first_step is None:
            return
        if self.carry is None:
            self.carry = Carry.nothing(self.rows.num_sensors)
        begin = max(self.first_step, NEVER if self.settled is None else self.settled)
        self.rows.carry_forward(
            self.carry,
            begin,
            self.sealed,
            period_ms=grid.period_ms,
            phase_ms=grid.phase_ms,
            max_age_ms=carry_ms,
        )
        self.settled = self.sealed

    def written(self) -> None:
        """Drops the values of final steps, now that they are written."""
        self.rows.written()
        if self.sealed is not None:
            self.rows.forget_before(self.sealed)
