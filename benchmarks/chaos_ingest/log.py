"""What a generated log is made of, and the rules by which it is read. Nothing of the product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

READINGS, LABELS = "readings", "labels"
Source = tuple[str, int]  # READINGS or LABELS, partition
# Beyond every step and every time of a log.
FAR = 10**15


class Entry(NamedTuple):
    """One record; its offset is its place in its partition.

    Attributes:
        sent_at: Header `sent-at`, epoch ms as text.
        content_type: Header `content-type`.
    """

    key: str
    value: bytes | None
    sent_at: bytes
    content_type: bytes = b"application/json"


Log = Mapping[Source, Sequence[Entry]]


class Rules(NamedTuple):
    """How a log is read; times in ms, windows in steps. Short casts are padded, tails end with their cast."""

    sensors: tuple[str, ...] = ("speed", "level", "flow")
    period: int = 1000
    phase: int = 200
    lateness: int = 12_000
    idle: int = 3_600_000
    future: int = 60_000
    past: int = 172_800_000
    size: int = 30
    hop: int = 12
    min_valid: float = 0.8


RULES = Rules()
LABEL_FIELDS = ("defect", "inspected_at", "from_ts", "to_ts")
LabelFacts = tuple[bool | None, int, int | None, int | None]


class Expected(NamedTuple):
    """What a log comes to.

    Attributes:
        windows: cast/start/length -> (float32 rows, verdict).
        labels: cast -> its distinct labels.
        records: Terms of the ledger of records.
        steps: Terms of the ledger of steps.
    """

    windows: dict[str, tuple[bytes, bool | None]]
    labels: dict[str, set[LabelFacts]]
    records: dict[Source, Counter[str]]
    steps: dict[Source, Counter[str]]
