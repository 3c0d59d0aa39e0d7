"""The rows of one cast that may still change, in columns: merged cell by cell, carried forward, cut into writes.

A cell is one sensor at one step. It remembers how far the stamp of its value lay from the step's time (its jitter),
since the value nearest to the step wins. A cell with a stamp and without a value is a stop: its sensor said that
its value is bad, and nothing is carried past it. No clock, no network.

Shape suffixes: T rows held, N rows that come, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.columns import BoolArray, FloatArray
from streamer.records import IntArray

JitterArray = npt.NDArray[np.int32]

# Jitter of a cell that nothing was said about.
ABSENT = int(np.iinfo(np.int32).min)
# Carrying forward looks at so many steps at once. Smaller: more turns. Larger: more memory for a long silence.
CARRY_STEPS = 4096


class Outcome(IntEnum):
    """What became of one row; each row has exactly one."""

    PLACED = 0
    DUPLICATE = 1
    SUPERSEDED = 2
    LATE = 3
    GAP = 4


OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
OutcomeArray = npt.NDArray[np.int8]


@dataclass(slots=True)
class Run:
    """Bytes to write at an offset of a block."""

    offset: int
    data: bytes


@dataclass(slots=True)
class Carry:
    """The last value that each sensor said, and when.

    Attributes:
        value_F: NaN where nothing may be carried.
        ts_F: Epoch ms of that value.
    """

    value_F: FloatArray
    ts_F: IntArray

    @classmethod
    def nothing(cls, num_sensors: int) -> Carry:
        """Before the first value."""
        return cls(np.full(num_sensors, np.nan, np.float32), np.zeros(num_sensors, np.int64))


@dataclass(slots=True)
class OpenRows:
    """Rows by step, ascending; only those that something was said about.

    Attributes:
        step_T: Steps on the absolute grid.
        value_TF: float32, NaN where there is no value.
        jitter_TF: Stamp less the step's time in ms, `ABSENT` where nothing was said.
        dirty_TF: Cells that are not in Redis yet.
    """

    num_sensors: int
    step_T: IntArray = field(init=False)
    value_TF: FloatArray = field(init=False)
    jitter_TF: JitterArray = field(init=False)
    dirty_TF: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        self._hold(np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.step_T)

    def _hold(self, step_T: IntArray) -> None:
        shape = (len(step_T), self.num_sensors)
        self.step_T = step_T
        self.value_TF = np.full(shape, np.nan, np.float32)
        self.jitter_TF = np.full(shape, ABSENT, np.int32)
        self.dirty_TF = np.zeros(shape, np.bool_)

    def restore(self, step_T: IntArray, value_TF: FloatArray, jitter_TF: JitterArray) -> None:
        """Takes rows over as they lie in Redis."""
        self.step_T, self.value_TF, self.jitter_TF = step_T, value_TF, jitter_TF
        self.dirty_TF = np.zeros(value_TF.shape, np.bool_)

    def last_valued(self) -> int | None:
        """The last step with a value."""
        at = np.flatnonzero(~np.isnan(self.value_TF).all(axis=1))
        return int(self.step_T[at[-1]]) if len(at) else None

    def forget_before(self, step: int) -> None:
        """Drops the rows before a step."""
        at = int(np.searchsorted(self.step_T, step))
        if at:
            self.step_T = self.step_T[at:].copy()
            self.value_TF = self.value_TF[at:].copy()
            self.jitter_TF = self.jitter_TF[at:].copy()
            self.dirty_TF = self.dirty_TF[at:].copy()

    def place(
        self, step_N: IntArray, jitter_N: JitterArray, value_NF: FloatArray, stop_NF: BoolArray | None
    ) -> OutcomeArray:
        """Merges rows in offset order.

        On each cell the value nearest to the step's time wins, then the later stamp, then the later record.

        Returns:
            outcome_N: PLACED, DUPLICATE, SUPERSEDED or GAP.
        """
        outcome_N = np.full(len(step_N), Outcome.PLACED, np.int8)
        if not len(step_N):
            return outcome_N
        valued_NF = ~np.isnan(value_NF)
        said_NF = valued_NF if stop_NF is None else valued_NF | stop_NF
        if not valued_NF.all():
            outcome_N[~valued_NF.any(axis=1)] = Outcome.GAP
            spoke_N = said_NF.any(axis=1)
            if not spoke_N.all():
                at = np.flatnonzero(spoke_N)
                if len(at):
                    stop = None if stop_NF is None else stop_NF[at]
                    outcome_N[at] = self.place(step_N[at], jitter_N[at], value_NF[at], stop)
                return outcome_N
        row_N = self._rows_of(step_N)
        clash_N = self._clashes(row_N, said_NF)
        if clash_N is None:
            self._scatter(row_N, jitter_N, value_NF, said_NF)
            return outcome_N
        free_N = ~clash_N
        self._scatter(row_N[free_N], jitter_N[free_N], value_NF[free_N], said_NF[free_N])
        for n in np.flatnonzero(clash_N).tolist():
            merged = self._merge(int(row_N[n]), int(jitter_N[n]), value_NF[n], said_NF[n])
            if outcome_N[n] != Outcome.GAP:
                outcome_N[n] = merged
        return outcome_N

    def _rows_of(self, step_N: IntArray) -> IntArray:
        """Index of the row of each step; rows that are missing are made."""
        held = self.step_T
        old = (held, self.value_TF, self.jitter_TF, self.dirty_TF)
        if (not len(held) or step_N[0] > held[-1]) and (step_N[1:] > step_N[:-1]).all():
            self._hold(np.concatenate((held, step_N)))  # all in order, as most are
            self.value_TF[: len(held)], self.jitter_TF[: len(held)], self.dirty_TF[: len(held)] = old[1:]
            return np.arange(len(held), len(self))
        step_N_new = step_N
        if len(held):
            at_N = np.searchsorted(held, step_N)
            missing_N = held[np.minimum(at_N, len(held) - 1)] != step_N
            if not missing_N.any():
                return at_N
            step_N_new = step_N[missing_N]
        self._hold(np.union1d(held, step_N_new))
        if len(held):
            at_T = np.searchsorted(self.step_T, held)
            self.value_TF[at_T], self.jitter_TF[at_T], self.dirty_TF[at_T] = old[1:]
        return np.searchsorted(self.step_T, step_N)

    def _clashes(self, row_N: IntArray, said_NF: BoolArray) -> BoolArray | None:
        """clash_N: rows with a cell that is held, or that another of these rows has a say in; None: no row."""
        held_NF = (self.jitter_TF[row_N] != ABSENT) & said_NF
        twice_T = np.bincount(row_N, minlength=len(self)) > 1
        if not twice_T.any():
            return held_NF.any(axis=1) if held_NF.any() else None
        clash_N = np.asarray(held_NF.any(axis=1))
        n = np.flatnonzero(twice_T[row_N])
        k, sensor = np.nonzero(said_NF[n])
        cell = row_N[n[k]] * self.num_sensors + sensor
        again = np.bincount(cell)[cell] > 1
        clash_N[n[k[again]]] = True
        return clash_N if clash_N.any() else None

    def _scatter(
        self, row_N: IntArray, jitter_N: JitterArray, value_NF: FloatArray, said_NF: BoolArray
    ) -> None:
        if said_NF.all():
            self.value_TF[row_N] = value_NF
            self.jitter_TF[row_N] = jitter_N[:, None]
            self.dirty_TF[row_N] = True
            return
        n, sensor = np.nonzero(said_NF)
        self.value_TF[row_N[n], sensor] = value_NF[n, sensor]
        self.jitter_TF[row_N[n], sensor] = jitter_N[n]
        self.dirty_TF[row_N[n], sensor] = True

    def _merge(self, row: int, jitter: int, value_F: FloatArray, said_F: BoolArray) -> Outcome:
        filled = changed = False
        for sensor in np.flatnonzero(said_F).tolist():
            held = int(self.jitter_TF[row, sensor])
            if held == ABSENT:
                filled = True
            else:
                old, new = self.value_TF[row, sensor], value_F[sensor]
                changed = changed or not (old == new or (np.isnan(old) and np.isnan(new)))
                if (abs(jitter), -jitter) > (abs(held), -held):
                    continue
            self.value_TF[row, sensor] = value_F[sensor]
            self.jitter_TF[row, sensor] = jitter
            self.dirty_TF[row, sensor] = True
        if filled:
            return Outcome.PLACED
        return Outcome.SUPERSEDED if changed else Outcome.DUPLICATE

    def carry_forward(
        self, carry: Carry, begin: int, end: int, *, period_ms: int, phase_ms: int, max_age_ms: int
    ) -> None:
        """Fills the silent cells of the steps from `begin` to before `end`, and moves `carry` on.

        A value is carried while the step's time lies no more than `max_age_ms` after its stamp.
        """
        while begin < end:
            stop = min(end, begin + CARRY_STEPS)
            low, high = np.searchsorted(self.step_T, [begin, stop])
            oldest = begin * period_ms + phase_ms - max_age_ms
            if low == high and not np.any(~np.isnan(carry.value_F) & (carry.ts_F >= oldest)):
                begin = end if high == len(self) else min(end, int(self.step_T[high]))
                continue
            self._carry_stretch(
                carry, begin, stop, period_ms=period_ms, phase_ms=phase_ms, max_age_ms=max_age_ms
            )
            begin = stop

    def _carry_stretch(
        self, carry: Carry, begin: int, end: int, *, period_ms: int, phase_ms: int, max_age_ms: int
    ) -> None:
        step_S = np.arange(begin, end)
        time_S = step_S * period_ms + phase_ms
        low, high = np.searchsorted(self.step_T, [begin, end])
        # Row 0 is what was carried so far, row k + 1 is step k.
        value_SF = np.full((end - begin + 1, self.num_sensors), np.nan, np.float32)
        ts_SF = np.zeros(value_SF.shape, np.int64)
        said_SF = np.zeros(value_SF.shape, np.bool_)
        value_SF[0], ts_SF[0], said_SF[0] = carry.value_F, carry.ts_F, True
        at = self.step_T[low:high] - begin
        jitter = self.jitter_TF[low:high]
        value_SF[at + 1] = self.value_TF[low:high]
        ts_SF[at + 1] = time_S[at][:, None] + jitter
        said_SF[at + 1] = jitter != ABSENT
        source_SF = np.maximum.accumulate(np.where(said_SF, np.arange(len(said_SF))[:, None], 0), axis=0)
        value_SF = np.take_along_axis(value_SF, source_SF, axis=0)
        ts_SF = np.take_along_axis(ts_SF, source_SF, axis=0)
        carry.value_F, carry.ts_F = value_SF[-1].copy(), ts_SF[-1].copy()
        fill_SF = ~said_SF[1:] & ~np.isnan(value_SF[1:]) & (time_S[:, None] - ts_SF[1:] <= max_age_ms)
        filled_S = fill_SF.any(axis=1)
        if filled_S.any():
            row_S = self._rows_of(step_S[filled_S])
            k, sensor = np.nonzero(fill_SF[filled_S])
            self.value_TF[row_S[k], sensor] = value_SF[1:][filled_S][k, sensor]
            self.dirty_TF[row_S[k], sensor] = True

    def writes(self, block_steps: int) -> Iterator[tuple[int, list[Run]]]:
        """(block, runs of bytes) of what is dirty: values as little-endian float32, then one byte a step that
        says whether the step has a value (behind the block's rows). One run alone is all of the block."""
        cell = np.flatnonzero(self.dirty_TF)
        if not len(cell):
            return
        begin, end = int(cell[0]) // self.num_sensors, int(cell[-1]) // self.num_sensors + 1
        step_N, value_NF = self.step_T[begin:end], self.value_TF[begin:end]
        if len(cell) < value_NF.size:
            # Most of a row: the whole row, in one piece with its neighbours. A tag: its 4 bytes.
            dirty_NF = self.dirty_TF[begin:end].copy()
            num_N = dirty_NF.sum(axis=1)
            dirty_NF[2 * num_N > self.num_sensors] = True
            step_N, value_NF, dirty_NF = step_N[num_N > 0], value_NF[num_N > 0], dirty_NF[num_N > 0]
            values = self._cell_runs(step_N, value_NF, dirty_NF, block_steps)
        else:
            values = _runs(step_N, value_NF, block_steps, 4 * self.num_sensors, 0)
        silent_NF = np.isnan(value_NF)
        valid_N = np.ones(len(step_N), np.uint8)
        if silent_NF.any():
            valid_N[silent_NF.all(axis=1)] = 0
        tail = 4 * self.num_sensors * block_steps
        flags = _runs(step_N, valid_N, block_steps, 1, tail)
        runs: dict[int, list[Run]] = {}
        for block, run in (*values, *flags):
            runs.setdefault(block, []).append(run)
        for block, each in runs.items():
            is_whole = len(each) == 2 and len(each[0].data) == tail and len(each[1].data) == block_steps
            yield block, [Run(0, each[0].data + each[1].data)] if is_whole else each

    def _cell_runs(
        self, step_N: IntArray, value_NF: FloatArray, dirty_NF: BoolArray, block_steps: int
    ) -> Iterator[tuple[int, Run]]:
        n, sensor = np.nonzero(dirty_NF)
        cell = step_N[n] * self.num_sensors + sensor
        return _runs(cell, value_NF[n, sensor], block_steps * self.num_sensors, 4, 0)

    def written(self) -> None:
        """Notes that Redis has it all."""
        self.dirty_TF[:] = False


def _runs(
    item_N: IntArray, data: npt.NDArray[Any], block_items: int, width: int, base: int
) -> Iterator[tuple[int, Run]]:
    """(block, run) of items of `width` bytes, ascending by number: neighbours in one block make one run."""
    block_N = item_N // block_items
    breaks = np.flatnonzero((item_N[1:] != item_N[:-1] + 1) | (block_N[1:] != block_N[:-1])) + 1
    begins = [0, *breaks.tolist()]
    packed = data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
    for begin, end in zip(begins, [*begins[1:], len(item_N)], strict=True):
        block = int(block_N[begin])
        offset = base + width * (int(item_N[begin]) - block * block_items)
        yield block, Run(offset, packed[width * begin : width * end])
