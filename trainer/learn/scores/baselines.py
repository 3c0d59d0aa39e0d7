"""Simple models that the LSTM is held against: two classifiers on the statistics of each window.

Shapes: N windows, T steps, F sensors, S statistics (mean, std, min, max and slope of each sensor).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from trainer.errors import ModelInputError
from trainer.learn.model.normalisation import NUM_STATISTICS, window_statistics
from trainer.learn.model.rows import windows_a_pass
from trainer.learn.scores.evaluate import Probabilities, Scores, best_threshold, both_classes, evaluate

MAX_ITERATIONS = 1000

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPart:
    """One part of a split.

    Attributes:
        x_NTF: Raw values with NaN for missing.
        mask_NT: Valid steps.
        y_N: 1 or True for a defective window.
        index_N: Which of these windows are the part, in its order; None: all.
    """

    x_NTF: npt.NDArray[np.float32]
    mask_NT: npt.NDArray[np.bool_]
    y_N: npt.NDArray[np.generic]
    index_N: Places | None = None

    @property
    def labels(self) -> npt.NDArray[np.generic]:
        """Of the windows of the part alone."""
        return self.y_N if self.index_N is None else self.y_N[self.index_N]

    def statistics(self) -> Floats:
        """stats_NS of the windows of the part.

        Raises:
            ModelInputError: Shapes do not fit.
        """
        return _statistics(self.x_NTF, self.mask_NT, self.index_N)


class Baseline:
    """A fitted classifier on window statistics.

    A statistic without a value in any window of the training part is left out for good.
    """

    def __init__(self, classifier: Any, seen_S: npt.NDArray[np.bool_]) -> None:
        self._classifier = classifier
        self._seen_S = seen_S

    def predict(self, x_NTF: npt.NDArray[np.float32], mask_NT: npt.NDArray[np.bool_]) -> Probabilities:
        """Scores raw windows.

        Returns:
            prob_N, float64: probability of a defect, the classes unweighted.

        Raises:
            ModelInputError: Shapes do not fit.
        """
        return self.predict_from(_statistics(x_NTF, mask_NT))

    def predict_from(self, stats_NS: Floats) -> Probabilities:
        """Scores windows by their statistics.

        Raises:
            ModelInputError: They are of other sensors.
        """
        if stats_NS.shape[1] != len(self._seen_S):
            raise ModelInputError(
                f"expected {len(self._seen_S)} statistics a window, got {stats_NS.shape[1]}: other sensors"
            )
        if not len(stats_NS):
            return np.empty(0)
        with threadpool_limits(1):
            prob_N: Probabilities = self._classifier.predict_proba(stats_NS[:, self._seen_S])[:, 1]
        return prob_N


def fit_baselines(
    x_NTF: npt.NDArray[np.float32],
    mask_NT: npt.NDArray[np.bool_],
    y_N: npt.NDArray[np.generic],
    seed: int = 0,
) -> dict[str, Baseline]:
    """Fits ``logistic_regression`` and ``hist_gradient_boosting``; the same windows and seed, the same models.

    The logistic regression sees gaps as the mean and all statistics standardised; the boosting takes both as
    they are.

    Args:
        x_NTF: Raw values, NaN = missing.
        mask_NT: True = valid step.
        y_N: 1 or True = defective.
        seed: Of the boosting, which sets windows aside for early stopping when there are over 10,000.

    Raises:
        NotEnoughDataError: One class only, or fewer than two windows.
        ModelInputError: Shapes do not fit, a label is not 0 or 1, or there is no valid value at all.
    """
    return _fit(_statistics(x_NTF, mask_NT), y_N, seed)


def _fit(stats_NS: Floats, y_N: npt.NDArray[np.generic], seed: int) -> dict[str, Baseline]:
    if y_N.shape != stats_NS.shape[:1]:
        raise ModelInputError(f"expected {len(stats_NS)} labels, got shape {y_N.shape}")
    labels_N = both_classes(y_N, "baselines")
    seen_S = np.asarray(np.isfinite(stats_NS).any(axis=0), dtype=np.bool_)
    if not seen_S.any():
        raise ModelInputError(f"no valid value in {len(stats_NS)} windows: nothing to fit baselines on")
    # One thread: several beside a busy process take many times longer, and sums could differ by their order.
    with threadpool_limits(1), warnings.catch_warnings():
        # Classes that can be told apart draw the weights to infinity; the order of the windows settles long before.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {
            name: Baseline(classifier.fit(stats_NS[:, seen_S], labels_N), seen_S)
            for name, classifier in _classifiers(seed, rarest=int(np.bincount(labels_N).min())).items()
        }


def score_baselines(
    train: LabelledPart, validation: LabelledPart, test: LabelledPart, seed: int = 0
) -> dict[str, Scores]:
    """Fits on one part, chooses the threshold on the second, scores on the third: as the model is treated.

    Raises:
        NotEnoughDataError: A part has one class only.
        ModelInputError: Shapes do not fit, or the training part has no valid value.
    """
    scores = {}
    baselines = _fit(train.statistics(), train.labels, seed)
    validation_NS, test_NS = validation.statistics(), test.statistics()
    for name, baseline in baselines.items():
        threshold = best_threshold(validation.labels, baseline.predict_from(validation_NS))
        scores[name] = evaluate(test.labels, baseline.predict_from(test_NS), threshold)
    return scores


def _classifiers(seed: int, rarest: int = 2) -> dict[str, Any]:
    """The models to fit, where the rarer class has so many windows."""
    return {
        "logistic_regression": make_pipeline(
            SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)
        ),
        # What is set aside to stop early holds windows of both classes; a single one cannot be on both sides.
        "hist_gradient_boosting": HistGradientBoostingClassifier(
            random_state=seed, early_stopping="auto" if rarest > 1 else False
        ),
    }


def _statistics(
    x_NTF: npt.NDArray[np.float32], mask_NT: npt.NDArray[np.bool_], index_N: Places | None = None
) -> Floats:
    """stats_NS, of raw values in float64: the level of a sensor may be a million times what it varies by."""
    if x_NTF.ndim != 3 or x_NTF.shape[1] < 1 or mask_NT.shape != x_NTF.shape[:2]:
        raise ModelInputError(f"expected x [N, T, F] and mask [N, T], got {x_NTF.shape} and {mask_NT.shape}")
    if mask_NT.dtype != np.bool_:
        raise ModelInputError(f"expected a bool mask, got {mask_NT.dtype}")
    num_windows, size = len(x_NTF if index_N is None else index_N), windows_a_pass(*x_NTF.shape[1:])
    # Filled, not joined: what a pass leaves behind would lie between its larger blocks, and the next one would find
    # no room for its own among those that were freed.
    stats_NS = np.empty((num_windows, NUM_STATISTICS * x_NTF.shape[2]))
    for start in range(0, num_windows, size):
        some = slice(start, start + size)
        place_B = some if index_N is None else index_N[some]
        x = torch.tensor(x_NTF[place_B], dtype=torch.float64)
        valid_NTF = torch.isfinite(x) & torch.tensor(mask_NT[place_B]).unsqueeze(2)
        stats_NS[some] = window_statistics(x.masked_fill(~valid_NTF, 0.0), valid_NTF).numpy()
    return stats_NS
