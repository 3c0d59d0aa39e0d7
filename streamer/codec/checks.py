"""Checks of single fields, with the words for what is wrong."""

from __future__ import annotations

from typing import Any

from streamer.codec.times import TimeReader
from streamer.errors import RecordError
from streamer.schema import CAST_ID

MAX_STRAND = 1_000_000


def show(value: Any) -> str:
    """A value for a message; `...` is a field that is not there.

    Of an object or a list it shows the size only: one that is nested as deep as can be decoded cannot be written.
    """
    if value is ...:
        return "missing"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:60]


def undecodable(exc: Exception) -> RecordError:
    """What no check has foreseen, as the refusal of one record; its cause has the traceback."""
    error = RecordError("undecodable", f"{type(exc).__name__}: {exc}"[:200], stage="decode")
    error.__cause__ = exc
    return error


def cast_id(value: Any) -> str:
    """A usable cast id.

    Raises:
        RecordError: ``bad_cast_id``.
    """
    if not isinstance(value, str) or not CAST_ID.fullmatch(value):
        raise RecordError("bad_cast_id", f"cast_id is {show(value)}, expected {CAST_ID.pattern}")
    return value


def strand(value: Any) -> int | None:
    """A strand, or None where none is named.

    Raises:
        RecordError: ``bad_strand``.
    """
    if value is None or value is ...:
        return None
    if type(value) is not int or not 0 <= value <= MAX_STRAND:
        raise RecordError("bad_strand", f"strand is {show(value)}, expected a number from 0 to {MAX_STRAND}")
    return value


def time(reader: TimeReader, name: str, value: Any) -> int:
    """Epoch ms.

    Raises:
        RecordError: ``bad_time``.
    """
    ms = reader.read(value)
    if ms is None:
        raise RecordError("bad_time", f"{name} is {show(value)}, expected {reader.expected}")
    return ms


def text(name: str, value: Any) -> str | None:
    """A short text, or None where there is none.

    Raises:
        RecordError: ``bad_text``.
    """
    if value is None or value is ...:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise RecordError("bad_text", f"{name} is {show(value)}, expected 1 to 128 characters")
    return value
