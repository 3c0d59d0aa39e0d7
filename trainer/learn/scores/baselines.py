"""Simple models that the LSTM is held against: two classifiers on the statistics of each window.

Shapes: N windows, T steps, F sensors, S statistics, those that the members of the model see.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from trainer.errors import ModelInputError
from trainer.learn.members.labelled import LabelledPart
from trainer.learn.members.part_statistics import PartStatistics
from trainer.learn.members.statistics import WindowStatistics
from trainer.learn.scores.evaluate import Probabilities, Scores, best_threshold, both_classes, evaluate

MAX_ITERATIONS = 1000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BaselineScores:
    """How a baseline did on the test part, and what it scored each window."""

    scores: Scores
    prob_N: Probabilities


class Baseline:
    """A fitted classifier on window statistics.

    A statistic without a value in any window of the training part is left out for good.
    """

    def __init__(self, classifier: Any, seen_S: npt.NDArray[np.bool_], statistics: WindowStatistics) -> None:
        self._classifier, self._seen_S, self._statistics = classifier, seen_S, statistics

    def predict(self, x_NTF: npt.NDArray[np.float32], mask_NT: npt.NDArray[np.bool_]) -> Probabilities:
        """Scores raw windows.

        Returns:
            prob_N, float64: probability of a defect, the classes unweighted.

        Raises:
            ModelInputError: Shapes do not fit.
        """
        return self.predict_from(self._statistics(x_NTF, mask_NT))

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
        seed: Of the boosting.

    Raises:
        NotEnoughDataError: One class only, or fewer than two windows.
        ModelInputError: Shapes do not fit, a label is not 0 or 1, or there is no valid value at all.
    """
    part = LabelledPart(x_NTF, mask_NT, y_N)
    statistics = PartStatistics.chosen(part)
    return _fit(statistics.statistics, statistics(part), part.labels, seed)


def _fit(
    statistics: WindowStatistics, stats_NS: Floats, y_N: npt.NDArray[np.generic], seed: int
) -> dict[str, Baseline]:
    if y_N.shape != stats_NS.shape[:1]:
        raise ModelInputError(f"expected {len(stats_NS)} labels, got shape {y_N.shape}")
    labels_N = both_classes(y_N, "baselines")
    seen_S = np.asarray(np.isfinite(stats_NS).any(axis=0), dtype=np.bool_)
    # A sensor's mean comes first; the share of steps without a value is there for all.
    if not seen_S[: statistics.num_sensors].any():
        raise ModelInputError(f"no valid value in {len(stats_NS)} windows: nothing to fit baselines on")
    # One thread: several beside a busy process take many times longer, and sums could differ by their order.
    with threadpool_limits(1), warnings.catch_warnings():
        # Classes that can be told apart draw the weights to infinity; the order of the windows settles long before.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {
            name: Baseline(classifier.fit(stats_NS[:, seen_S], labels_N), seen_S, statistics)
            for name, classifier in _classifiers(seed).items()
        }


def score_baselines(
    train: LabelledPart,
    validation: LabelledPart,
    test: LabelledPart,
    *,
    seed: int = 0,
    statistics: PartStatistics | None = None,
) -> dict[str, BaselineScores]:
    """Fits on the first two parts and scores on the third, as linear model and trees of the model are treated.

    The threshold is the best one on the second part when only the first one is fitted.

    Args:
        statistics: What the model sees; None: chosen on the training part.

    Raises:
        NotEnoughDataError: A part has one class only.
        ModelInputError: Shapes do not fit, or the training part has no valid value.
    """
    statistics = statistics or PartStatistics.chosen(train)
    train_NS, validation_NS, test_NS = (statistics(part) for part in (train, validation, test))
    stats_NS = np.concatenate([train_NS, validation_NS])
    known = _fit(statistics.statistics, stats_NS, np.concatenate([train.labels, validation.labels]), seed)
    scores = {}
    for name, of_train in _fit(statistics.statistics, train_NS, train.labels, seed).items():
        threshold = best_threshold(validation.labels, of_train.predict_from(validation_NS))
        prob_N = known[name].predict_from(test_NS)
        scores[name] = BaselineScores(evaluate(test.labels, prob_N, threshold), prob_N)
    return scores


def _classifiers(seed: int) -> dict[str, Any]:
    return {
        "logistic_regression": make_pipeline(
            SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)
        ),
        # Windows set aside at random to stop early would be neighbours of those that are fitted, and a statistic that
        # few windows have could be missing in all others.
        "hist_gradient_boosting": HistGradientBoostingClassifier(random_state=seed, early_stopping=False),
    }
