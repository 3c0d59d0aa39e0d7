"""Scores of a model on labelled windows.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.device import prepare_thread
from trainer.learn.model.network import SteelDefectLSTM

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.generic]
Bools = npt.NDArray[np.bool_]
NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """How a model ranks and decides on one set of windows; defective is the positive class.

    Attributes:
        precision_good: With good as the positive class, as ``recall_good`` and ``f1_good``.
        brier: Mean squared distance of probability and label.
        ece: Expected calibration error: distance between the mean probability of a bin and its rate of defects,
            averaged over the windows; ten bins of the same width (Guo et al. 2017, "On Calibration of Modern
            Neural Networks", here on the probability of a defect).
        base_rate: Rate of defects.
    """

    auc_roc: float
    auc_pr: float
    f1: float
    precision: float
    recall: float
    f1_good: float
    precision_good: float
    recall_good: float
    accuracy: float
    brier: float
    ece: float
    base_rate: float
    num_windows: int
    num_defects: int


def evaluate(y_N: Labels, prob_N: Probabilities, threshold: float) -> Scores:
    """Scores probabilities; a window counts as defective when its probability reaches the threshold.

    Precision without any window of that call, and F1 without any hit, are 0 (scikit-learn's convention).

    Raises:
        NotEnoughDataError: Only one class is there.
        ModelInputError: Lengths differ, a label is not 0 or 1, or a probability is not in [0, 1].
    """
    y_N = _checked(y_N, prob_N)
    called_N, defective_N = prob_N >= threshold, y_N == 1
    precision, recall, f1 = _class_scores(called_N, defective_N)
    precision_good, recall_good, f1_good = _class_scores(~called_N, ~defective_N)
    return Scores(
        auc_roc=float(roc_auc_score(y_N, prob_N)),
        auc_pr=float(average_precision_score(y_N, prob_N)),
        f1=f1,
        precision=precision,
        recall=recall,
        f1_good=f1_good,
        precision_good=precision_good,
        recall_good=recall_good,
        accuracy=float(np.mean(called_N == defective_N)),
        brier=float(np.mean((prob_N - y_N) ** 2)),
        ece=_calibration_error(y_N, prob_N),
        base_rate=float(np.mean(defective_N)),
        num_windows=len(y_N),
        num_defects=int(defective_N.sum()),
    )


def rank_quality(y_N: Labels, score_N: Probabilities) -> float:
    """Mean of AUC-ROC and AUC-PR; both classes are there."""
    return float(roc_auc_score(y_N, score_N) + average_precision_score(y_N, score_N)) / 2


def probability_histogram(prob_N: Probabilities, num_bins: int = NUM_BINS) -> tuple[int, ...]:
    """Counts probabilities in bins of the same width; a bin holds its upper edge, the first one 0 as well.

    Raises:
        ModelInputError: A probability is not in [0, 1].
    """
    _check_probabilities(prob_N)
    return tuple(np.bincount(_bins(prob_N, num_bins), minlength=num_bins).tolist())


def best_threshold(y_N: Labels, prob_N: Probabilities) -> float:
    """Finds the threshold with the highest F1, the highest such threshold on a tie; use validation windows.

    Raises:
        NotEnoughDataError: Only one class is there.
        ModelInputError: Lengths differ or a probability is not in [0, 1].
    """
    y_N = _checked(y_N, prob_N)
    precision, recall, thresholds = precision_recall_curve(y_N, prob_N)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    # Equal scores of other counts round otherwise; those of other scores are never so close.
    best = np.flatnonzero(f1[:-1] >= f1[:-1].max() - 1e-14)[-1]
    return float(thresholds[best])


def predict(
    model: SteelDefectLSTM,
    x_NTF: npt.NDArray[np.float32],
    mask_NT: npt.NDArray[np.bool_] | None = None,
    *,
    index_N: npt.NDArray[np.integer[Any]] | None = None,
    batch_size: int = 256,
    num_threads: int = 1,
) -> Probabilities:
    """The sigmoid of `network_logits`: the probability of a defect as the weighted loss sees it."""
    logits_N = network_logits(
        model, x_NTF, mask_NT, index_N=index_N, batch_size=batch_size, num_threads=num_threads
    )
    return np.asarray(expit(logits_N))


def network_logits(
    model: SteelDefectLSTM,
    x_NTF: npt.NDArray[np.float32],
    mask_NT: npt.NDArray[np.bool_] | None = None,
    *,
    index_N: npt.NDArray[np.integer[Any]] | None = None,
    batch_size: int = 256,
    num_threads: int = 1,
) -> npt.NDArray[np.float64]:
    """Scores raw windows in batches, on the model's device.

    Args:
        index_N: Which of the windows, in which order; None: all.

    Returns:
        logits_N, as the weighted loss sees them.

    Raises:
        ModelInputError: Shapes or types do not fit the model.
    """
    prepare_thread(num_threads)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(x_NTF if index_N is None else index_N), batch_size):
            some = slice(start, start + batch_size)
            place_B = some if index_N is None else index_N[some]
            x = torch.tensor(x_NTF[place_B], device=device)
            mask = None if mask_NT is None else torch.tensor(mask_NT[place_B], device=device)
            parts.append(model(x, mask).double().cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts) if parts else np.empty(0)


def both_classes(y_N: Labels, needed_by: str) -> npt.NDArray[np.int64]:
    """Reads labels as integers.

    Args:
        needed_by: What needs both classes, in the plural.

    Raises:
        NotEnoughDataError: Only one class is there.
        ModelInputError: A label is not 0 or 1.
    """
    if not np.isin(y_N, (0, 1)).all():
        raise ModelInputError("a label is neither 0 nor 1")
    labels_N = y_N.astype(np.int64)
    num_defects = int(labels_N.sum())
    if num_defects in (0, len(labels_N)):
        raise NotEnoughDataError(
            f"{needed_by} need both classes, got {num_defects} defective of {len(labels_N)} windows"
        )
    return labels_N


def _class_scores(called_N: Bools, belongs_N: Bools) -> tuple[float, float, float]:
    """Precision, recall and F1 of one class; there is a window that belongs to it."""
    hits, num_called, num_there = int((called_N & belongs_N).sum()), int(called_N.sum()), int(belongs_N.sum())
    precision = hits / num_called if num_called else 0.0
    return precision, hits / num_there, 2 * hits / (num_called + num_there)


def _calibration_error(y_N: npt.NDArray[np.int64], prob_N: Probabilities) -> float:
    # Bin by bin: windows * |defects / windows - mean probability| = |sum of (label - probability)|.
    gaps = np.bincount(_bins(prob_N, NUM_BINS), weights=y_N - prob_N, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(y_N))


def _bins(prob_N: Probabilities, num_bins: int) -> npt.NDArray[np.intp]:
    # scikit-learn's calibration_curve cuts at the same edges.
    return np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], prob_N)


def _checked(y_N: Labels, prob_N: Probabilities) -> npt.NDArray[np.int64]:
    if y_N.shape != prob_N.shape or y_N.ndim != 1:
        raise ModelInputError(f"expected as many labels as probabilities, got {y_N.shape} and {prob_N.shape}")
    _check_probabilities(prob_N)
    return both_classes(y_N, "scores")


def _check_probabilities(prob_N: Probabilities) -> None:
    if not ((prob_N >= 0) & (prob_N <= 1)).all():
        raise ModelInputError("a probability is NaN or outside [0, 1]")
