"""The candidate: a trained challenger as a model file, with its scores and where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import safetensors.numpy
from pydantic import BaseModel, ConfigDict

from trainer.cycle.challenger import Challenger
from trainer.data.dataset import Dataset
from trainer.learn.config import ModelSettings
from trainer.learn.scores.baselines import score_baselines
from trainer.learn.scores.evaluate import Probabilities, evaluate
from trainer.release.client.artifact import DatasetInfo, Manifest, write_artifact

FIGURES = ("auc_roc", "auc_pr", "f1")


class TrainingSummary(BaseModel):
    """How a training went, as it is kept beside the version.

    Attributes:
        start: What the network that was taken started from.
        members: What each member counts.
        seconds: All trainings and fits of the cycle.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    epochs: int | None = None
    best_epoch: int | None = None
    start: str | None = None
    members: dict[str, float] = {}
    stop_reason: str | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, challenger: Challenger) -> TrainingSummary:
        """The summary of a challenger."""
        trained = challenger.trained
        return cls(
            epochs=len(trained.training.epochs),
            best_epoch=trained.training.best_epoch,
            start=trained.start,
            members=challenger.published.model.combination.weights,
            stop_reason=trained.training.stop_reason,
            seconds=round(challenger.seconds, 3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What a version consists of.

    Attributes:
        published: The model file.
        judged: That of what the gate looks at; None: the same.
        baselines: Scores of the baselines on the windows of the gate, in their order, as a safetensors file.
    """

    published: bytes
    judged: bytes | None
    baselines: bytes


def candidate(
    challenger: Challenger,
    dataset: Dataset,
    settings: ModelSettings,
    *,
    model_name: str,
    version: int,
    cycle: int,
    now: datetime,
) -> Candidate:
    """Returns the files: scores and baselines on the gate part.

    Raises:
        NotEnoughDataError: A part has one class only.
    """
    members, judged = challenger.members, challenger.judged
    gate = members.gate
    scores = evaluate(gate.labels, members.probabilities(judged.model, gate), judged.threshold)
    baselines = score_baselines(
        members.train, members.validation, gate, seed=settings.training.seed, statistics=members.statistics
    )
    frozen = dataset.manifest
    manifest = Manifest(
        model_name=model_name,
        version=version,
        parent=challenger.trained.parent,
        cycle=cycle,
        created_at=now,
        architecture=settings.architecture.model_dump(mode="json"),
        members=challenger.published.model.combination.weights,
        sensors=frozen.data.sensors,
        period_ms=frozen.data.period_ms,
        grid_phase_ms=frozen.data.grid_phase_ms,
        window=frozen.spec,
        threshold=challenger.published.threshold,
        dataset=DatasetInfo(id=frozen.id, num_windows=len(dataset.y_N), num_defects=int(dataset.y_N.sum())),
        scores={name: float(value) for name, value in dataclasses.asdict(scores).items()},
        baselines={
            name: {figure: float(getattr(each.scores, figure)) for figure in FIGURES}
            for name, each in baselines.items()
        },
    )
    of_judged = manifest.model_copy(
        update={"members": judged.model.combination.weights, "threshold": judged.threshold}
    )
    return Candidate(
        published=write_artifact(challenger.published.model.tensors(), manifest),
        judged=None if challenger.published is judged else write_artifact(judged.model.tensors(), of_judged),
        baselines=_scores_file({name: each.prob_N for name, each in baselines.items()}),
    )


def _scores_file(scores: Mapping[str, Probabilities]) -> bytes:
    return safetensors.numpy.save(dict(scores))


def read_scores_file(data: bytes) -> dict[str, Probabilities]:
    """Scores by name."""
    return safetensors.numpy.load(data)
