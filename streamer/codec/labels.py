"""Verdicts of inspection, from the labels topic."""

from __future__ import annotations

from typing import Any

from streamer.codec import checks
from streamer.codec.checks import show
from streamer.codec.layout import follow, from_record, split
from streamer.codec.times import TimeReader
from streamer.codec.wire import JSON, fields_of
from streamer.errors import RecordError
from streamer.records import Record
from streamer.schema import Label
from streamer.sources import LabelSourceConfig


class LabelDecoder:
    """Decodes the records of one labels topic."""

    def __init__(self, source: LabelSourceConfig) -> None:
        self._paths = {name: path if path.startswith("$") else split(path) for name, path in source.fields}
        self._time = TimeReader(source.time)
        self._unwrap = all(path[0] != "payload" for path in self._paths.values())

    def decode(self, record: Record) -> Label:
        """One verdict.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        fields = fields_of(record, JSON, unwrap=self._unwrap).fields
        found = {name: _get(path, fields, record) for name, path in self._paths.items()}
        defect = found["defect"]
        if defect is not None and not isinstance(defect, bool):
            raise RecordError("bad_label", f"defect is {show(defect)}, expected true, false or null")
        from_ts = self._optional_time("from_ts", found["from_ts"])
        to_ts = self._optional_time("to_ts", found["to_ts"])
        if from_ts is not None and to_ts is not None and from_ts > to_ts:
            raise RecordError("bad_label", f"from_ts {from_ts} lies after to_ts {to_ts}")
        return Label(
            cast_id=checks.cast_id(found["cast_id"]),
            defect=defect,
            inspected_at=checks.time(self._time, "inspected_at", found["inspected_at"]),
            from_ts=from_ts,
            to_ts=to_ts,
            defect_type=checks.text("defect_type", found["defect_type"]),
            group=checks.text("group", found["group"]),
        )

    def _optional_time(self, name: str, value: Any) -> int | None:
        return None if value is None or value is ... else checks.time(self._time, name, value)


def _get(path: str | tuple[str, ...], fields: dict[str, Any], record: Record) -> Any:
    return from_record(path, record) if isinstance(path, str) else follow(fields, path)
