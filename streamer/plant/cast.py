"""One simulated cast: what its sensors measured, what of it arrived and when, and what inspection said.

Shape suffixes: T steps, F sensors in the order of `regimes.SENSORS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from streamer.plant.events import (
    PlantEvent,
    cast_end_event,
    cast_head,
    encode_chunk,
    encode_wide,
    label_event,
)
from streamer.plant.regimes import DECIMALS, SENSORS, DefectKind, FloatArray
from streamer.schema import CastEnd, Label

SCALE_F = np.power(10.0, np.asarray(DECIMALS))


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedCast:
    """A cast of the simulator.

    Attributes:
        index: Its number in the campaign, from 0.
        cast_id: Key of its records.
        strand: Where it is cast, from 1.
        group: The heat.
        start_ts: Time of its first step, epoch milliseconds.
        period_ms: From one step to the next.
        values_TF: What was measured; NaN where a sensor said nothing or the row was lost.
        sent_T: False where the row was lost.
        delay_ms_T: By how much the row was sent late.
        chunk_rows: Rows a message; 1 for wide readings.
        labels: The verdicts, oldest first.
        regime: The number of the regime, from 0.
        kind: What made defects, or None in a good cast.
        defects: First and last time of each harmful episode, whatever inspection said.
    """

    index: int
    cast_id: str
    strand: int
    group: str
    start_ts: int
    period_ms: int
    values_TF: FloatArray
    sent_T: npt.NDArray[np.bool_]
    delay_ms_T: npt.NDArray[np.int64]
    chunk_rows: int
    labels: tuple[Label, ...]
    regime: int
    kind: DefectKind | None
    defects: tuple[tuple[int, int], ...]

    @property
    def num_steps(self) -> int:
        """Steps from the first to the last, lost ones included."""
        return len(self.values_TF)

    @property
    def end_ts(self) -> int:
        """Time of the last step."""
        return self.start_ts + (self.num_steps - 1) * self.period_ms

    def rows(self) -> list[list[float]]:
        """T rows of F values, each with the digits that its sensor gives; NaN where there is none."""
        rounded_TF = np.round(self.values_TF.astype(np.float64) * SCALE_F) / SCALE_F
        rows: list[list[float]] = rounded_TF.tolist()
        return rows

    def readings(self) -> Iterator[PlantEvent]:
        """Its readings and its end, in the order of sending."""
        end = cast_end_event(CastEnd(self.cast_id, self.end_ts, self.group))
        events = list(self._chunks() if self.chunk_rows > 1 else self._wide())
        # The sort is stable: the row of the last step stays before the end.
        yield from sorted([*events, end], key=attrgetter("sent_at"))

    def verdicts(self) -> Iterator[PlantEvent]:
        """Its labels, in the order of sending."""
        return map(label_event, self.labels)

    def _wide(self) -> Iterator[PlantEvent]:
        head, key, rows = cast_head(self.cast_id, self.strand), self.cast_id.encode(), self.rows()
        delays = self.delay_ms_T.tolist()
        for step in np.flatnonzero(self.sent_T).tolist():
            ts = self.start_ts + step * self.period_ms
            yield PlantEvent(
                ts + delays[step], "readings", key, encode_wide(head, ts, SENSORS, rows[step]), 1
            )

    def _chunks(self) -> Iterator[PlantEvent]:
        head, key, rows = cast_head(self.cast_id, self.strand), self.cast_id.encode(), self.rows()
        delays = self.delay_ms_T.tolist()
        for first, stop in self._runs():
            ts = self.start_ts + first * self.period_ms
            sent_at = self.start_ts + (stop - 1) * self.period_ms + delays[first]
            value = encode_chunk(head, ts, self.period_ms, rows[first:stop])
            yield PlantEvent(sent_at, "readings", key, value, stop - first)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Runs of rows that fit one chunk: none lost within, all delayed alike, no more than `chunk_rows`."""
        steps_K = np.flatnonzero(self.sent_T)
        broken_K = (np.diff(steps_K) > 1) | (np.diff(self.delay_ms_T[steps_K]) != 0)
        for run_K in np.split(steps_K, np.flatnonzero(broken_K) + 1):
            for first in range(0, len(run_K), self.chunk_rows):
                part_K = run_K[first : first + self.chunk_rows]
                yield int(part_K[0]), int(part_K[-1]) + 1
