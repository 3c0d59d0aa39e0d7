"""What happened in a demo, as its children told it. No clock, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from demo.child import Event


@dataclass(slots=True)
class Training:
    """The training run of the moment."""

    cycle: int
    windows: int
    parent: int | None
    epoch: int = 0
    val_auc_pr: float | None = None
    val_loss: float | None = None


@dataclass(slots=True)
class Story:
    """Everything the table at the end is made of.

    Attributes:
        status: Counts of `streamer status --json`.
        cycles, models: As they go into the JSON file.
        scored: Windows that the subscriber scored, by version, in the order of arrival.
    """

    status: dict[str, Any] = field(default_factory=dict)
    cycles: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    scored: dict[int, int] = field(default_factory=dict)
    holdout: dict[str, Any] | None = None
    training: Training | None = None
    waiting: str | None = None
    cast_scores: dict[str, Any] | None = None

    def take(self, event: Event) -> str | None:
        """Takes an event in.

        Returns:
            A line for people, None if it is not worth one.
        """
        handler = _HANDLERS.get((event.child, event.kind))
        return handler(self, event.fields) if handler else None

    def take_decision(self, kind: str, event: Mapping[str, Any]) -> str | None:
        """Takes one record of the model-events topic in."""
        details = event["details"]
        if kind not in ("promoted", "refused"):
            return None
        scores = event["scores"]
        self.cycles.append(
            {
                "trigger": details["trigger"],
                "windows": details["windows"],
                "seconds": details["seconds"],
                "epochs": details["epochs"],
                "decision": kind,
                "reasons": event["reasons"],
            }
        )
        self.training = None
        text = (
            f"AUC-ROC {scores['auc_roc']:.3f}, AUC-PR {scores['auc_pr']:.3f}; {'; '.join(event['reasons'])}"
        )
        if kind == "promoted":
            self.models.append(
                {
                    "version": event["version"],
                    "parent": event["parent"],
                    "windows": details["windows"],
                    "defects": details["defects"],
                    "auc_roc": scores["auc_roc"],
                    "auc_pr": scores["auc_pr"],
                }
            )
        return f"version {event['version']} {kind}: {text}"

    def num_received(self) -> int:
        """Versions that the subscriber has scored with."""
        return sum(number > 0 for number in self.scored.values())

    def score_holdout(self, version: int, scores: Mapping[str, float], defects: Mapping[str, bool]) -> None:
        """Compares the subscriber's scores of the held-back casts with their verdicts."""
        cast_ids = sorted(set(scores) & set(defects))
        y = np.array([defects[cast_id] for cast_id in cast_ids])
        score = np.array([scores[cast_id] for cast_id in cast_ids])
        self.holdout = {
            "version": version,
            "casts": len(cast_ids),
            "auc_roc": float(roc_auc_score(y, score)),
            "auc_pr": float(average_precision_score(y, score)),
        }

    def report(self) -> dict[str, Any]:
        """The JSON file."""
        report = {
            "readings": self.status.get("readings", 0),
            "sealed_windows": self.status.get("sealed_windows", 0),
            "labelled_windows": self.status.get("labelled_windows", 0),
            "cycles": self.cycles,
            "models": self.models,
            "subscriber": [{"version": version, "scored": n} for version, n in self.scored.items()],
        }
        return report | ({"holdout": self.holdout} if self.holdout else {})


def _training(story: Story, fields: Mapping[str, Any]) -> str:
    story.waiting = None
    story.training = Training(fields["cycle"], fields["windows"], fields["fine_tuned_from"])
    origin = (
        f"fine-tuned from version {fields['fine_tuned_from']}"
        if fields["fine_tuned_from"]
        else "from scratch"
    )
    size = f"{fields['windows']} windows, {fields['defects']} defective"
    return f"cycle {fields['cycle']}: training on {size}, {origin}"


def _epoch(story: Story, fields: Mapping[str, Any]) -> str:
    if story.training is not None:
        story.training.epoch = fields["epoch"]
        story.training.val_auc_pr = fields["val_auc_pr"]
        story.training.val_loss = fields["val_loss"]
    return (
        f"cycle {fields['cycle']}: epoch {fields['epoch']}, training loss {fields['train_loss']:.3f}, "
        f"validation loss {fields['val_loss']:.3f}, AUC-PR {fields['val_auc_pr']:.3f}, "
        f"{fields['sequences_per_s']} sequences/s"
    )


def _waiting(story: Story, fields: Mapping[str, Any]) -> str | None:
    story.waiting = fields["error"]
    return f"trainer waits: {fields['error']}"


def _failed(story: Story, fields: Mapping[str, Any]) -> str:
    story.training = None
    return f"cycle failed: {fields['error']}"


def _received(story: Story, fields: Mapping[str, Any]) -> str:
    story.scored.setdefault(fields["version"], 0)
    return f"subscriber received version {fields['version']} ({fields['bytes'] // 1024} KiB) and loaded it"


def _scored(story: Story, fields: Mapping[str, Any]) -> None:
    story.scored[fields["version"]] = story.scored.get(fields["version"], 0) + fields["windows"]


def _cast_scores(story: Story, fields: Mapping[str, Any]) -> None:
    story.cast_scores = dict(fields)


_HANDLERS: dict[tuple[str, str], Any] = {
    ("trainer", "training"): _training,
    ("trainer", "epoch"): _epoch,
    ("trainer", "waiting"): _waiting,
    ("trainer", "cycle failed"): _failed,
    ("subscriber", "received"): _received,
    ("subscriber", "scored"): _scored,
    ("subscriber", "cast_scores"): _cast_scores,
}
