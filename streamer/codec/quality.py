"""What the quality of a tag means, under the codes of OPC UA, OPC DA and Sparkplug, as a word or a boolean."""

from __future__ import annotations

from enum import Enum
from typing import Any

from streamer.codec.checks import show
from streamer.errors import RecordError
from streamer.sources import QualityScheme


class Quality(Enum):
    """Whether a value may be used."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


_GRADES = (Quality.BAD, Quality.UNCERTAIN, Quality.BAD, Quality.GOOD)
_SPARKPLUG = {0: Quality.BAD, 192: Quality.GOOD, 500: Quality.BAD}
_WORDS = {"good": Quality.GOOD, "uncertain": Quality.UNCERTAIN, "bad": Quality.BAD, "stale": Quality.BAD}


def quality_of(value: Any, scheme: QualityScheme) -> Quality:
    """The quality; a message that says nothing of it is good.

    Raises:
        RecordError: ``bad_quality``: no quality that the scheme knows.
    """
    if value is None or value is ...:
        return Quality.GOOD
    found = None
    if isinstance(value, bool):
        found = Quality.GOOD if value else Quality.BAD
    elif isinstance(value, str):
        found = _word(value)
    elif type(value) is int:
        found = _code(value, scheme)
    if found is None:
        raise RecordError("bad_quality", f"quality is {show(value)}, {_mend(value, scheme)}")
    return found


def _word(value: str) -> Quality | None:
    """`Good`, `Bad_NoCommunication`, `UncertainLastUsableValue`: what the word begins with counts."""
    lower = value.lower()
    return next((quality for word, quality in _WORDS.items() if lower.startswith(word)), None)


def _code(value: int, scheme: QualityScheme) -> Quality | None:
    if scheme == "opc_ua":
        # A status code is 32 bits wide; some bridges write it with a sign. Its top two bits are the severity.
        if not -(1 << 31) <= value < 1 << 32:
            return None
        return (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)[(value >> 30) & 3]
    if scheme == "opc_da":
        # The low byte is quality, substatus and limits; the high one is the vendor's.
        return _GRADES[(value & 0xFF) >> 6] if 0 <= value <= 0xFFFF else None
    return _SPARKPLUG.get(value) if scheme == "sparkplug" else None


def _mend(value: Any, scheme: QualityScheme) -> str:
    if type(value) is int and scheme == "words":
        return "a number: name its scheme in sources: quality.scheme: opc_ua, opc_da or sparkplug"
    return f"expected good, uncertain, bad, true, false or a code of {scheme}"
