"""How a model and the decisions about it are told on Kafka.

Two kinds of records leave the trainer: the model itself (binary mode, on the compacted topic) and one small
event a decision (structured mode, on the log).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from trainer.release.client.artifact import CONTENT_TYPE, Manifest
from trainer.release.client.cloudevent import CloudEvent
from trainer.release.client.updates import MODEL_UPDATED, MODEL_VERSION, ROLLBACK, ROLLED_BACK
from trainer.release.registry.event import ModelEvent

EVENT_PREFIX = "io.castloop.model."


def model_update(
    manifest: Manifest, data: bytes, *, ce_id: str, at: datetime, source: str, rollback: bool = False
) -> CloudEvent:
    """The event that carries a model file.

    Args:
        rollback: Subscribers take it although it is older than what they have.
    """
    extensions = {MODEL_VERSION: str(manifest.version)}
    return CloudEvent(
        id=ce_id,
        source=source,
        type=MODEL_UPDATED,
        time=at,
        subject=manifest.model_name,
        datacontenttype=CONTENT_TYPE,
        data=data,
        extensions=extensions | ({ROLLBACK: ROLLED_BACK} if rollback else {}),
    )


def model_event(event: ModelEvent, model_name: str, manifest: Manifest | None, *, source: str) -> CloudEvent:
    """The event that tells of a decision, or of a cycle that failed before it had a version."""
    summary = {"model_name": model_name} if manifest is None else _summary(manifest)
    return CloudEvent(
        id=event.ce_id,
        source=source,
        type=EVENT_PREFIX + event.kind,
        time=event.at,
        subject=model_name,
        datacontenttype="application/json",
        data={**summary, "reasons": list(event.reasons), "details": event.details},
        extensions={} if event.version is None else {MODEL_VERSION: str(event.version)},
    )


def _summary(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(
        mode="json",
        include={
            *("model_name", "version", "parent", "cycle", "created_at", "dataset", "threshold"),
            *("scores", "baselines", "baseline_gap"),
        },
    )
