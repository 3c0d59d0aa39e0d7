"""A recording: real sensor data in a folder, turned into what the plant would have sent.

It is read row by row: in memory are one record a cast, and the labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import Self

from streamer.errors import RecordingError
from streamer.plant.events import (
    PlantEvent,
    cast_end_event,
    cast_head,
    encode_chunk,
    encode_wide,
    label_event,
)
from streamer.plant.recording_csv import ReadingsTable, RecordedRow, read_labels
from streamer.schema import CastEnd, Label


@dataclass(slots=True)
class RecordedCast:
    """What a recording holds of one cast.

    Attributes:
        cast_id: Its key.
        first_ts: Time of its first row.
        last_ts: Time of its last row.
        num_rows: Rows.
        group: The segment of its labels, or None.
        defect: Whether one verdict of it says defect; None without a verdict.
    """

    cast_id: str
    first_ts: int
    last_ts: int
    num_rows: int
    group: str | None = None
    defect: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recording whose every cell has been checked; open one with `Recording.open`.

    Attributes:
        directory: The folder.
        sensors: Columns of readings.csv that are sensors, in order.
        casts: In the order of their first rows.
        period_ms: The most common time from the first row of a cast to its second; 1000 if none has two.
    """

    directory: Path
    sensors: tuple[str, ...]
    casts: tuple[RecordedCast, ...]
    period_ms: int
    _labels: tuple[Label, ...]
    _table: ReadingsTable

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Reads a folder through once and checks it.

        Raises:
            RecordingError: A file or a column is missing, a cell is malformed, or rows are out of order; the
                message names file, line, column and the mend.
        """
        table = ReadingsTable(_readings_path(directory))
        labels = read_labels(directory / "labels.csv")
        casts, periods = _scan(table)
        for label in labels:
            if label.cast_id in casts:
                cast = casts[label.cast_id]
                cast.group, cast.defect = label.group, bool(cast.defect) or bool(label.defect)
        period_ms = max(periods, key=lambda period: (periods[period], -period), default=1000)
        return cls(directory, table.sensors, tuple(casts.values()), period_ms, labels, table)

    @property
    def num_casts(self) -> int:
        """Casts that have a row."""
        return len(self.casts)

    @property
    def num_readings(self) -> int:
        """Rows of all casts."""
        return sum(cast.num_rows for cast in self.casts)

    def rows(self) -> Iterator[RecordedRow]:
        """All rows in time order, read from the file anew by each call."""
        return self._table.rows()

    def labels(self) -> tuple[Label, ...]:
        """All verdicts, oldest first, those of casts without rows included."""
        return self._labels

    def held_back_casts(self, share: float) -> tuple[RecordedCast, ...]:
        """The last ``share`` of the casts by their start, and every other cast of their groups.

        Raises:
            ValueError: ``share`` is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}, expected 0 to 1")
        # Rounded: 0.1 * 30 is a little more than 3.
        num_last = math.ceil(round(share * self.num_casts, 9))
        last = self.casts[self.num_casts - num_last :]
        cast_ids = {cast.cast_id for cast in last}
        groups = {cast.group for cast in last} - {None}
        return tuple(cast for cast in self.casts if cast.cast_id in cast_ids or cast.group in groups)

    def held_back(self, share: float) -> tuple[Label, ...]:
        """The labels of `held_back_casts`, oldest first: what ``events(hold_back_labels=share)`` leaves out."""
        casts = self.held_back_casts(share)
        cast_ids, groups = {cast.cast_id for cast in casts}, {cast.group for cast in casts} - {None}
        return tuple(label for label in self._labels if label.cast_id in cast_ids or label.group in groups)

    def events(self, chunk_rows: int = 1, hold_back_labels: float = 0.0) -> Iterator[PlantEvent]:
        """What the plant would have sent, in time order.

        A row is sent at its time, a chunk with its last row or one period later when no row follows, the end
        of a cast right after its last row, a label when it was inspected.

        Args:
            chunk_rows: Rows a message, where they follow each other by the period; 1 sends wide readings.
            hold_back_labels: Share of the casts, the last ones, whose labels are left out.

        Raises:
            ValueError: ``chunk_rows`` is below 1 or the share is not between 0 and 1.
        """
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows is {chunk_rows}, expected 1 or more")
        held_back = set(self.held_back(hold_back_labels))
        labels = (label_event(label) for label in self._labels if label not in held_back)
        # On a tie readings go first: the streams are given in this order.
        return merge(self._readings(chunk_rows), labels, key=attrgetter("sent_at"))

    def _readings(self, chunk_rows: int) -> Iterator[PlantEvent]:
        casts = {cast.cast_id: cast for cast in self.casts}
        chunks: dict[str, list[RecordedRow]] = {}
        for row in self.rows():
            yield from self._overdue(chunks, row.ts)
            cast = casts[row.cast_id]
            if row.cast_id in chunks and row.ts - chunks[row.cast_id][-1].ts != self.period_ms:
                yield self._message(chunks.pop(row.cast_id), row.ts)
            chunk = chunks.setdefault(row.cast_id, [])
            chunk.append(row)
            if len(chunk) == chunk_rows or row.ts == cast.last_ts:
                yield self._message(chunks.pop(row.cast_id), row.ts)
            if row.ts == cast.last_ts:
                yield cast_end_event(CastEnd(cast.cast_id, cast.last_ts, cast.group))

    def _overdue(self, chunks: dict[str, list[RecordedRow]], ts: int) -> Iterator[PlantEvent]:
        """Takes out the chunks whose next row should have come before ``ts``.

        Kept until the cast goes on, they would be sent too late after a gap to be placed at all.
        """
        due = {cast_id: chunk[-1].ts + self.period_ms for cast_id, chunk in chunks.items()}
        for cast_id in sorted(due, key=due.__getitem__):
            if due[cast_id] < ts:
                yield self._message(chunks.pop(cast_id), due[cast_id])

    def _message(self, rows: list[RecordedRow], sent_at: int) -> PlantEvent:
        first = rows[0]
        head = cast_head(first.cast_id, first.strand)
        if len(rows) == 1:
            value = encode_wide(head, first.ts, self.sensors, first.values)
        else:
            value = encode_chunk(head, first.ts, self.period_ms, [row.values for row in rows])
        return PlantEvent(sent_at, "readings", first.cast_id.encode(), value, len(rows))


def _readings_path(directory: Path) -> Path:
    plain, packed = directory / "readings.csv", directory / "readings.csv.gz"
    if not directory.is_dir():
        raise RecordingError(f"{directory}: no such folder; name one with readings.csv[.gz] and labels.csv")
    if plain.exists() and packed.exists():
        raise RecordingError(f"{directory}: both readings.csv and readings.csv.gz; keep one of them")
    return packed if packed.exists() else plain


def _scan(table: ReadingsTable) -> tuple[dict[str, RecordedCast], Counter[int]]:
    """Checks every row; returns the casts by their first rows, and how often each period begins one."""
    casts: dict[str, RecordedCast] = {}
    periods: Counter[int] = Counter()
    last_ts = 0
    for row in table.rows():
        if row.ts < last_ts:
            table.fail(row.line, "ts", f"{row.ts} is before the row above, {last_ts}; sort the rows by ts")
        last_ts = row.ts
        cast = casts.get(row.cast_id)
        if cast is None:
            casts[row.cast_id] = RecordedCast(row.cast_id, row.ts, row.ts, 1)
            continue
        if row.ts == cast.last_ts:
            table.fail(row.line, "ts", f"a second row of {row.cast_id} at {row.ts}; keep one of them")
        if cast.num_rows == 1:
            periods[row.ts - cast.first_ts] += 1
        cast.num_rows, cast.last_ts = cast.num_rows + 1, row.ts
    if not casts:
        raise RecordingError(f"{table.path}:2: no rows; a recording has at least one cast")
    return casts, periods
