"""Decides whether a challenger replaces the champion: a paired bootstrap over casts of the AUC-PR.

Shape suffixes: N windows, C casts, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    *,
    baselines: Mapping[str, npt.ArrayLike] | None = None,
) -> GateDecision:
    """Compares a challenger with the champion, or the first model with the base rate; and with the better baseline.

    Args:
        y_N: True or 1 for a defective window.
        cast_N: The cast of each window; a cast is defective if one of its windows is.
        challenger_N: Scores or logits, larger means more likely defective.
        champion_N: The champion's on the same windows, None when there is no champion.
        baselines: Those of simple models on the same windows, by name.

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
    checks = _first_model(lower, config) if champion is None else _paired(difference_R, config)
    if config.baseline == "refuse":
        checks += _beside_baseline(
            y, resampled_R, baselines or {}, weights_RC=weights_RC, index_N=index_N, config=config
        )
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


def _paired(difference_R: FloatArray, config: GateConfig) -> tuple[Check, ...]:
    low, high = config.lower_quantile, 1 - config.lower_quantile
    upper, median, lower = (float(np.quantile(difference_R, each)) for each in (high, 0.5, low))
    what = f"upper {high:.0%} bound of the AUC-PR difference to the champion"
    return (
        at_least("upper_difference", what, upper, config.min_upper_difference),
        at_least("median_difference", "median of it", median, config.min_median),
        at_least("lower_difference", f"lower {low:.0%} bound of it", lower, config.min_lower_difference),
    )


def _beside_baseline(
    y_N: BoolArray,
    challenger_R: FloatArray,
    baselines: Mapping[str, npt.ArrayLike],
    *,
    weights_RC: IntArray,
    index_N: IntArray,
    config: GateConfig,
) -> tuple[Check, ...]:
    """Refuses what is behind the better baseline by more than chance explains."""
    scores = {name: _scores(name, score_N, len(y_N)) for name, score_N in baselines.items()}
    if not scores:
        return ()
    better = max(scores, key=lambda name: float(average_precision_score(y_N, scores[name])))
    difference_R = challenger_R - average_precisions(y_N, scores[better], weights_RC, index_N)
    upper = float(np.quantile(difference_R, 1 - config.lower_quantile))
    what = f"upper {1 - config.lower_quantile:.0%} bound of the AUC-PR difference to {better}"
    return (at_least("baseline_difference", what, upper, 0.0),)


def _ranking_scores(y_N: BoolArray, score_N: FloatArray) -> RankingScores:
    return RankingScores(
        auc_pr=float(average_precision_score(y_N, score_N)), auc_roc=float(roc_auc_score(y_N, score_N))
    )
