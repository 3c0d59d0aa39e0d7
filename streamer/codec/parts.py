"""Readings of one batch in columns, each decoder's in a part of its own; `join` makes one part of them.

Shape suffixes: R readings, N rows, F sensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.codec.exact import Piece
from streamer.columns import BoolArray
from streamer.records import IntArray

Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(slots=True)
class Part:
    """Readings with their values as they were sent; `tag_R` and what follows are as in `Piece`.

    Attributes:
        record_R: Ascending.
        values_NF: float64, or float32 where they were sent so.
        tag_R: None where no reading is a tag, and so on.
        distinct: The cast ids in order of appearance, if they are known already.
    """

    record_R: IntArray
    cast_ids: Sequence[str]
    strands: Sequence[int | None]
    ts_R: IntArray
    period_R: IntArray
    num_rows_R: IntArray
    values_NF: Values
    tag_R: IntArray | None = None
    bad_R: BoolArray | None = None
    unknown_R: IntArray | None = None
    distinct: Collection[str] | None = None

    def __len__(self) -> int:
        return len(self.record_R)

    def take(self, reading_R: IntArray) -> Part:
        """Some of the readings, in the order given."""
        indices = reading_R.tolist()
        return Part(
            record_R=self.record_R[reading_R],
            cast_ids=[self.cast_ids[index] for index in indices],
            strands=[self.strands[index] for index in indices],
            ts_R=self.ts_R[reading_R],
            period_R=self.period_R[reading_R],
            num_rows_R=self.num_rows_R[reading_R],
            values_NF=self.values_NF[rows_of(self.num_rows_R, reading_R)],
            tag_R=None if self.tag_R is None else self.tag_R[reading_R],
            bad_R=None if self.bad_R is None else self.bad_R[reading_R],
            unknown_R=None if self.unknown_R is None else self.unknown_R[reading_R],
        )


def rows_of(num_rows_R: IntArray, reading_R: IntArray) -> IntArray:
    """The rows of some readings, in the order of these."""
    if num_rows_R.size == int(num_rows_R.sum()):
        return reading_R
    first_R = np.cumsum(num_rows_R) - num_rows_R
    num_taken_R = num_rows_R[reading_R]
    start_R = np.cumsum(num_taken_R) - num_taken_R
    within_N = np.arange(int(num_taken_R.sum()), dtype=np.int64) - np.repeat(start_R, num_taken_R)
    return np.repeat(first_R[reading_R], num_taken_R) + within_N


def of_pieces(by_record: Mapping[int, Piece], num_sensors: int) -> Part:
    """The columns of readings that were decoded one by one."""
    records = sorted(by_record)
    pieces = [by_record[record] for record in records]
    rows = [piece.values_NF for piece in pieces]
    return Part(
        record_R=np.array(records, dtype=np.int64),
        cast_ids=[piece.cast_id for piece in pieces],
        strands=[piece.strand for piece in pieces],
        ts_R=np.array([piece.ts for piece in pieces], dtype=np.int64),
        period_R=np.array([piece.period_ms for piece in pieces], dtype=np.int64),
        num_rows_R=np.array([len(piece.values_NF) for piece in pieces], dtype=np.int64),
        values_NF=np.concatenate(rows) if rows else np.empty((0, num_sensors)),
        tag_R=np.array([piece.tag for piece in pieces], dtype=np.int64),
        bad_R=np.array([piece.is_bad for piece in pieces], dtype=np.bool_),
        unknown_R=np.array([piece.num_unknown for piece in pieces], dtype=np.int64),
    )


def join(parts: Sequence[Part], num_sensors: int) -> Part:
    """All readings, in offset order."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return of_pieces({}, num_sensors)
    if len(parts) == 1:
        return parts[0]
    with np.errstate(
        invalid="ignore"
    ):  # a float32 NaN may come in any bits, also in those of a signalling one
        values_NF: Values = np.concatenate([part.values_NF for part in parts])
    joined = Part(
        record_R=np.concatenate([part.record_R for part in parts]),
        cast_ids=[cast_id for part in parts for cast_id in part.cast_ids],
        strands=[strand for part in parts for strand in part.strands],
        ts_R=np.concatenate([part.ts_R for part in parts]),
        period_R=np.concatenate([part.period_R for part in parts]),
        num_rows_R=np.concatenate([part.num_rows_R for part in parts]),
        values_NF=values_NF,
        tag_R=np.concatenate([_or(part.tag_R, len(part), -1) for part in parts]),
        bad_R=np.concatenate([_or(part.bad_R, len(part), False) for part in parts]),
        unknown_R=np.concatenate([_or(part.unknown_R, len(part), 0) for part in parts]),
    )
    return joined.take(np.argsort(joined.record_R))


def _or(column: npt.NDArray[np.generic] | None, size: int, absent: int | bool) -> npt.NDArray[np.generic]:
    return np.full(size, absent) if column is None else column
