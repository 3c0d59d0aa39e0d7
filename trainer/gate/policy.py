"""Decides whether a challenger replaces the champion: a paired bootstrap over casts of the AUC-PR.

Shape suffixes: N windows, C casts, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.gate.bootstrap import (
    BoolArray,
    FloatArray,
    IntArray,
    average_precisions,
    base_rates,
    resample_casts,
)
from trainer.gate.checks import Check, above, at_least
from trainer.gate.config import GateConfig


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Scores of one model on the gate windows; both lie between 0 and 1."""

    auc_pr: float
    auc_roc: float


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate decided, and on which figures.

    Attributes:
        checks: Each condition with its figures, whether it was met or not.
        comparison: What the challenger was held against.
        median: Of the resampled differences challenger - champion, or AUC-PR - base rate.
        lower: The lower bound of the same differences.
        base_rate: Share of the gate windows that are defective: the AUC-PR of a constant score.
    """

    checks: tuple[Check, ...]
    comparison: Literal["champion", "base-rate"]
    median: float
    lower: float
    base_rate: float
    challenger: RankingScores
    champion: RankingScores | None
    num_windows: int
    num_casts: int
    defective_casts: int
    good_casts: int

    @property
    def promote(self) -> bool:
        """Whether all conditions are met."""
        return all(check.met for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a condition."""
        return tuple(check.text for check in self.checks)


def decide(
    y_N: npt.ArrayLike,
    cast_N: npt.ArrayLike,
    challenger_N: npt.ArrayLike,
    champion_N: npt.ArrayLike | None,
    config: GateConfig,
) -> GateDecision:
    """Compares a challenger with the champion, or the first model with the base rate.

    Args:
        y_N: True or 1 for a defective window.
        cast_N: The cast of each window; a cast is defective if one of its windows is.
        challenger_N: Scores or logits, larger means more likely defective.
        champion_N: The champion's on the same windows, None when there is no champion.

    Raises:
        NotEnoughDataError: Too few defective or good casts; the message says how many are missing.
        ModelInputError: Lengths differ, a score is not finite, or a label is neither 0 nor 1.
    """
    y = _labels(y_N)
    challenger = _scores("challenger", challenger_N, len(y))
    champion = None if champion_N is None else _scores("champion", champion_N, len(y))
    index_N, defective_C = _casts(y, cast_N)
    _require_enough(defective_C, config)
    weights_RC = resample_casts(defective_C, config.num_bootstrap, np.random.default_rng(config.seed))
    resampled_R = average_precisions(y, challenger, weights_RC, index_N)
    reference_R = (
        base_rates(y, weights_RC, index_N)
        if champion is None
        else average_precisions(y, champion, weights_RC, index_N)
    )
    difference_R = resampled_R - reference_R
    median = float(np.median(difference_R))
    lower = float(np.quantile(difference_R, config.lower_quantile))
    checks = _first_model(lower, config) if champion is None else _paired(median, lower, config)
    return GateDecision(
        checks=checks,
        comparison="base-rate" if champion is None else "champion",
        median=median,
        lower=lower,
        base_rate=float(y.mean()),
        challenger=_ranking_scores(y, challenger),
        champion=None if champion is None else _ranking_scores(y, champion),
        num_windows=len(y),
        num_casts=len(defective_C),
        defective_casts=int(defective_C.sum()),
        good_casts=int((~defective_C).sum()),
    )


def _labels(y_N: npt.ArrayLike) -> BoolArray:
    labels = np.asarray(y_N)
    if labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise ModelInputError(f"labels must be one 0 or 1 a window, got shape {labels.shape}")
    return labels.astype(np.bool_)


def _scores(who: str, score_N: npt.ArrayLike, num_windows: int) -> FloatArray:
    scores = np.asarray(score_N, dtype=np.float64)
    if scores.shape != (num_windows,):
        raise ModelInputError(f"{who}: expected {num_windows} scores, got shape {scores.shape}")
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise ModelInputError(f"{who}: {bad} of {num_windows} scores are NaN or infinite")
    return scores


def _casts(y_N: BoolArray, cast_N: npt.ArrayLike) -> tuple[IntArray, BoolArray]:
    casts = np.asarray(cast_N)
    if casts.shape != y_N.shape:
        raise ModelInputError(f"expected the cast of {len(y_N)} windows, got shape {casts.shape}")
    names_C, index_N = np.unique(casts, return_inverse=True)
    defective_C = np.zeros(len(names_C), dtype=np.bool_)
    np.logical_or.at(defective_C, index_N, y_N)
    return index_N, defective_C


def require_enough_casts(y_N: npt.ArrayLike, cast_N: npt.ArrayLike, config: GateConfig) -> None:
    """Checks, before a training, that the gate could decide on these windows after it.

    Raises:
        NotEnoughDataError: Too few defective or good casts; the message says how many are missing.
    """
    _require_enough(_casts(_labels(y_N), cast_N)[1], config)


def _require_enough(defective_C: BoolArray, config: GateConfig) -> None:
    defective, good = int(defective_C.sum()), int((~defective_C).sum())
    missing = [
        f"{need - have} more {kind} cast{'s' if need - have > 1 else ''}"
        for kind, have, need in (
            ("defective", defective, config.min_defective_casts),
            ("good", good, config.min_good_casts),
        )
        if have < need
    ]
    if missing:
        raise NotEnoughDataError(
            f"the gate part has {defective} of {config.min_defective_casts} defective casts and "
            f"{good} of {config.min_good_casts} good casts; wait for {' and '.join(missing)}"
        )


def _first_model(lower: float, config: GateConfig) -> tuple[Check, ...]:
    what = f"first model: lower {config.lower_quantile:.0%} bound of AUC-PR above the base rate"
    return (above("first_lift", what, lower, config.min_first_lift),)


def _paired(median: float, lower: float, config: GateConfig) -> tuple[Check, ...]:
    bound = f"lower {config.lower_quantile:.0%} bound of it"
    return (
        at_least("median_difference", "median AUC-PR difference to the champion", median, config.min_median),
        at_least("lower_difference", bound, lower, config.min_lower_difference),
    )


def _ranking_scores(y_N: BoolArray, score_N: FloatArray) -> RankingScores:
    return RankingScores(
        auc_pr=float(average_precision_score(y_N, score_N)), auc_roc=float(roc_auc_score(y_N, score_N))
    )
