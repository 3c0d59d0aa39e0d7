"""What became of an update of the models topic: for counters, which a subscriber does not keep itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

SkipReason = Literal["older", "repeated", "unreadable", "other_inputs"]
SKIP_REASONS: tuple[SkipReason, ...] = get_args(SkipReason)


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """One update that was handed out or skipped.

    Attributes:
        skipped: Why it was not handed out; None if it was.
        model_name: None where the record does not say it.
        version: The same.
    """

    skipped: SkipReason | None
    model_name: str | None = None
    version: int | None = None
