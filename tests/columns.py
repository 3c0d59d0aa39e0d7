"""Messages to columns, without bytes between: what tests of event time feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamer.codec import Codec
from streamer.columns import DecodedBatch, ReadingColumns
from streamer.records import Partition, Record, RecordBatch
from streamer.schema import CastEnd
from streamer.slices import Slices
from streamer.timeline import CastReadings, Grid


@dataclass(frozen=True, slots=True)
class Reading:
    """One or more consecutive rows of one cast, as one record says them. Times in epoch ms, NaN = nothing said."""

    cast_id: str
    strand: int | None
    ts: int
    period_ms: int
    rows: Sequence[Sequence[float]]
    unknown_fields: int = 0


def decode_reading(codec: Codec, record: Record) -> Reading | CastEnd:
    """One record of a readings topic by itself.

    Raises:
        RecordError: It cannot be used.
    """
    decoded = codec.decode(RecordBatch.of([record]))
    if decoded.refused:
        raise decoded.refused[0][1]
    if decoded.controls:
        return decoded.controls[0][1]
    columns = decoded.readings
    return Reading(
        cast_id=columns.cast_ids[0],
        strand=columns.strands[0],
        ts=int(columns.ts_R[0]),
        period_ms=int(columns.period_R[0]),
        rows=tuple(tuple(row) for row in columns.values_NF.tolist()),
        unknown_fields=decoded.num_unknown_fields,
    )


Entry = tuple[Reading | CastEnd, int]  # a message and its log time


def batch_of(source: Partition, offset: int, entries: Sequence[Entry]) -> tuple[RecordBatch, DecodedBatch]:
    """Consecutive records that say these messages, and what the codec would make of them."""
    log_time_M = np.array([at for _, at in entries], np.int64)
    nothing = [b""] * len(entries)
    batch = RecordBatch(source, offset + np.arange(len(entries)), log_time_M, nothing, nothing)
    readings = [(k, each) for k, (each, _) in enumerate(entries) if isinstance(each, Reading)]
    controls = [(k, each) for k, (each, _) in enumerate(entries) if isinstance(each, CastEnd)]
    return batch, DecodedBatch(log_time_M, reading_columns(readings), controls)


def reading_columns(readings: Sequence[tuple[int, Reading]]) -> ReadingColumns:
    """Columns of (index of the record, reading); infinity stands for a value that its sensor calls bad."""
    cast_ids = list(dict.fromkeys(reading.cast_id for _, reading in readings))
    strands = [
        next(
            (each.strand for _, each in readings if each.cast_id == cast_id and each.strand is not None), None
        )
        for cast_id in cast_ids
    ]
    rows = [row for _, reading in readings for row in reading.rows]
    value_NF = np.array(rows, np.float32).reshape(len(rows), len(rows[0]) if rows else 1)
    stop_NF = np.isinf(value_NF)  # no format lets an infinity through: here it stands for a bad value
    value_NF[stop_NF] = np.nan
    return ReadingColumns(
        record_R=np.array([k for k, _ in readings], np.int64),
        cast_R=np.array([cast_ids.index(each.cast_id) for _, each in readings], np.int64),
        ts_R=np.array([each.ts for _, each in readings], np.int64),
        period_R=np.array([each.period_ms for _, each in readings], np.int64),
        num_rows_R=np.array([len(each.rows) for _, each in readings], np.int64),
        values_NF=value_NF,
        stop_NF=stop_NF if stop_NF.any() else None,
        cast_ids=cast_ids,
        strands=strands,
    )


def cast_readings(
    readings: Sequence[Reading], grid: Grid, log_times: Sequence[int], nows: Sequence[int]
) -> CastReadings:
    """Readings of one cast, with the log time of each and of its partition."""
    columns = reading_columns(list(enumerate(readings)))
    ts_N = np.array(
        [each.ts + k * each.period_ms for each in readings for k in range(len(each.rows))], np.int64
    )
    step_N = grid.step(ts_N)
    newest = columns.ts_R + (columns.num_rows_R - 1) * columns.period_R
    return CastReadings(
        log_time_R=np.array(log_times, np.int64),
        now_R=np.array(nows, np.int64),
        ts_R=columns.ts_R,
        first_step_R=grid.step(columns.ts_R),
        newest_R=newest,
        reading_N=np.repeat(np.arange(len(readings)), columns.num_rows_R),
        step_N=step_N,
        jitter_N=(ts_N - grid.time(step_N)).astype(np.int32),
        value_NF=columns.values_NF,
        stop_NF=columns.stop_NF,
    )


def slices_of(values: Sequence[bytes | None]) -> Slices:
    """Values in one buffer, as they lie in a fetch: what is between them is anything but spaces."""
    buffer, starts, ends = b"", [], []
    for value in values:
        buffer += b"\n" * 9
        starts.append(len(buffer))
        buffer += value or b""
        ends.append(-1 if value is None else len(buffer))
    return Slices(buffer + b"\n", np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64))
