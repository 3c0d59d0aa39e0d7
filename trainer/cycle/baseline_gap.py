"""How far a model is ahead of simple baselines, or behind them: what a cycle records, and the warning."""

from __future__ import annotations

import structlog

from trainer.data.dataset import Dataset
from trainer.data.split import Split
from trainer.learn.scores.baselines import LabelledPart, score_baselines
from trainer.release.client.artifact import Manifest

log = structlog.get_logger()

FIGURES = ("auc_roc", "auc_pr", "f1")


def score_beside(dataset: Dataset, split: Split, seed: int) -> dict[str, dict[str, float]]:
    """Fits the baselines on the training part and scores them on the gate part; the same data, the same scores.

    Raises:
        NotEnoughDataError: A part has one class only.
    """
    train, validation, gate = (
        LabelledPart(dataset.x_NTF, dataset.mask_NT, dataset.y_N, index_N)
        for index_N in (split.train_N, split.validation_N, split.gate_N)
    )
    scores = score_baselines(train, validation, gate, seed)
    return {
        name: {figure: float(getattr(each, figure)) for figure in FIGURES} for name, each in scores.items()
    }


def warn_if_behind(manifest: Manifest, *, decision: str) -> None:
    """Says that a baseline ranks better than a model does, when it does."""
    if manifest.baseline_gap is not None and manifest.is_behind:
        log.warning(
            "behind a baseline",
            version=manifest.version,
            decision=decision,
            baseline=manifest.better_baseline,
            baseline_gap=round(manifest.baseline_gap, 4),
            mend="see 'The model is behind a baseline' in docs/operations.md",
        )
