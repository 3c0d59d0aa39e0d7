"""A shape of messages as a msgspec type, made at run time: one C call decodes and checks a whole message.

A message fits its shape, or is left to `exact.py`. Messages with fields of no sensor have a shape of their own, which
learns these fields once they come often, so that a stream that carries them stays fast, and a stray one costs the
others nothing; it is then known for each message whether it has them. What comes no more is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from streamer.codec.layout import Layout, Path, is_plain
from streamer.codec.packing import Packing
from streamer.codec.wire import FAULTS, JSON

# Smaller: a source with many unknown fields is decoded one by one. Larger: a hostile one grows our types.
MAX_EXTRAS = 64
# Batches. Smaller: a field that comes seldom is learned again and again. Larger: one that is gone takes time on.
FORGET_AFTER = 16
Getter = Callable[[Any], Any]


class Shape(NamedTuple):
    """What a message looks like: its format, its encoding, how it tells the time, and whether it is wrapped.

    Attributes:
        has_unknown: Whether it may have fields of no sensor.
    """

    kind: str
    content_type: str
    time_is_text: bool
    is_wrapped: bool
    has_unknown: bool = False


class Field(NamedTuple):
    """A field at its place; without a default it must be there."""

    path: Path
    type: Any
    default: Any = ...


class ShapeDecoder:
    """Decodes messages of one shape of one source.

    Attributes:
        get: By the name of a field: takes it out of a decoded message.
        extras: By path: takes out a field of no sensor, `UNSET` where a message has it not.
        packing: Takes the numbers of wide rows out at once, if there is nothing but them.
    """

    def __init__(self, layout: Layout, shape: Shape) -> None:
        self._layout, self._shape = layout, shape
        # How many batches ago a message had it.
        self._extras: dict[Path, int] = {}
        self._build()

    def _build(self) -> None:
        fields = fields_of_shape(self._layout, self._shape)
        prefix = ("payload",) if self._shape.is_wrapped else ()
        extras = {path: Field(prefix + path, Any, UNSET) for path in self._extras}
        placed: dict[Any, Field] = {
            **{name: field._replace(path=prefix + field.path) for name, field in fields.items()},
            **extras,
        }
        if prefix:
            placed["schema"] = Field(("schema",), Any)
        struct, attributes = _struct(placed)
        wire = msgspec.json if self._shape.content_type == JSON else msgspec.msgpack
        self._decode: Callable[[bytes], Any] = wire.Decoder(struct).decode
        self.get: dict[str, Getter] = {name: attrgetter(attributes[name]) for name in fields}
        self.extras: dict[Path, Getter] = {path: attrgetter(attributes[path]) for path in extras}
        is_flat = not prefix and all(len(field.path) == 1 for field in placed.values())
        is_packed = self._shape.kind == "wide" and not self._shape.time_is_text and is_flat and not extras
        self.packing = _packing(fields) if is_packed else None

    def learn(self, paths: Iterable[Path]) -> bool:
        """Takes fields of no sensor into the shape; returns whether it has changed."""
        new = [path for path in paths if path not in self._extras and self._is_neutral(path)]
        new = new[: MAX_EXTRAS - len(self._extras)]
        if new:
            self._extras |= dict.fromkeys(new, 0)
            self._build()
        return bool(new)

    def carries(self, path: Path) -> None:
        """Notes that a message of this batch has a field of no sensor."""
        self._extras[path] = -1

    def forget(self) -> None:
        """Ends a batch: fields of no sensor that none has had for long leave the shape."""
        kept = {path: age + 1 for path, age in self._extras.items() if age + 1 < FORGET_AFTER}
        is_less = len(kept) < len(self._extras)
        self._extras = kept
        if is_less:
            self._build()

    def _is_neutral(self, path: Path) -> bool:
        """Whether a field can be part of a shape, and does not tell one from another."""
        telling = self._layout.telling
        return is_plain(path) and not any(
            other[: len(path)] == path or path[: len(other)] == other for other in telling
        )

    def decode(self, values: Sequence[bytes | None]) -> tuple[list[Any], list[int]]:
        """The messages that fit, in order, and the positions of those that do not."""
        messages: list[Any] = []
        failed: list[int] = []
        decoding = map(self._decode, values)  # type: ignore[arg-type]  # None fails as other misfits do
        while True:
            try:
                # What was decoded before a misfit stays in the list; the next turn goes on behind it.
                messages.extend(decoding)
            except FAULTS:
                failed.append(len(messages) + len(failed))
            else:
                return messages, failed


def fields_of_shape(layout: Layout, shape: Shape) -> dict[str, Field]:
    """The fields of a shape by name; sensors by their number."""
    paths = layout.paths
    time = str if shape.time_is_text else float if layout.time.unit == "s" else int
    fields: dict[str, Field] = {}
    num_sensors = len(layout.sensors)
    if shape.kind == "wide":
        for index, path in enumerate(layout.sensor_paths):
            fields[str(index)] = Field(path, float | None, math.nan)
    # In this order behind the sensors: `Packing` counts on it.
    fields["ts"] = Field(paths["ts"], time)
    fields["strand"] = Field(paths["strand"], int | None, None)
    fields["cast_id"] = Field(paths["cast_id"], str)
    fields["group"] = Field(paths["group"], Any, UNSET)
    if shape.kind == "wide":
        return fields
    if shape.kind == "chunk":
        # msgspec checks the length of each row.
        rows: Any = list[tuple[(float | None,) * num_sensors]]  # type: ignore[misc]  # as long as there are sensors
        fields["period_ms"] = Field(paths["period_ms"], int)
        fields["values"] = Field(paths["values"], rows if shape.content_type == JSON else bytes)
    else:
        fields["tag"] = Field(paths["tag"], str)
        fields["value"] = Field(paths["value"], float | None | UnsetType, UNSET)
        fields["quality"] = Field(paths["quality"], int | str | bool | None, None)
    return fields


def _packing(fields: Mapping[str, Field]) -> Packing:
    names = {name: field.path[0] for name, field in fields.items()}
    sensors = [field for name, field in names.items() if name.isdigit()]
    return Packing(
        sensors, names["ts"], names["strand"], names["cast_id"], time_is_float=fields["ts"].type is float
    )


def _struct(fields: Mapping[Any, Field]) -> tuple[type[msgspec.Struct], dict[Any, str]]:
    """A type for fields at nested places, and the dotted attribute under which each is found."""
    leaves: list[tuple[str, Any, Any]] = []
    nodes: dict[str, dict[Any, Field]] = {}
    names: dict[str, str] = {}
    attributes: dict[Any, str] = {}
    for key, field in fields.items():
        if len(field.path) > 1:
            nodes.setdefault(field.path[0], {})[key] = field._replace(path=field.path[1:])
            continue
        attributes[key] = attribute = f"a{len(names)}"
        names[attribute] = field.path[0]
        leaves.append((attribute, field.type, field.default))
    for name, below in nodes.items():
        attribute = f"a{len(names)}"
        names[attribute] = name
        struct, inner = _struct(below)
        leaves.append((attribute, struct, ...))
        attributes |= {key: f"{attribute}.{path}" for key, path in inner.items()}
    # Without cycles they need no garbage collector.
    made = msgspec.defstruct(
        "Message",
        [leaf[:2] if leaf[2] is ... else leaf for leaf in leaves],
        rename=names,
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    return made, attributes
