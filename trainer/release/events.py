"""What happens to a model, and how it is told on Kafka.

Two kinds of records leave the trainer: the model itself (binary mode, on the compacted topic) and one small
event a decision (structured mode, on the log).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from trainer.release.artifact import CONTENT_TYPE, Manifest
from trainer.release.cloudevent import CloudEvent

MODEL_UPDATED = "io.castloop.model.updated"
EVENT_PREFIX = "io.castloop.model."
MODEL_VERSION = "modelversion"

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


def model_update(manifest: Manifest, data: bytes, *, ce_id: str, at: datetime, source: str) -> CloudEvent:
    """The event that carries a model file."""
    return CloudEvent(
        id=ce_id,
        source=source,
        type=MODEL_UPDATED,
        time=at,
        subject=manifest.model_name,
        datacontenttype=CONTENT_TYPE,
        data=data,
        extensions={MODEL_VERSION: str(manifest.version)},
    )


def model_event(event: ModelEvent, manifest: Manifest, *, source: str) -> CloudEvent:
    """The event that tells of a decision."""
    summary = manifest.model_dump(
        mode="json",
        include={
            *("model_name", "version", "parent", "created_at", "dataset", "threshold"),
            *("scores", "baselines", "baseline_gap"),
        },
    )
    return CloudEvent(
        id=event.ce_id,
        source=source,
        type=EVENT_PREFIX + event.kind,
        time=event.at,
        subject=manifest.model_name,
        datacontenttype="application/json",
        data={**summary, "reasons": list(event.reasons), "details": event.details},
        extensions={MODEL_VERSION: str(manifest.version)},
    )
