"""From values as they were sent to the namespace's: units, float32, physical range.

All formats pass through here, so the same value ends the same whatever carried it.
Shape suffixes: R readings, N rows, F sensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from streamer.codec.parts import Part
from streamer.columns import BoolArray, FloatArray, ReadingColumns
from streamer.config import SensorConfig
from streamer.errors import RecordError
from streamer.records import IntArray
from streamer.sensors import quoted
from streamer.sources import SourceConfig

Refused = list[tuple[int, RecordError]]


class Finisher:
    """Finishes the readings of one source."""

    def __init__(self, sensors: Sequence[SensorConfig], source: SourceConfig) -> None:
        self._sensors = tuple(sensor.name for sensor in sensors)
        configs = {i: source.sensors[s.name] for i, s in enumerate(sensors) if s.name in source.sensors}
        conversions = {i: config.conversion(sensors[i].unit) for i, config in configs.items()}
        self._conversions = {i: c for i, c in conversions.items() if not c.is_identity}
        self._ranges = {
            i: (
                np.float32(-np.inf if config.min is None else config.min),
                np.float32(np.inf if config.max is None else config.max),
            )
            for i, config in configs.items()
            if config.min is not None or config.max is not None
        }

    def finish(self, part: Part) -> tuple[ReadingColumns, Part, Counter[str], Refused]:
        """The columns, the part they stem from, what was out of range, and the records refused here.

        A value that does not fit into float32 refuses its record.
        """
        values_NF = self._convert(part)
        refused: Refused = []
        if np.isinf(values_NF).any():
            keep_R, refused = self._refuse(part, values_NF)
            values_NF = values_NF[np.repeat(keep_R, part.num_rows_R)]
            part = part.take(np.flatnonzero(keep_R))
        stop_NF = self._stops(part, values_NF)
        out_of_range = self._cut(part, values_NF, stop_NF)
        # Payloads of NaN would tell equal rows apart.
        values_NF[np.isnan(values_NF)] = np.nan
        return _columns(part, values_NF, stop_NF), part, out_of_range, refused

    def _convert(self, part: Part) -> FloatArray:
        values_NF = part.values_NF
        with np.errstate(over="ignore", invalid="ignore"):
            if self._conversions:
                values_NF = values_NF.astype(np.float64)
                for column, (scale, offset) in self._conversions.items():
                    values_NF[:, column] = values_NF[:, column] * scale + offset
            finished_NF = values_NF.astype(np.float32)
            # -0.0 becomes 0.0: equal readings that differ in their bits would make the rows depend on their order.
            finished_NF += np.float32(0)
            return finished_NF

    def _refuse(self, part: Part, values_NF: FloatArray) -> tuple[BoolArray, Refused]:
        wrong_N, wrong_F = np.nonzero(np.isinf(values_NF))
        reading_N = np.repeat(np.arange(len(part)), part.num_rows_R)
        first: dict[int, tuple[int, int]] = {}
        for row, column in zip(wrong_N.tolist(), wrong_F.tolist(), strict=True):
            first.setdefault(int(reading_N[row]), (row, column))
        keep_R = np.ones(len(part), dtype=np.bool_)
        keep_R[list(first)] = False
        return keep_R, [
            (int(part.record_R[reading]), self._too_large(float(part.values_NF[row, column]), column))
            for reading, (row, column) in first.items()
        ]

    def _too_large(self, value: float, column: int) -> RecordError:
        return RecordError(
            "bad_value", f"{quoted(self._sensors[column])} is {value}, which does not fit into float32"
        )

    def _stops(self, part: Part, values_NF: FloatArray) -> BoolArray | None:
        if part.tag_R is None or part.bad_R is None or not (part.tag_R >= 0).any():
            return None
        stop_NF = np.zeros(values_NF.shape, dtype=np.bool_)
        bad_R = np.flatnonzero(part.bad_R)
        # A tag has one row.
        row_R = np.cumsum(part.num_rows_R) - 1
        stop_NF[row_R[bad_R], part.tag_R[bad_R]] = True
        return stop_NF

    def _cut(self, part: Part, values_NF: FloatArray, stop_NF: BoolArray | None) -> Counter[str]:
        out_of_range: Counter[str] = Counter()
        tag_N: IntArray | None = None
        for column, (low, high) in self._ranges.items():
            values_N = values_NF[:, column]
            out_N = (values_N < low) | (values_N > high)
            if num := int(np.count_nonzero(out_N)):
                out_of_range[self._sensors[column]] = num
                values_N[out_N] = np.nan
                if stop_NF is not None and part.tag_R is not None:
                    tag_N = np.repeat(part.tag_R, part.num_rows_R) if tag_N is None else tag_N
                    stop_NF[out_N & (tag_N == column), column] = True
        return out_of_range


def _columns(part: Part, values_NF: FloatArray, stop_NF: BoolArray | None) -> ReadingColumns:
    distinct = dict.fromkeys(part.cast_ids) if part.distinct is None else part.distinct
    codes = {cast_id: code for code, cast_id in enumerate(distinct)}
    cast_R = np.fromiter(map(codes.__getitem__, part.cast_ids), np.int64, len(part))
    return ReadingColumns(
        record_R=part.record_R,
        cast_R=cast_R,
        ts_R=part.ts_R,
        period_R=part.period_R,
        num_rows_R=part.num_rows_R,
        values_NF=values_NF,
        stop_NF=stop_NF if stop_NF is not None and stop_NF.any() else None,
        cast_ids=list(codes),
        strands=_first_strands(part, cast_R, len(codes)),
    )


def _first_strands(part: Part, cast_R: IntArray, num_casts: int) -> list[int | None]:
    """The first strand named for each cast."""
    strands: list[int | None] = [None] * num_casts
    if None in part.strands:
        for cast, strand in zip(cast_R.tolist(), part.strands, strict=True):
            if strands[cast] is None:
                strands[cast] = strand
        return strands
    first_C = np.empty(num_casts, np.int64)
    first_C[cast_R[::-1]] = np.arange(len(cast_R))[::-1]  # of several, the last one stays
    return [part.strands[reading] for reading in first_C.tolist()]
