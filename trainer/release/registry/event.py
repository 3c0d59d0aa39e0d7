"""What happened to one version, as it is kept on disk."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Kind = Literal["trained", "refused", "promoted", "failed"]
Verdict = Literal["refused", "promoted"]


class _Record(BaseModel):
    # A key that a newer version has added is let through: what may not be is told by a format number.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Decision(_Record):
    """What becomes of one version; the same decision bears the same ids however often it is carried out.

    Attributes:
        reasons: Why, with figures.
        ce_id: Names the event that tells of it.
        update_ce_id: Names the model update that goes with a promotion; None if the model was published before.
    """

    kind: Verdict
    reasons: tuple[str, ...] = ()
    at: AwareDatetime
    ce_id: str = Field(min_length=1)
    update_ce_id: str | None = None

    @classmethod
    def new(
        cls, kind: Verdict, reasons: tuple[str, ...], at: datetime, *, is_published: bool = False
    ) -> Self:
        """Takes a decision: it gets its ids here, once."""
        update_id = str(uuid.uuid4()) if kind == "promoted" and not is_published else None
        return cls(kind=kind, reasons=reasons, at=at, ce_id=str(uuid.uuid4()), update_ce_id=update_id)


class ModelEvent(_Record):
    """One thing that happened, as it waits for Kafka and as the log on disk has it.

    Attributes:
        seq: Order of the events of one model name.
        version: None for a cycle that failed before there was one.
        ce_id: Names the event; it is the same however often the event is sent.
        update_ce_id: Names the model update that goes with a promotion.
        reasons: Why, with figures.
        details: More figures, for whoever reads the event; nothing here reads them back.
    """

    seq: int = Field(ge=1)
    kind: Kind
    version: int | None = Field(ge=1)
    at: AwareDatetime
    ce_id: str = Field(min_length=1)
    update_ce_id: str | None = None
    reasons: tuple[str, ...] = ()
    details: dict[str, Any] = {}

    @property
    def is_published(self) -> bool:
        """Whether it tells of a model that was taken in from the topic: nobody has to be told."""
        return self.kind == "promoted" and self.update_ce_id is None
