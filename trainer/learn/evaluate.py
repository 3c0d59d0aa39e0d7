"""Scores of a model on labelled windows.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.device import prepare_thread
from trainer.learn.model import SteelDefectLSTM

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Scores:
    """How a model ranks and decides on one set of windows; defective is the positive class."""

    auc_roc: float
    auc_pr: float
    f1: float
    precision: float
    recall: float
    brier: float
    base_rate: float
    num_windows: int
    num_defects: int


def evaluate(y_N: Labels, prob_N: Probabilities, threshold: float) -> Scores:
    """Scores probabilities; a window counts as defective when its probability reaches the threshold.

    Precision without any window called defective, and F1 without any hit, are 0 (scikit-learn's convention).

    Raises:
        NotEnoughDataError: Only one class is there.
        ModelInputError: Lengths differ or a probability is not in [0, 1].
    """
    y_N = _checked(y_N, prob_N)
    called_N = prob_N >= threshold
    hits, num_called, num_defects = int((called_N & (y_N == 1)).sum()), int(called_N.sum()), int(y_N.sum())
    return Scores(
        auc_roc=float(roc_auc_score(y_N, prob_N)),
        auc_pr=float(average_precision_score(y_N, prob_N)),
        f1=2 * hits / (num_called + num_defects),
        precision=hits / num_called if num_called else 0.0,
        recall=hits / num_defects,
        brier=float(np.mean((prob_N - y_N) ** 2)),
        base_rate=num_defects / len(y_N),
        num_windows=len(y_N),
        num_defects=num_defects,
    )


def best_threshold(y_N: Labels, prob_N: Probabilities) -> float:
    """Finds the threshold with the highest F1, the highest such threshold on a tie; use validation windows.

    Raises:
        NotEnoughDataError: Only one class is there.
        ModelInputError: Lengths differ or a probability is not in [0, 1].
    """
    y_N = _checked(y_N, prob_N)
    precision, recall, thresholds = precision_recall_curve(y_N, prob_N)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    best = np.flatnonzero(f1[:-1] == f1[:-1].max())[-1]
    return float(thresholds[best])


def predict(
    model: SteelDefectLSTM,
    x_NTF: npt.NDArray[np.float32],
    mask_NT: npt.NDArray[np.bool_] | None = None,
    *,
    batch_size: int = 256,
    num_threads: int = 1,
) -> Probabilities:
    """Scores raw windows in batches, on the model's device.

    Returns:
        prob_N, float64: probability of a defect as the weighted loss sees it.

    Raises:
        ModelInputError: Shapes or types do not fit the model.
    """
    prepare_thread(num_threads)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(x_NTF), batch_size):
            rows = slice(start, start + batch_size)
            x = torch.tensor(x_NTF[rows], device=device)
            mask = None if mask_NT is None else torch.tensor(mask_NT[rows], device=device)
            parts.append(torch.sigmoid(model(x, mask).double()).cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts) if parts else np.empty(0)


def _checked(y_N: Labels, prob_N: Probabilities) -> npt.NDArray[np.int64]:
    if y_N.shape != prob_N.shape or y_N.ndim != 1:
        raise ModelInputError(f"expected as many labels as probabilities, got {y_N.shape} and {prob_N.shape}")
    if not ((prob_N >= 0) & (prob_N <= 1)).all():
        raise ModelInputError("a probability is NaN or outside [0, 1]")
    labels_N = y_N.astype(np.int64)
    num_defects = int(labels_N.sum())
    if num_defects in (0, len(labels_N)):
        raise NotEnoughDataError(
            f"scores need both classes, got {num_defects} defective of {len(labels_N)} windows"
        )
    return labels_N
