"""A logistic regression on window statistics.

With few windows, or many sensors of which few matter, an LSTM learns noise where a regression finds the level that
tells defects. It sees raw statistics, standardised by a scaling of its own and never clipped: where a plant has
moved, a line goes on ranking. What it says counts less the further it goes (`damped`): on windows unlike any that it
was fitted to its log-odds run to hundreds where its held-out ones were within ten, and would outvote every other
member.

Shapes: N windows, S statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from trainer.errors import ArtifactError
from trainer.learn.members.lasso import both_count, fit_lasso

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# Of a statistic, by its size: what varies less is rounding of the values it was computed from.
RELATIVE_RESOLUTION = 1e-7
# A statistic that is this many deviations away counts as that far: past it, one wild value outweighs all others.
# Far outside what a drift reaches; it keeps a logit finite.
FURTHEST = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Weights and intercept behind a standardisation.

    Attributes:
        center_S: Taken off a statistic; one without a value reads as this.
        gain_S: What the rest is multiplied with; 0 for a statistic that tells nothing.
    """

    center_S: Floats
    gain_S: Floats
    weight_S: Floats
    intercept: float

    def logits(self, stats_NS: Floats) -> Floats:
        """Returns logits_N, damped; a window that says nothing gets the intercept."""
        used_S = self.weight_S != 0
        z_NS = standardised(stats_NS[:, used_S], self.center_S[used_S], self.gain_S[used_S])
        return damped(z_NS @ self.weight_S[used_S] + self.intercept)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a model file."""
        return {
            "center_S": self.center_S,
            "gain_S": self.gain_S,
            "weight_S": self.weight_S,
            "intercept": np.array([self.intercept]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], num_statistics: int) -> Self:
        """Reads what `tensors` gave.

        Raises:
            ArtifactError: An array is missing, of another shape or type, or not finite.
        """
        read = []
        for name, shape in (
            *((name, (num_statistics,)) for name in ("center_S", "gain_S", "weight_S")),
            ("intercept", (1,)),
        ):
            array = tensors.get(name)
            if array is None or array.shape != shape or array.dtype != np.float64:
                found = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
                raise ArtifactError(f"linear model: {name}: expected float64 {list(shape)}, got {found}")
            if not np.isfinite(array).all():
                raise ArtifactError(f"linear model: {name} is not finite")
            read.append(np.array(array))
        center_S, gain_S, weight_S, intercept = read
        with np.errstate(over="ignore"):
            largest = FURTHEST * np.abs(weight_S).sum() + abs(intercept[0])
        if not np.isfinite(largest):
            raise ArtifactError("linear model: weights add up to infinity")
        return cls(center_S, gain_S, weight_S, float(intercept[0]))


def fit_linear(
    stats_NS: Floats, y_N: npt.NDArray[np.bool_], weight_N: Floats, fold_N: Ints
) -> tuple[LinearModel, Floats]:
    """Fits the regression; the same input gives the same bits on one kind of processor.

    Args:
        stats_NS: NaN where a window says nothing.
        y_N: True = defective.
        weight_N: What each window counts. Where a class counts nothing, all weights are 0.
        fold_N: Fold of each window, for the strength of the penalty.

    Returns:
        The model, and logits_N, damped, of the windows by models that had not seen their fold; NaN where none could
        be fitted.
    """
    center_S, gain_S = scaling(stats_NS, weight_N)
    if not both_count(y_N.astype(np.float64), weight_N) or not gain_S.any():
        rate = (weight_N @ y_N + 0.5) / (weight_N.sum() + 1)
        logit = float(np.log(rate / (1 - rate)))
        return LinearModel(center_S, gain_S, np.zeros_like(center_S), logit), damped(np.full(len(y_N), logit))
    found = fit_lasso(standardised(stats_NS, center_S, gain_S), y_N, weight_N, fold_N)
    return LinearModel(center_S, gain_S, found.weight_S, found.intercept), damped(found.held_out_N)


def damped(log_odds_N: Floats) -> Floats:
    """Log-odds as they are near 0, growing like their logarithm beyond about 2; the order stays.

    Far from what it was fitted to, a line is as sure as it is wrong. Ranks over a campaign mix windows of many
    stretches, so one stretch that is sent far off spoils them all.
    """
    return np.asarray(2 * np.arcsinh(log_odds_N / 2))


def scaling(stats_NS: Floats, weight_N: Floats) -> tuple[Floats, Floats]:
    """Weighted mean, and one over the standard deviation, of each statistic over the windows that have it."""
    seen_NS = np.isfinite(stats_NS)
    counts_S = weight_N @ seen_NS
    filled_NS = np.where(seen_NS, stats_NS, 0.0)
    center_S = np.divide(weight_N @ filled_NS, counts_S, out=np.zeros(stats_NS.shape[1]), where=counts_S > 0)
    largest_S = np.abs(filled_NS).max(axis=0, initial=0.0)
    np.subtract(filled_NS, center_S, out=filled_NS, where=seen_NS)
    # By its largest: squares of values that a float32 still holds would not be finite.
    reach_S = np.abs(filled_NS).max(axis=0, initial=0.0)
    filled_NS /= np.where(reach_S > 0, reach_S, 1.0)
    spread_S = reach_S * np.sqrt(
        np.divide(weight_N @ filled_NS**2, counts_S, out=np.zeros_like(center_S), where=counts_S > 0)
    )
    varies_S = spread_S > np.maximum(RELATIVE_RESOLUTION * largest_S, np.finfo(np.float32).tiny)
    return center_S, np.divide(1.0, spread_S, out=np.zeros_like(spread_S), where=varies_S)


def standardised(stats_NS: Floats, center_S: Floats, gain_S: Floats) -> Floats:
    """Statistics of zero mean and unit variance over the windows of `scaling`; 0 where there is none."""
    z_NS = (stats_NS - center_S) * gain_S
    z_NS[~np.isfinite(z_NS)] = 0.0
    return np.clip(z_NS, -FURTHEST, FURTHEST, out=z_NS)
