"""Event time of one partition the slow and obvious way: record by record, row by row, value by value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from columns import Entry, Reading

from streamer.schema import CastEnd
from streamer.timeline import Grid, Lateness


@dataclass
class Cell:
    value: float  # NaN: its sensor says that it is bad
    ts: int


@dataclass
class Cast:
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)  # by step and sensor
    first: int | None = None  # smallest step for which a reading brought a value, won or not
    newest: int | None = None
    sealed: int | None = None
    last: int | None = None
    seen: int | None = None
    end_seen: int | None = None
    ended: bool = False

    def valued(self) -> list[int]:
        return [step for (step, _), cell in self.cells.items() if not math.isnan(cell.value)]

    def deadline(self, bounds: Lateness) -> float:
        if self.ended or self.seen is None:
            return math.inf
        return self.seen + bounds.idle_ms if self.end_seen is None else self.end_seen + bounds.allowed_ms

    def close(self) -> None:
        if self.last is None:
            self.last = max([-1 if self.sealed is None else self.sealed - 1, *self.valued()])
        self.sealed = max(self.last + 1, self.last if self.sealed is None else self.sealed)
        self.ended = True

    def final(self, step: int) -> bool:
        sealed = self.sealed is not None and step < self.sealed
        return self.ended or sealed or (self.last is not None and step > self.last)


@dataclass
class OneByOne:
    """Plays a log; `casts` and `counts` (the ledger of each cast) tell what became of it."""

    grid: Grid
    bounds: Lateness
    casts: dict[str, Cast] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    log_times: list[int] = field(default_factory=list)

    def play(self, entries: Sequence[Entry]) -> None:
        for message, log_time in entries:
            self.log_times.append(log_time)
            self.end_what_is_over()
            newest = message.ts
            if isinstance(message, Reading):
                newest += (len(message.rows) - 1) * message.period_ms
            too_new = newest > log_time + self.bounds.max_future_ms
            if too_new or message.ts < log_time - self.bounds.max_past_ms:
                continue
            cast = self.casts.setdefault(message.cast_id, Cast())
            over = cast.ended or log_time >= cast.deadline(self.bounds)
            counts = self.counts.setdefault(message.cast_id, Counter())
            if isinstance(message, Reading):
                self.count(counts, self.read(cast, message, log_time, over))
                continue
            counts["records:control"] += 1
            if not over:
                self.end(cast, message, log_time)
        self.end_what_is_over()

    def count(self, counts: Counter[str], outcomes: Sequence[str]) -> None:
        found = set(outcomes)
        if found & {"placed", "superseded", "gap"}:
            counts["records:applied"] += 1
            counts["steps:carried"] += len(outcomes)
            counts.update(f"steps:{outcome}" for outcome in outcomes)
        else:
            counts["records:duplicate" if "duplicate" in found else "records:late"] += 1

    def end_what_is_over(self) -> None:
        if len(self.log_times) < 2:
            return
        now = sorted(self.log_times)[-2]
        for cast in self.casts.values():
            if now >= cast.deadline(self.bounds):
                cast.close()

    def end(self, cast: Cast, event: CastEnd, log_time: int) -> None:
        cast.seen = max(cast.seen or 0, log_time)
        if cast.last is None:
            sealed = -1 if cast.sealed is None else cast.sealed - 1
            cast.last = max([self.grid.step(event.ts), sealed, *cast.valued()])
            cast.end_seen = log_time

    def read(self, cast: Cast, reading: Reading, log_time: int, over: bool) -> list[str]:
        if over:
            return ["late"] * len(reading.rows)
        outcomes = []
        for k, row in enumerate(reading.rows):
            ts = reading.ts + k * reading.period_ms
            outcomes.append(self.place(cast, ts, row))
        cast.seen = max(cast.seen or 0, log_time)
        if set(outcomes) != {"late"}:
            newest = reading.ts + (len(reading.rows) - 1) * reading.period_ms
            cast.newest = newest if cast.newest is None else max(cast.newest, newest)
            edge = self.grid.step(cast.newest - self.bounds.allowed_ms)
            if cast.last is not None:
                edge = min(edge, cast.last + 1)
            cast.sealed = edge if cast.sealed is None else max(cast.sealed, edge)
        return outcomes

    def place(self, cast: Cast, ts: int, row: Sequence[float]) -> str:
        step = self.grid.step(ts)
        if cast.final(step):
            return "late"
        filled = changed = False
        for sensor, value in enumerate(row):
            if math.isnan(value):
                continue
            cell = Cell(math.nan if math.isinf(value) else value, ts)
            held = cast.cells.get((step, sensor))
            if held is None:
                filled = True
            else:
                both_bad = math.isnan(held.value) and math.isnan(cell.value)
                changed = changed or not (held.value == cell.value or both_bad)
                time = self.grid.time(step)
                if (abs(ts - time), -ts) > (abs(held.ts - time), -held.ts):
                    continue
            cast.cells[step, sensor] = cell
        if not any(math.isfinite(value) for value in row):
            return "gap"
        cast.first = step if cast.first is None else min(cast.first, step)
        if filled:
            return "placed"
        return "superseded" if changed else "duplicate"

    def carried(self, cast: Cast, carry_ms: int) -> dict[tuple[int, int], float]:
        """The final values, the silent steps among them filled."""
        values = {key: cell.value for key, cell in cast.cells.items() if not math.isnan(cell.value)}
        if cast.sealed is None or cast.first is None:
            return values
        first, sensors = cast.first, {sensor for _, sensor in cast.cells}
        for sensor in sensors:
            last: Cell | None = None
            for step in range(first, cast.sealed):
                cell = cast.cells.get((step, sensor))
                if cell is not None:
                    last = cell
                elif last is not None and self.grid.time(step) - last.ts <= carry_ms:
                    values[step, sensor] = last.value
        return {key: value for key, value in values.items() if not math.isnan(value)}
