"""The name of a sensor: what can be one, and how it stands in a sentence of ours.

A name is what the plant calls it, whatever that is, as long as it prints. Messages are matched letter for letter; so
a name that only looks like another, since its accents are characters of their own, is refused.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator

from streamer.terminal import printable

MAX_NAME_CHARS = 128
# Fields of the messages themselves: a sensor of that name would make a wide reading another message.
RESERVED = frozenset({"cast_id", "strand", "ts", "period_ms", "values", "event", "group"})
# What needs no quotation marks among words, commas and colons.
_PLAIN = re.compile(r"[\w.%°/+-]+")


def fault_of_name(name: str) -> str | None:
    """What keeps a text from being the name of a sensor, and the mend; None if nothing does.

    The text itself is left out: what is returned goes on after it.
    """
    return next(_faults_of(name), None)


def _faults_of(name: str) -> Iterator[str]:
    bare = name.strip()
    if not bare:
        yield "is blank; write a name"
    if len(name) > MAX_NAME_CHARS:
        yield f"has {len(name)} characters, more than {MAX_NAME_CHARS}; shorten it"
    if bare != name:
        yield f"begins or ends with a blank; write {quoted(bare)}"
    for char in name:
        if not char.isprintable():
            mend = "write a space in its place" if char.isspace() else "leave it out"
            yield f"holds U+{ord(char):04X}, which does not print; {mend}"
    composed = unicodedata.normalize("NFC", name)
    if composed != name:
        mend = "where messages spell it as it is here, say so by sensors or tags of their source"
        yield f"is not in composed form (NFC); write {composed!a}; {mend}"
    if name in RESERVED:
        yield "is a field of the messages; give the sensor another name"


def quoted(name: str) -> str:
    """The name as it stands in a message: in quotation marks where it would run into what stands beside it."""
    return name if _PLAIN.fullmatch(name) else printable(json.dumps(name, ensure_ascii=False))


def listed(names: Iterable[str]) -> str:
    """Names one after the other, each `quoted`."""
    return ", ".join(map(quoted, names))


def _checked(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text; write it in quotes")  # noqa: TRY004 - pydantic wants this one
    if fault := fault_of_name(value):
        raise ValueError(f"{quoted(value[:MAX_NAME_CHARS])} {fault}")
    return value


# For fields, keys and values of sections.
SensorName = Annotated[str, BeforeValidator(_checked)]
