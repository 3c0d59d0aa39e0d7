"""Writes simulated casts as a recording. How late a row was sent is not part of the format."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from streamer.plant.cast import SimulatedCast
from streamer.plant.merge import merge_by_time
from streamer.plant.regimes import SENSORS
from streamer.schema import Label

Cells = Sequence[object]


def write_recording(directory: Path, casts: Iterable[SimulatedCast]) -> None:
    """Writes readings.csv.gz and labels.csv; the same casts give the same bytes.

    Args:
        directory: Made if it is missing; the two files in it are replaced.
        casts: In the order of their starts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    labels: list[Label] = []
    rows = merge_by_time(_streams(casts, labels), time_of=_ts)
    with (
        (directory / "readings.csv.gz").open("wb") as raw,
        # Without name and time of writing in its header.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        _write(text, ("cast_id", "strand", "ts", *SENSORS), rows)
    with (directory / "labels.csv").open("w", encoding="utf-8", newline="") as text:
        labels.sort(key=lambda label: (label.inspected_at, label.cast_id))
        head = ("cast_id", "defect", "inspected_at", "from_ts", "to_ts", "segment", "defect_type")
        _write(text, head, map(_label_cells, labels))


def _write(text: io.TextIOBase, head: Cells, rows: Iterable[Cells]) -> None:
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)


def _streams(
    casts: Iterable[SimulatedCast], labels: list[Label]
) -> Iterator[tuple[int, Iterator[list[object]]]]:
    for cast in casts:
        labels += cast.labels
        yield cast.start_ts, _rows(cast)


def _rows(cast: SimulatedCast) -> Iterator[list[object]]:
    rows = cast.rows()
    for step in cast.sent_T.nonzero()[0].tolist():
        cells = ["" if math.isnan(value) else repr(value).removesuffix(".0") for value in rows[step]]
        yield [cast.cast_id, cast.strand, cast.start_ts + step * cast.period_ms, *cells]


def _ts(row: list[object]) -> int:
    ts: int = itemgetter(2)(row)
    return ts


def _label_cells(label: Label) -> Cells:
    optional = (label.from_ts, label.to_ts, label.group, label.defect_type)
    return [
        label.cast_id,
        int(bool(label.defect)),
        label.inspected_at,
        *("" if cell is None else cell for cell in optional),
    ]
