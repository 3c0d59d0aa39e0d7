"""What a plant's topics carry: one `SourceConfig` a topic of readings, one `LabelSourceConfig` for the labels."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from streamer.sensors import SensorName, listed, quoted
from streamer.settings import Loc, Section
from streamer.units import IDENTITY, Conversion, conversion

_COMMON = {"cast_id", "strand", "ts", "group", "event"}
_FIELDS = {
    "wide": _COMMON,
    "chunk": _COMMON | {"values", "period_ms"},
    "tag": _COMMON | {"tag", "value", "quality"},
}
Format = Literal["auto", "wide", "chunk", "tag"]
QualityScheme = Literal["words", "opc_ua", "opc_da", "sparkplug"]
TimeUnit = Literal["ms", "s", "us", "ns", "rfc3339"]
KEY, HEADER = "$key", "$header:"
_STEP = r"[^\s.]+(?:\s+[^\s.]+)*"
_PATH = re.compile(rf"(?!\$){_STEP}(?:\.{_STEP})*")


def _path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{path!r} is no path; write a field such as ts, or payload.ts for one inside another"
        )
    return path


def _origin(path: str) -> str:
    is_header = path.startswith(HEADER) and len(path) > len(HEADER)
    if path != KEY and not is_header and not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path; write a field such as meta.cast, {KEY}, or {HEADER}<name>")
    return path


def _zone(name: str | None) -> str | None:
    if name is not None:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(f"no such time zone: {name!r}; names are like Europe/Vienna or UTC") from exc
    return name


Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Path = Annotated[str, AfterValidator(_path)]
# A path, the record's key, or one of its headers.
Origin = Annotated[str, AfterValidator(_origin)]


class ReadingFields(Section):
    """Where a message holds what: dotted paths into it."""

    cast_id: Origin = "cast_id"
    strand: Origin = "strand"
    ts: Path = "ts"
    group: Path = "group"
    event: Path = "event"
    values: Path = "values"
    period_ms: Path = "period_ms"
    tag: Origin = "tag"
    value: Path = "value"
    quality: Path = "quality"


class LabelFields(Section):
    """Where a verdict holds what: dotted paths into it."""

    cast_id: Origin = "cast_id"
    defect: Path = "defect"
    inspected_at: Path = "inspected_at"
    from_ts: Path = "from_ts"
    to_ts: Path = "to_ts"
    defect_type: Path = "defect_type"
    group: Path = "group"


class TimeConfig(Section):
    """How a source tells the time. RFC 3339 is read whatever the unit; `rfc3339` refuses numbers."""

    unit: TimeUnit = "ms"
    zone: Annotated[str | None, AfterValidator(_zone)] = Field(
        None, description="of times without an offset; without it they are refused"
    )


class QualityConfig(Section):
    """What the quality of a tag means. Words and booleans are understood under every scheme."""

    scheme: QualityScheme = Field("words", description="of quality codes that are numbers")
    uncertain: Literal["good", "bad"] = Field("good", description="what becomes of uncertain values")


class SourceSensorConfig(Section):
    """One sensor as one source sends it; `min` and `max` are in the data's unit."""

    field: Path | None = Field(None, description="its field in wide messages; absent: its name")
    unit: str | None = Field(None, description="converted into the unit of data.sensors")
    scale: float | None = Field(None, allow_inf_nan=False, description="value * scale + offset")
    offset: float | None = Field(None, allow_inf_nan=False)
    min: float | None = Field(None, allow_inf_nan=False, description="smaller values are gaps")
    max: float | None = Field(None, allow_inf_nan=False, description="greater values are gaps")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.unit is not None and (self.scale is not None or self.offset is not None):
            raise ValueError("give a unit, or scale and offset, not both")
        if self.scale == 0:
            raise ValueError("a scale of 0 leaves nothing of the value")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} lies above max {self.max}")
        return self

    def conversion(self, unit: str) -> Conversion:
        """How its values become values in `unit`.

        Raises:
            ValueError: Its own unit cannot be converted.
        """
        if self.unit is not None:
            return conversion(self.unit, unit)
        if self.scale is None and self.offset is None:
            return IDENTITY
        return Conversion(1.0 if self.scale is None else self.scale, self.offset or 0.0)


class SourceConfig(Section):
    """One topic of readings and the form of its messages."""

    topic: Topic
    format: Format = Field("auto", description="auto: each message is what its fields say")
    content_type: Literal["application/json", "application/msgpack"] = Field(
        "application/json", description="of records without the header content-type"
    )
    fields: ReadingFields = ReadingFields()
    time: TimeConfig = TimeConfig()
    quality: QualityConfig = QualityConfig()
    tags: dict[str, SensorName] = Field({}, description="tag: sensor; empty: tags bear the names of sensors")
    unknown_tags: Literal["ignore", "refuse"] = "ignore"
    sensors: dict[SensorName, SourceSensorConfig] = Field(
        {}, description="by name; those that need no more are left out"
    )
    # Smaller: a sensor that reports by exception has gaps. Larger: a dead one looks alive for longer.
    carry_forward_s: float | None = Field(
        None, gt=0, le=86_400, description="tags only: the age up to which a last value still holds"
    )

    @model_validator(mode="after")
    def _tags_make_sense(self) -> Self:
        if self.carry_forward_s is not None and self.format != "tag":
            raise ValueError("carry_forward_s is for tags; set format: tag, or leave it out")
        if self.tags and self.format not in {"tag", "auto"}:
            raise ValueError(f"tags are not read in format {self.format}; set format: tag, or leave them out")
        if self.format == "auto" and self.fields.tag.startswith("$"):
            beside = f"a tag beside the value ({self.fields.tag})"
            raise ValueError(f"{beside} tells no message from another; set format: tag")
        return self


class LabelSourceConfig(Section):
    """The form of the messages on topics.labels."""

    fields: LabelFields = LabelFields()
    time: TimeConfig = TimeConfig()


def faults_of_sources(
    sources: Sequence[SourceConfig], units: Mapping[str, str], taken: Mapping[str, str]
) -> Iterator[tuple[Loc, str]]:
    """What is wrong with the sources in the light of the other sections.

    Args:
        sources: As they stand in the file.
        units: The unit of each sensor of the data.
        taken: Topics that serve something else, and the key that says so.
    """
    topics: dict[str, int] = {}
    for index, source in enumerate(sources):
        loc: Loc = ("sources", index)
        if source.topic in taken:
            yield (*loc, "topic"), f"{source.topic} is {taken[source.topic]} already; readings need another"
        if (first := topics.setdefault(source.topic, index)) != index:
            yield (
                (*loc, "topic"),
                f"{source.topic} is the topic of sources.{first} already; one source a topic",
            )
        for fault, message in _faults_of_source(source, units):
            yield (*loc, *fault), message


def _faults_of_source(source: SourceConfig, units: Mapping[str, str]) -> Iterator[tuple[Loc, str]]:
    known = f"; sensors are {listed(units)}"
    for name, sensor in source.sensors.items():
        if name not in units:
            yield ("sensors", name), f"no such sensor in data.sensors{known}"
            continue
        try:
            sensor.conversion(units[name])
        except ValueError as exc:
            yield ("sensors", name, "unit"), str(exc)
    for tag, name in source.tags.items():
        if name not in units:
            yield ("tags", tag), f"{quoted(name)} is no sensor of data.sensors{known}"
    yield from _faults_of_paths(source, units)


def _faults_of_paths(source: SourceConfig, units: Mapping[str, str]) -> Iterator[tuple[Loc, str]]:
    """Two things at one place, or one inside another."""
    places: dict[Loc, tuple[str, ...]] = {
        ("fields", name): tuple(path.split(".")) for name, path in source.fields if not path.startswith("$")
    }
    for name in units:
        config = source.sensors.get(name)
        path = (name,) if config is None or config.field is None else tuple(config.field.split("."))
        places["sensors", name, "field"] = path
    seen: dict[tuple[str, ...], Loc] = {}
    for loc, path in places.items():
        # A message has wide rows or a tag's value: these may share a name.
        if source.format != "auto" and loc[0] == "fields" and loc[1] not in _FIELDS[source.format]:
            continue
        if source.format in {"tag", "chunk"} and loc[0] == "sensors":
            continue
        for other, at in seen.items():
            if other[: len(path)] == path or path[: len(other)] == other:
                wrong, taken = (at, loc) if _is_default(source, loc) else (loc, at)
                yield (
                    wrong,
                    f"{'.'.join(places[wrong])} holds {'.'.join(map(str, taken))} already; one field for each",
                )
        seen[path] = loc


def _is_default(source: SourceConfig, loc: Loc) -> bool:
    """Whether the file says nothing of a field."""
    if loc[0] == "fields":
        return loc[1] not in source.fields.model_fields_set
    config = source.sensors.get(str(loc[1]))
    return config is None or config.field is None
