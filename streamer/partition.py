"""One assigned partition of a readings topic: its position, log clock and open casts. No I/O.

Everything here is decided in offset order, so the same log gives the same windows whatever the batches are.

Shape suffixes: M records of a batch, R readings among them, N rows of these, F sensors.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from streamer.columns import BoolArray, DecodedBatch, ReadingColumns
from streamer.errors import RecordError
from streamer.open_rows import OUTCOMES, Outcome, OutcomeArray
from streamer.outcomes import RecordKind
from streamer.records import IntArray, Partition, RecordBatch
from streamer.schema import CastEnd
from streamer.store.casts import CastState
from streamer.timeline import CastReadings, Grid, Lateness, LogClock


@dataclass(slots=True)
class Taken:
    """What became of one batch.

    Attributes:
        records: Records by kind: `applied`, `duplicate`, `late`, `control`, `redelivered`, `dead_lettered`.
        steps: Rows of applied readings by outcome.
        refused: (index of the record in its batch, why), in offset order: dead letters, the late ones among them.
    """

    records: Counter[RecordKind] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[int, RecordError]] = field(default_factory=list)


@dataclass(slots=True)
class ReadingsPartition:
    """State of one partition between two batches, and what the batches since the last write changed.

    Attributes:
        source: The partition.
        offset: Next offset to read.
        position: Offset up to which Redis knows the log; the clock has seen what lies before it.
        casts: Open casts, and those that the batch touches.
        touched: Casts that changed.
        first_seen: Casts that Redis does not hold yet, and the log time of their first record.
        num_consumed, num_dead_lettered: Records behind `position` since it was written.
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
    num_consumed: int = 0
    num_dead_lettered: int = 0
    _deadlines: list[tuple[int, str]] = field(default_factory=list)

    def adopt(self, states: Mapping[str, CastState]) -> None:
        """Takes loaded casts in."""
        for cast_id, state in states.items():
            self.casts[cast_id] = state
            if self.may_move(state):
                self._schedule(state)

    def may_move(self, state: CastState) -> bool:
        """Whether a cast is open and ours; a cast belongs to the partition of its first record."""
        return not state.timeline.ended and state.source in (None, str(self.source))

    def unknown_casts(self, decoded: DecodedBatch) -> list[str]:
        """Casts that a batch names and that are to be loaded before it is taken."""
        named = dict.fromkeys(decoded.readings.cast_ids)
        named |= dict.fromkeys(event.cast_id for _, event in decoded.controls)
        return [cast_id for cast_id in named if cast_id not in self.casts]

    def take(self, batch: RecordBatch, decoded: DecodedBatch) -> Taken:
        """Applies one batch whose casts are loaded, and ends the casts whose time is over."""
        taken = Taken(refused=list(decoded.refused))
        position = -1 if self.position is None else self.position
        now_M = self.clock.observe(decoded.log_time_M, batch.offset_M < position)
        columns = _Columns(decoded.readings, batch, decoded.log_time_M, now_M, self.grid)
        refused_R = self._check_stamps(columns, taken)
        controls: dict[str, list[tuple[int, CastEnd]]] = {}
        for index, event in decoded.controls:
            if self._stamp_is_sane(index, event, int(decoded.log_time_M[index]), taken):
                controls.setdefault(event.cast_id, []).append((index, event))
        for cast_id, strand, readings in columns.by_cast(~refused_R):
            self._take_cast(
                cast_id, strand, readings, controls.pop(cast_id, []), columns=columns, taken=taken
            )
        nothing = np.empty(0, np.int64)
        for cast_id, events in controls.items():
            self._take_cast(cast_id, None, nothing, events, columns=columns, taken=taken)
        self.close_due()
        taken.refused.sort(key=lambda each: each[0])
        new_M = batch.offset_M >= position
        dead = [new_M[index] for index, error in taken.refused if not error.is_late]
        taken.records["dead_lettered"] += len(dead)
        self.num_consumed += int(new_M.sum())
        self.num_dead_lettered += int(sum(dead))
        self.offset = batch.next_offset
        return taken

    def _check_stamps(self, columns: _Columns, taken: Taken) -> BoolArray:
        """Refuses stamps that cannot be meant, before anything is placed."""
        log_time_R, bounds = columns.log_time_R, self.bounds
        future_R = columns.newest_R > log_time_R + bounds.max_future_ms
        past_R = columns.ts_R < log_time_R - bounds.max_past_ms
        refused_R = future_R | past_R
        for r in np.flatnonzero(refused_R).tolist():
            ts, log_time = int((columns.newest_R if future_R[r] else columns.ts_R)[r]), int(log_time_R[r])
            error = _future(ts, log_time) if future_R[r] else _past(ts, log_time)
            taken.refused.append((int(columns.record_R[r]), error))
        return np.asarray(refused_R)

    def _stamp_is_sane(self, index: int, event: CastEnd, log_time: int, taken: Taken) -> bool:
        if event.ts > log_time + self.bounds.max_future_ms:
            taken.refused.append((index, _future(event.ts, log_time)))
        elif event.ts < log_time - self.bounds.max_past_ms:
            taken.refused.append((index, _past(event.ts, log_time)))
        else:
            return True
        return False

    def _take_cast(
        self,
        cast_id: str,
        strand: int | None,
        reading_R: IntArray,
        events: list[tuple[int, CastEnd]],
        *,
        columns: _Columns,
        taken: Taken,
    ) -> None:
        """Applies what a batch says of one cast: readings (indices into the columns) and events."""
        state = self.casts[cast_id]
        record_R = columns.record_R[reading_R]
        if state.source not in (None, str(self.source)):
            error = RecordError(
                "second_partition",
                f"cast {cast_id} comes from {state.source}; send it with its cast_id as key",
                stage="place",
            )
            indices = [*record_R.tolist(), *(index for index, _ in events)]
            taken.refused += [(index, error) for index in indices]
            return
        judged = self._judged_before(state)
        if _first_offset(columns, record_R, events) < judged:
            new = columns.offset_M[record_R] >= judged
            taken.records["redelivered"] += int((~new).sum())
            reading_R, record_R = reading_R[new], record_R[new]
            num_events = len(events)
            events = [each for each in events if columns.offset_M[each[0]] >= judged]
            taken.records["redelivered"] += num_events - len(events)
        if not len(reading_R) and not events:
            return
        last = max([*record_R[-1:].tolist(), *(index for index, _ in events)])
        first = min([*record_R[:1].tolist(), *(index for index, _ in events)])
        fresh = state.timeline.seen_at is None
        state.source = str(self.source)
        state.next_applied = int(columns.offset_M[last]) + 1
        if state.strand is None:
            state.strand = strand
        self.touched[cast_id] = state
        if state.version is None:
            self.first_seen.setdefault(cast_id, int(columns.log_time_M[first]))
        begin = 0
        for index, event in events:
            end = int(np.searchsorted(record_R, index))
            self._take_readings(state, reading_R[begin:end], columns, taken)
            self._end(state, index, event, columns)
            taken.records["control"] += 1
            begin = end
        self._take_readings(state, reading_R[begin:], columns, taken)
        if fresh or events:
            self._schedule(state)

    def _judged_before(self, state: CastState) -> int:
        """The offset before which every record of a cast has been judged.

        A position moves behind its casts. What lies before it and is of a cast that Redis does not know is of one
        that retention has dropped.
        """
        if state.applied is None and state.version is None and self.position is not None:
            return self.position
        return -1 if state.applied is None else state.applied

    def _end(self, state: CastState, index: int, event: CastEnd, columns: _Columns) -> None:
        if event.group is not None and state.group is None:
            state.group = event.group
        log_time, now = int(columns.log_time_M[index]), int(columns.now_M[index])
        state.timeline.end(event, self.grid, self.bounds, log_time, now)
        state.counts["records:control"] += 1

    def _take_readings(self, state: CastState, reading_R: IntArray, columns: _Columns, taken: Taken) -> None:
        if not len(reading_R):
            return
        readings = columns.pick(reading_R)
        outcome_N = state.timeline.take(readings, self.grid, self.bounds)
        self._count(state, readings, columns.record_R[reading_R], outcome_N, taken)

    def _count(
        self,
        state: CastState,
        readings: CastReadings,
        record_R: IntArray,
        outcome_N: OutcomeArray,
        taken: Taken,
    ) -> None:
        """A reading is late if all of its rows are, a duplicate if it brought nothing but such, else applied."""
        num_readings = len(readings)

        def has(*outcomes: Outcome) -> BoolArray:
            rows = np.isin(outcome_N, outcomes)
            return np.bincount(readings.reading_N[rows], minlength=num_readings) > 0

        if (outcome_N == Outcome.PLACED).all():
            applied_R, late_R, partly_R = None, None, None
            num_late = num_duplicate = 0
        else:
            applied_R = has(Outcome.PLACED, Outcome.SUPERSEDED, Outcome.GAP)
            duplicate_R = ~applied_R & has(Outcome.DUPLICATE)
            some_late_R = has(Outcome.LATE)
            late_R = ~applied_R & ~duplicate_R
            partly_R = some_late_R & ~late_R
            num_late, num_duplicate = int(late_R.sum()), int(duplicate_R.sum())
        num_applied = num_readings - num_late - num_duplicate
        numbers: dict[RecordKind, int] = {
            "applied": num_applied,
            "duplicate": num_duplicate,
            "late": num_late,
        }
        for kind, number in numbers.items():
            if number:
                state.counts[f"records:{kind}"] += number
                taken.records[kind] += number
        counted_N = outcome_N if applied_R is None else outcome_N[applied_R[readings.reading_N]]
        state.counts["steps:carried"] += len(counted_N)
        by_outcome = np.bincount(counted_N, minlength=len(OUTCOMES))
        for name, number in zip(OUTCOMES, by_outcome.tolist(), strict=True):
            if number:
                state.counts[f"steps:{name}"] += number
                taken.steps[name] += number
        if late_R is not None and late_R.any():
            late = RecordError("late", f"cast {state.cast_id}: its steps were final already", stage="place")
            taken.refused += [(index, late) for index in record_R[late_R].tolist()]
        if partly_R is not None and partly_R.any():
            message = f"cast {state.cast_id}: some of its steps were final already, the others were taken"
            partly = RecordError("partly_late", message, stage="place")
            taken.refused += [(index, partly) for index in record_R[partly_R].tolist()]

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

    def unlisted(self) -> list[str]:
        """Touched casts that may not stand among the open ones: new ones, and those that were over before."""
        return [
            cast_id
            for cast_id, state in self.touched.items()
            if state.version is None or state.timeline.ended
        ]

    def settle(self) -> None:
        """Makes the rows of touched casts ready to be written."""
        if self.bounds.carry_ms is not None:
            for state in self.touched.values():
                state.timeline.settle(self.grid, self.bounds.carry_ms)

    def position_written(self, offset: int) -> None:
        """Notes that Redis knows the log up to here, and how many records lay before."""
        if self.position is None or offset > self.position:
            self.position, self.num_consumed, self.num_dead_lettered = offset, 0, 0

    def batch_done(self) -> None:
        """Forgets what is written, casts that are over, of other partitions, or of refused records only."""
        for cast_id, state in list(self.casts.items()):
            if state.version is None or not self.may_move(state):
                del self.casts[cast_id]
        self.touched.clear()
        self.first_seen.clear()


def _first_offset(columns: _Columns, record_R: IntArray, events: list[tuple[int, CastEnd]]) -> int:
    return int(columns.offset_M[min([*record_R[:1].tolist(), *(index for index, _ in events)])])


class _Columns:
    """The readings of one batch, with what follows for each from the grid and the log."""

    def __init__(
        self,
        readings: ReadingColumns,
        batch: RecordBatch,
        log_time_M: IntArray,
        now_M: IntArray,
        grid: Grid,
    ) -> None:
        self.offset_M, self.log_time_M, self.now_M = batch.offset_M, log_time_M, now_M
        self.record_R, self.ts_R = readings.record_R, readings.ts_R
        self.log_time_R, self.now_R = log_time_M[self.record_R], now_M[self.record_R]
        self._readings = readings
        num_R = readings.num_rows_R
        self._begin_R = np.concatenate(([0], np.cumsum(num_R)))
        self.newest_R = self.ts_R + (num_R - 1) * readings.period_R
        self._single = len(readings.values_NF) == len(self.record_R)
        if self._single:
            self._reading_N = np.arange(len(self.record_R))
            ts_N = self.ts_R
        else:
            self._reading_N = np.repeat(np.arange(len(num_R)), num_R)
            nth_N = np.arange(len(self._reading_N)) - self._begin_R[self._reading_N]
            ts_N = self.ts_R[self._reading_N] + nth_N * readings.period_R[self._reading_N]
        self._step_N = grid.step(ts_N)
        self._jitter_N = (ts_N - grid.time(self._step_N)).astype(np.int32)

    def by_cast(self, usable_R: BoolArray) -> list[tuple[str, int | None, IntArray]]:
        """(cast, strand, its usable readings in offset order) for each cast that has any."""
        cast_R = self._readings.cast_R
        if len(self._readings.cast_ids) < 2**15:
            cast_R = cast_R.astype(np.int16)  # sorted by radix, in linear time
        order = np.argsort(cast_R, kind="stable")
        if not usable_R.all():
            order = order[usable_R[order]]
        num_C = np.bincount(cast_R[order], minlength=len(self._readings.cast_ids))
        end_C = np.cumsum(num_C)
        casts = zip(
            self._readings.cast_ids,
            self._readings.strands,
            (end_C - num_C).tolist(),
            end_C.tolist(),
            strict=True,
        )
        return [(cast_id, strand, order[begin:end]) for cast_id, strand, begin, end in casts if end > begin]

    def pick(self, reading_R: IntArray) -> CastReadings:
        """Some readings of one cast."""
        if self._single:
            row_N, reading_N = reading_R, np.arange(len(reading_R))
        else:
            num_R = self._readings.num_rows_R[reading_R]
            reading_N = np.repeat(np.arange(len(reading_R)), num_R)
            first = np.cumsum(num_R) - num_R
            row_N = self._begin_R[reading_R][reading_N] + np.arange(len(reading_N)) - first[reading_N]
        stop_NF = self._readings.stop_NF
        return CastReadings(
            log_time_R=self.log_time_R[reading_R],
            now_R=self.now_R[reading_R],
            ts_R=self.ts_R[reading_R],
            first_step_R=self._step_N[self._begin_R[reading_R]],
            newest_R=self.newest_R[reading_R],
            reading_N=reading_N,
            step_N=self._step_N[row_N],
            jitter_N=self._jitter_N[row_N],
            value_NF=self._readings.values_NF[row_N],
            stop_NF=None if stop_NF is None else stop_NF[row_N],
        )


def _future(ts: int, log_time: int) -> RecordError:
    ahead = (ts - log_time) / 1000
    return RecordError("future_stamp", f"ts {ts} lies {ahead:.0f} s after its log time", stage="place")


def _past(ts: int, log_time: int) -> RecordError:
    behind = (log_time - ts) / 1000
    return RecordError("past_stamp", f"ts {ts} lies {behind:.0f} s before its log time", stage="place")
