"""Where the messages of one source hold what, made ready for the decoders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from streamer.codec.times import TimeReader
from streamer.config import SensorConfig
from streamer.errors import RecordError
from streamer.records import Record
from streamer.sources import HEADER, KEY, SourceConfig

Path = tuple[str, ...]
# The fields that are looked at: None is a leaf, another tree an object that we look into.
Tree = dict[str, Any]
# What msgspec does not take in the name of a field: JSON would escape it, or UTF-8 cannot hold it.
_NEVER_PLAIN = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
# Fields of a reading beside its values, whatever its format.
COMMON = ("cast_id", "strand", "ts", "group")


class Layout:
    """One source, compiled.

    Attributes:
        sensors: Names, in column order.
        sensor_paths: Their fields in a wide message.
        known: By format, the fields that are not unknown.
        telling: Fields that tell one format from another.
        fast_kinds: The formats whose fields all lie in the value, under names that msgspec takes.
        unwrap: Whether Kafka Connect's envelope is taken off.
    """

    def __init__(self, sensors: Sequence[SensorConfig], source: SourceConfig) -> None:
        self.source = source
        self.sensors = tuple(sensor.name for sensor in sensors)
        self.time = TimeReader(source.time)
        self.paths = {name: split(path) for name, path in source.fields if not path.startswith("$")}
        self.origins = {name: path for name, path in source.fields if path.startswith("$")}
        self.sensor_paths = tuple(self._sensor_path(name) for name in self.sensors)
        column = {name: index for index, name in enumerate(self.sensors)}
        self.columns = {tag: column[name] for tag, name in source.tags.items()} or column
        common = [self.paths[name] for name in COMMON if name in self.paths]
        tag = [self.paths[name] for name in ("tag", "value", "quality") if name in self.paths]
        self.known = {
            "wide": tree([*common, *self.sensor_paths]),
            "chunk": tree([*common, self.paths["values"], self.paths["period_ms"]]),
            "tag": tree([*common, *tag]),
        }
        # Fields that lie beside the value are fetched one by one.
        may_be_fast = not self.origins and all(map(is_plain, self.paths.values()))
        slow = set() if all(map(is_plain, self.sensor_paths)) else {"wide"}
        self.fast_kinds = self.known.keys() - slow if may_be_fast else set()
        # What tells one format from another: these fields never become unknown ones that are skipped.
        self.telling = [self.paths["event"]]
        if source.format == "auto":
            self.telling += [self.paths["values"], *self.sensor_paths]
            self.telling += [self.paths["tag"]] if "tag" in self.paths else []
        # A source that looks for its fields below `payload` has an envelope of its own.
        self.unwrap = all(path[0] != "payload" for path in [*self.paths.values(), *self.sensor_paths])

    def _sensor_path(self, name: str) -> Path:
        config = self.source.sensors.get(name)
        return (name,) if config is None or config.field is None else split(config.field)

    def get(self, name: str, fields: dict[str, Any], record: Record) -> Any:
        """The value of one of the source's fields, `...` where there is none."""
        path = self.paths.get(name)
        return follow(fields, path) if path is not None else from_record(self.origins[name], record)


def split(path: str) -> Path:
    """The steps of a dotted path."""
    return tuple(path.split("."))


def is_plain(path: Path) -> bool:
    """Whether all names of a path can be those of fields of a msgspec type; keys of MessagePack may be no text."""
    return all(isinstance(name, str) and not _NEVER_PLAIN.search(name) for name in path)


def follow(fields: Any, path: Path) -> Any:
    """What lies at a path, `...` if nothing does."""
    for name in path:
        if not isinstance(fields, dict):
            return ...
        fields = fields.get(name, ...)
    return fields


def from_record(origin: str, record: Record) -> Any:
    """A text from the record's key or from one of its headers, `...` if it has none.

    Raises:
        RecordError: ``bad_text``: it is not UTF-8.
    """
    name = origin.removeprefix(HEADER)
    raw = record.key if origin == KEY else next((value for key, value in record.headers if key == name), None)
    if raw is None:
        return ...
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise RecordError("bad_text", f"{origin} is not UTF-8: {raw[:40]!r}", stage="decode") from exc


def tree(paths: Iterable[Path]) -> Tree:
    """The paths as one tree."""
    root: Tree = {}
    for path in paths:
        node = root
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = None
    return root


def unknown(fields: dict[str, Any], known: Tree) -> list[Path]:
    """The fields that stand beside the known ones, in each object that is looked into."""
    found: list[Path] = [(name,) for name in fields if name not in known]
    for name, below in known.items():
        if below is not None and isinstance(fields.get(name), dict):
            found += [(name, *path) for path in unknown(fields[name], below)]
    return found
