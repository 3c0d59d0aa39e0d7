"""What happened to one version, as it is kept on disk."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Kind = Literal["trained", "refused", "promoted"]


class ModelEvent(BaseModel):
    """One thing that happened to one version, as it is kept on disk.

    Attributes:
        seq: Order of the events of one model name.
        ce_id: Names the event; it is the same however often the event is sent.
        update_ce_id: Names the model update that goes with a promotion.
        reasons: Why, with figures.
        details: More figures of the decision.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    seq: int = Field(ge=1)
    kind: Kind
    version: int = Field(ge=1)
    at: AwareDatetime
    ce_id: str = Field(min_length=1)
    update_ce_id: str | None = None
    reasons: tuple[str, ...] = ()
    details: dict[str, Any] = {}
