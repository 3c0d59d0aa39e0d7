"""One record at a time, each fault with its reason: what the fast paths must agree with, and fall back to.

Shape suffixes: N rows, F sensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.codec import checks
from streamer.codec.checks import show
from streamer.codec.layout import Layout, Path, follow, unknown
from streamer.codec.quality import Quality, quality_of
from streamer.codec.shapes import Shape
from streamer.codec.wire import Fields, fields_of
from streamer.errors import RecordError
from streamer.records import Record
from streamer.schema import CastEnd
from streamer.sensors import listed, quoted

MAX_CHUNK_ROWS = 100_000
MAX_PERIOD_MS = 3_600_000
Float64Array = npt.NDArray[np.float64]


@dataclass(slots=True)
class Piece:
    """One reading, its values as they were sent: not yet converted, rounded or checked for their range.

    Attributes:
        values_NF: NaN where a sensor said nothing.
        tag: The column of a tag message, -1 in other formats and for a tag of no sensor.
        is_bad: A tag whose value must not be used: nothing is carried past it.
        unknown: Where its fields are that no sensor bears.
        shape: What it looks like.
    """

    cast_id: str
    strand: int | None
    ts: int
    period_ms: int
    values_NF: Float64Array
    unknown: list[Path]
    shape: Shape
    tag: int = -1
    is_bad: bool = False

    @property
    def num_unknown(self) -> int:
        """Fields and tags that no sensor bears."""
        return len(self.unknown) + (self.shape.kind == "tag" and self.tag < 0)


class ExactDecoder:
    """Decodes single records of one source."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._source = layout.source

    def decode(self, record: Record) -> Piece | CastEnd:
        """A reading or the end of a cast.

        Raises:
            RecordError: With a reason such as ``bad_json``, ``bad_cast_id``, ``wrong_arity``.
        """
        found = fields_of(record, self._source.content_type, unwrap=self._layout.unwrap)
        fields = found.fields
        if follow(fields, self._layout.paths["event"]) is not ...:
            return self._cast_end(fields, record)
        kind = self._format(fields)
        if kind == "wide":
            return self._wide(found, record)
        return self._chunk(found, record) if kind == "chunk" else self._tag(found, record)

    def _format(self, fields: dict[str, Any]) -> str:
        if self._source.format != "auto":
            return self._source.format
        if follow(fields, self._layout.paths["values"]) is not ...:
            return "chunk"
        path = self._layout.paths.get("tag")
        is_tag = path is not None and follow(fields, path) is not ...
        if is_tag and all(follow(fields, path) is ... for path in self._layout.sensor_paths):
            return "tag"
        return "wide"

    def _cast_end(self, fields: dict[str, Any], record: Record) -> CastEnd:
        event = self._layout.get("event", fields, record)
        if event != "cast_end":
            raise RecordError("unknown_event", f"event is {show(event)}, expected 'cast_end'")
        return CastEnd(
            cast_id=checks.cast_id(self._layout.get("cast_id", fields, record)),
            ts=checks.time(self._layout.time, "ts", self._layout.get("ts", fields, record)),
            group=checks.text("group", self._layout.get("group", fields, record)),
        )

    def _wide(self, found: Fields, record: Record) -> Piece:
        row = [follow(found.fields, path) for path in self._layout.sensor_paths]
        return self._piece(found, record, self._numbers([row]), "wide")

    def _chunk(self, found: Fields, record: Record) -> Piece:
        fields = found.fields
        values = self._layout.get("values", fields, record)
        values_NF = self._packed(values) if isinstance(values, bytes) else self._rows(values)
        period_ms = self._layout.get("period_ms", fields, record)
        if type(period_ms) is not int or not 1 <= period_ms <= MAX_PERIOD_MS:
            raise RecordError("bad_chunk", f"period_ms is {show(period_ms)}, expected 1 to {MAX_PERIOD_MS}")
        return self._piece(found, record, values_NF, "chunk", period_ms=period_ms)

    def _rows(self, values: Any) -> Float64Array:
        if not isinstance(values, list) or not 1 <= len(values) <= MAX_CHUNK_ROWS:
            raise RecordError("bad_chunk", f"values must be a list of 1 to {MAX_CHUNK_ROWS} rows")
        for row in values:
            if not isinstance(row, list) or len(row) != len(self._layout.sensors):
                size = len(row) if isinstance(row, list) else show(row)
                message = f"a row has {size} values, expected {len(self._layout.sensors)}"
                raise RecordError("wrong_arity", message)
        return self._numbers(values)

    def _packed(self, values: bytes) -> Float64Array:
        num_columns = len(self._layout.sensors)
        num_rows, rest = divmod(len(values), 4 * num_columns)
        if rest:
            message = (
                f"values has {len(values)} bytes, expected a multiple of {4 * num_columns}: float32 rows"
            )
            raise RecordError("wrong_arity", message)
        if not 1 <= num_rows <= MAX_CHUNK_ROWS:
            raise RecordError("bad_chunk", f"values must hold 1 to {MAX_CHUNK_ROWS} rows")
        with np.errstate(invalid="ignore"):  # a NaN may come in any bits, also in those of a signalling one
            return np.frombuffer(values, "<f4").reshape(num_rows, num_columns).astype(np.float64)

    def _tag(self, found: Fields, record: Record) -> Piece:
        fields = found.fields
        name = self._layout.get("tag", fields, record)
        if not isinstance(name, str):
            raise RecordError("bad_tag", f"tag is {show(name)}, expected a text")
        column = self._layout.columns.get(name, -1)
        if column < 0 and self._source.unknown_tags == "refuse":
            known = listed(self._layout.columns)[:120]
            raise RecordError("unknown_tag", f"no sensor for tag {show(name)}; tags are {known}")
        quality = quality_of(self._layout.get("quality", fields, record), self._source.quality.scheme)
        if quality is Quality.UNCERTAIN:
            quality = Quality(self._source.quality.uncertain)
        value = self._layout.get("value", fields, record)
        is_none = value is None or (isinstance(value, float) and math.isnan(value))  # MessagePack has NaN
        is_bad = column >= 0 and (quality is Quality.BAD or is_none)
        row: list[Any] = [None] * len(self._layout.sensors)
        if column >= 0 and not is_bad:
            if value is ...:
                raise RecordError("bad_value", f"{quoted(self._layout.sensors[column])} has no value")
            row[column] = value
        piece = self._piece(found, record, self._numbers([row]), "tag")
        piece.tag, piece.is_bad = column, is_bad
        return piece

    def _numbers(self, rows: list[list[Any]]) -> Float64Array:
        for row in rows:
            for index, value in enumerate(row):
                if value is None or value is ...:
                    row[index] = math.nan
                elif type(value) is not float and type(value) is not int:
                    sensor = quoted(self._layout.sensors[index])
                    raise RecordError("bad_value", f"{sensor} is {show(value)}, expected a number or null")
        try:
            return np.array(rows, dtype=np.float64)
        except OverflowError as exc:
            raise RecordError("bad_value", "a value does not fit into float32") from exc

    def _piece(
        self, found: Fields, record: Record, values_NF: Float64Array, kind: str, *, period_ms: int = 0
    ) -> Piece:
        fields = found.fields
        ts = self._layout.get("ts", fields, record)
        others = unknown(fields, self._layout.known[kind])
        return Piece(
            cast_id=checks.cast_id(self._layout.get("cast_id", fields, record)),
            strand=self._strand(fields, record),
            ts=checks.time(self._layout.time, "ts", ts),
            period_ms=period_ms,
            values_NF=values_NF,
            unknown=others,
            shape=Shape(kind, found.content_type, isinstance(ts, str), found.is_wrapped, bool(others)),
        )

    def _strand(self, fields: dict[str, Any], record: Record) -> int | None:
        value = self._layout.get("strand", fields, record)
        if (
            "strand" in self._layout.origins
            and isinstance(value, str)
            and value.isdecimal()
            and len(value) < 9
        ):
            value = int(value)
        return checks.strand(value)
