"""The two CSV files of a recording, cell by cell; what is wrong is named by file, line and column.

The format is described in docs/recordings.md.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import unicodedata
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn, TextIO

from streamer.errors import RecordingError
from streamer.schema import CAST_ID, Label
from streamer.sensors import fault_of_name, listed, quoted

KEY_COLUMNS = ("cast_id", "strand", "ts")
LABEL_COLUMNS = ("cast_id", "defect", "inspected_at")
# 1990 to 2100, what the streamer takes for a time; seconds or microseconds lie outside.
MIN_TS, MAX_TS = 631_152_000_000, 4_102_444_800_000
_WHOLE = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """One row of readings.csv; NaN where a cell is empty."""

    cast_id: str
    strand: int | None
    ts: int
    values: list[float]
    line: int


class CsvTable:
    """A CSV file with a header, plain or gzip; names of columns are composed (NFC).

    Raises:
        RecordingError: The file is missing, is empty, is not UTF-8 CSV, or lacks a column.
    """

    def __init__(self, path: Path, required: tuple[str, ...]) -> None:
        self.path = path
        with closing(self._lines()) as lines:
            _, header = next(lines, (1, None))
        if header is None:
            raise RecordingError(f"{path}:1: the file is empty; expected a header with {', '.join(required)}")
        # We write the messages ourselves: nobody else spells these names.
        self.columns = tuple(unicodedata.normalize("NFC", name) for name in header)
        for name in required:
            if name not in self.columns:
                self.fail(
                    1, name, f"no such column among {listed(self.columns)}; add it, cells separated by commas"
                )
        for name in self.columns:
            if self.columns.count(name) > 1:
                self.fail(1, name, "stands twice; rename one")

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row."""
        for line, cells in islice(self._lines(), 1, None):
            if len(cells) != len(self.columns):
                fault = f"{len(cells)} cells, the header has {len(self.columns)}; commas separate the cells"
                raise RecordingError(f"{self.path}:{line}: {fault}")
            yield line, cells

    def fail(self, line: int, column: str, fault: str) -> NoReturn:
        """Raises the error that names a cell."""
        raise RecordingError(f"{self.path}:{line}: column {quoted(column)}: {fault}")

    def _lines(self) -> Generator[tuple[int, list[str]], None, None]:
        try:
            with self._open() as text:
                reader = csv.reader(text, strict=True)
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
        except FileNotFoundError as exc:
            expected = "a recording has readings.csv[.gz] and labels.csv"
            raise RecordingError(f"{self.path}: no such file; {expected}") from exc
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as exc:
            raise RecordingError(f"{self.path}: not UTF-8 CSV: {exc}; write the file again") from exc

    def _open(self) -> TextIO:
        # utf-8-sig: spreadsheets begin their CSV with a byte order mark.
        if self.path.suffix == ".gz":
            return io.TextIOWrapper(gzip.GzipFile(self.path), encoding="utf-8-sig", newline="")
        return self.path.open(encoding="utf-8-sig", newline="")


class ReadingsTable(CsvTable):
    """readings.csv: `KEY_COLUMNS`, and a column a sensor."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, KEY_COLUMNS)
        self.sensors = tuple(name for name in self.columns if name not in KEY_COLUMNS)
        if not self.sensors:
            raise RecordingError(
                f"{path}:1: no sensor; add a column for each beside {', '.join(KEY_COLUMNS)}"
            )
        for name in self.sensors:
            if fault := fault_of_name(name):
                self.fail(1, name, fault)
        self._cast_id, self._strand, self._ts = (self.columns.index(name) for name in KEY_COLUMNS)
        self._values = [self.columns.index(name) for name in self.sensors]

    def rows(self) -> Iterator[RecordedRow]:
        """The rows in the order of the file."""
        for line, cells in self.cells():
            cast_id = cells[self._cast_id]
            if not CAST_ID.fullmatch(cast_id):
                fail_cast_id(self, line, cast_id)
            ts = parse_ts(self, line, "ts", cells[self._ts])
            values = self._parse([cells[index] for index in self._values], line)
            yield RecordedRow(cast_id, self._parse_strand(cells[self._strand], line), ts, values, line)

    def _parse(self, texts: list[str], line: int) -> list[float]:
        try:
            values = [float(text) if text else math.nan for text in texts]
        except ValueError:
            values = []
        # One sum finds any infinity; an empty cell is NaN, so a sum that is NaN needs the closer look.
        if values and math.isfinite(sum(values)):
            return values
        return [self._parse_value(text, name, line) for text, name in zip(texts, self.sensors, strict=True)]

    def _parse_value(self, text: str, name: str, line: int) -> float:
        if not text.strip():
            return math.nan
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.fail(line, name, f"{text!r} is not a number; leave the cell empty where there is none")
        return value

    def _parse_strand(self, text: str, line: int) -> int | None:
        if not text:
            return None
        if not _WHOLE.fullmatch(text) or int(text) > 1_000_000:
            self.fail(
                line, "strand", f"{text!r} is not a whole number from 0; leave the cell empty if unknown"
            )
        return int(text)


def read_labels(path: Path) -> tuple[Label, ...]:
    """Reads labels.csv, oldest verdict first.

    Raises:
        RecordingError: A cell is malformed, or one cast has two segments.
    """
    table = CsvTable(path, LABEL_COLUMNS)
    labels = []
    segments: dict[str, str | None] = {}
    for line, cells in table.cells():
        label = _parse_label(table, line, dict(zip(table.columns, cells, strict=True)))
        if segments.setdefault(label.cast_id, label.group) != label.group:
            known = segments[label.cast_id] or "none"
            table.fail(
                line,
                "segment",
                f"{label.group or 'none'!r} for a cast that had {known!r}; one cast, one segment",
            )
        labels.append(label)
    return tuple(sorted(labels, key=lambda label: label.inspected_at))


def _parse_label(table: CsvTable, line: int, cell: dict[str, str]) -> Label:
    if not CAST_ID.fullmatch(cell["cast_id"]):
        fail_cast_id(table, line, cell["cast_id"])
    if cell["defect"] not in {"0", "1"}:
        table.fail(line, "defect", f"{cell['defect']!r} is not a verdict; write 1 (defect) or 0 (good)")
    from_ts, to_ts = (
        parse_ts(table, line, name, cell[name]) if cell.get(name) else None for name in ("from_ts", "to_ts")
    )
    if (from_ts is None) != (to_ts is None):
        table.fail(line, "from_ts", "only one of from_ts and to_ts; give both, or neither for the whole cast")
    if from_ts is not None and to_ts is not None and from_ts > to_ts:
        table.fail(line, "from_ts", f"{from_ts} is after to_ts {to_ts}; swap them")
    segment = cell.get("segment") or None
    if segment is not None and len(segment) > 128:
        table.fail(line, "segment", "longer than 128 characters; shorten it")
    inspected_at = parse_ts(table, line, "inspected_at", cell["inspected_at"])
    return Label(cell["cast_id"], cell["defect"] == "1", inspected_at, from_ts, to_ts, group=segment)


def parse_ts(table: CsvTable, line: int, column: str, text: str) -> int:
    """A time in epoch milliseconds."""
    if not _WHOLE.fullmatch(text):
        table.fail(
            line, column, f"{text!r} is not a whole number; write epoch milliseconds, as 1763796000000"
        )
    ts = int(text)
    if not MIN_TS <= ts <= MAX_TS:
        table.fail(
            line, column, f"{text} lies outside 1990 to 2100; write epoch milliseconds, as 1763796000000"
        )
    return ts


def fail_cast_id(table: CsvTable, line: int, cast_id: str) -> NoReturn:
    """Raises the error that names a cast_id."""
    table.fail(line, "cast_id", f"{cast_id[:40]!r} cannot be a key; write 1 to 128 of A-Z a-z 0-9 . _ : -")
