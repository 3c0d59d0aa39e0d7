"""The candidate: a trained challenger as a model file, with its scores and where it comes from."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from trainer.cycle.baseline_gap import score_beside
from trainer.cycle.challenger import Challenger
from trainer.data.dataset import Dataset
from trainer.data.split import IntArray, Split
from trainer.learn.config import ModelSettings
from trainer.learn.report.training_metrics import TrainingResult
from trainer.learn.scores.evaluate import Probabilities, best_threshold, evaluate, predict
from trainer.release.client.artifact import DatasetInfo, Manifest, write_artifact


class TrainingSummary(BaseModel):
    """How a training went, as it is kept beside the version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epochs: int | None = None
    best_epoch: int | None = None
    linear_share: float | None = None
    stop_reason: str | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, result: TrainingResult) -> TrainingSummary:
        """The summary of a result; seconds count epochs before a restart as well."""
        return cls(
            epochs=len(result.epochs),
            best_epoch=result.best_epoch,
            linear_share=result.linear_share,
            stop_reason=result.stop_reason,
            seconds=round(sum(epoch.seconds for epoch in result.epochs), 3),
        )


def model_file(
    challenger: Challenger,
    dataset: Dataset,
    split: Split,
    settings: ModelSettings,
    *,
    model_name: str,
    version: int,
    cycle: int,
    now: datetime,
) -> bytes:
    """Returns the model file: threshold chosen on validation, scores and baselines on the gate part.

    Raises:
        NotEnoughDataError: A part has one class only.
    """
    val_N, gate_N = split.validation_N, split.gate_N

    def predicted(index_N: IntArray) -> Probabilities:
        threads = settings.training.num_threads
        return predict(challenger.model, dataset.x_NTF, dataset.mask_NT, index_N=index_N, num_threads=threads)

    threshold = best_threshold(dataset.y_N[val_N], predicted(val_N))
    scores = evaluate(dataset.y_N[gate_N], predicted(gate_N), threshold)
    frozen = dataset.manifest
    manifest = Manifest(
        model_name=model_name,
        version=version,
        parent=challenger.parent,
        cycle=cycle,
        created_at=now,
        architecture=settings.architecture.model_dump(mode="json"),
        sensors=frozen.data.sensors,
        period_ms=frozen.data.period_ms,
        grid_phase_ms=frozen.data.grid_phase_ms,
        window=frozen.spec,
        threshold=threshold,
        dataset=DatasetInfo(id=frozen.id, num_windows=len(dataset.y_N), num_defects=int(dataset.y_N.sum())),
        scores={name: float(value) for name, value in dataclasses.asdict(scores).items()},
        baselines=score_beside(dataset, split, settings.training.seed),
    )
    tensors = {name: tensor.cpu().numpy() for name, tensor in challenger.model.state_dict().items()}
    return write_artifact(tensors, manifest)
