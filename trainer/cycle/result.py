"""What a decided cycle came to."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from trainer.gate.checks import Check
from trainer.triggers import Trigger


class Record(BaseModel):
    """What the trainer keeps of its cycles, frozen."""

    # A key of a newer version with the same format is let through; one that is missing has a default.
    model_config = ConfigDict(frozen=True, extra="ignore")

    def with_(self, **changes: Any) -> Self:
        """The same with some fields changed."""
        return self.model_copy(update=changes)


class CycleResult(Record):
    """A decided cycle, as it is told to people, metrics and the event log.

    Attributes:
        windows: Labelled windows of the data set.
        seconds: From the freeze of the data set to the decision, with any time between a kill and the restart.
        epochs: None if the version was registered by an older castloop, which did not say.
        scores: Of the challenger on the gate windows.
        champion: The version that it was held against, None without one.
        champion_scores: Of the champion on the same windows, None without one or if it cannot score.
        baselines: Scores of simple models, fitted on the same training part, on the same windows.
        baseline_gap: AUC-ROC of the challenger less that of the better baseline.
        checks: Of the gate, whole.
    """

    number: int
    trigger: Trigger
    version: int
    parent: int | None
    windows: int
    defects: int
    seconds: float
    epochs: int | None
    decision: Literal["promoted", "refused"]
    reasons: tuple[str, ...]
    scores: dict[str, float]
    champion: int | None = None
    champion_scores: dict[str, float] | None
    baselines: dict[str, dict[str, float]] = {}
    baseline_gap: float | None = None
    checks: tuple[Check, ...] = ()
