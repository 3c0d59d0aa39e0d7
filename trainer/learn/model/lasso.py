"""Logistic regression that leaves out the columns that tell nothing.

Most sensors have nothing to do with a given defect. The lasso (Tibshirani 1996) keeps few of them, where squared
penalties keep all: with forty sensors and one that matters, it ranked the test part of `benchmarks.faults` at 0.87
and a squared penalty at 0.72. Its strength is chosen by cross-validation over stretches of the windows, in the
order in which the loader hands them out. A data set hands them out by cast id, then by start: the windows of a cast
stay together, and the stretches follow time only where cast ids do.

Shapes: N windows, S columns, of which the first is the intercept and is not penalised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

NUM_FOLDS = 5
# Penalties by the smallest one that keeps no column, from strong to weak. Coarser or shorter: a worse choice.
PENALTIES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02)
# So many penalties in a row that predict no better end the search.
PATIENCE = 3
# Steps of one penalty at most: where columns nearly repeat each other it ends near the solution.
MAX_STEPS = 1000
# By which share of the penalty the gradient of a weight that is kept may be off.
TOLERANCE = 1e-3
# Of the windows, weighted: where a class counts less, its share is lost in rounding.
LEAST_SHARE = 1e-9

Floats = npt.NDArray[np.float64]


def fit_lasso(x_NS: Floats, y_N: npt.NDArray[np.bool_], weight_N: Floats) -> tuple[Floats, float]:
    """Fits weights and intercept to the cross-entropy plus the penalty times the sum of absolute weights.

    The same input gives the same bits on one kind of processor: one thread computes all sums.

    Args:
        x_NS: Columns of zero mean and unit variance, or all 0.
        y_N: True = defective.
        weight_N: What each window counts; both classes count.

    Returns:
        weight_S, without the intercept, and the intercept.
    """
    z_NS = np.column_stack([np.ones(len(x_NS)), x_NS])
    label_N = y_N.astype(np.float64)
    with threadpool_limits(1):
        rate = np.average(label_N, weights=weight_N)
        gradient_S = z_NS.T @ (weight_N * (rate - label_N)) / weight_N.sum()
        penalties = np.abs(gradient_S[1:]).max() * np.array(PENALTIES)
        chosen = _chosen(z_NS, label_N, weight_N, penalties)
        path = LassoPath(z_NS, label_N, weight_N)
        for penalty in penalties[: chosen + 1]:
            weight_S = path.at(penalty)
    return weight_S[1:], float(weight_S[0])


def both_count(y_N: Floats, weight_N: Floats) -> bool:
    """Whether defective and good windows both count enough to fit anything to them."""
    counts = (float(weight_N @ y_N), float(weight_N @ (1 - y_N)))
    return min(counts) > LEAST_SHARE * sum(counts)


def _chosen(z_NS: Floats, y_N: Floats, weight_N: Floats, penalties: Floats) -> int:
    """Place of the penalty that predicts best what it was not fitted to."""
    paths, held_out = [], []
    for stretch in np.array_split(np.arange(len(y_N)), NUM_FOLDS):
        is_kept_N = np.ones(len(y_N), dtype=np.bool_)
        is_kept_N[stretch] = False
        if both_count(y_N[is_kept_N], weight_N[is_kept_N]):
            paths.append(LassoPath(z_NS[is_kept_N], y_N[is_kept_N], weight_N[is_kept_N]))
            held_out.append(stretch)
    losses: list[float] = []
    for penalty in penalties:
        loss = 0.0
        for path, stretch in zip(paths, held_out, strict=True):
            logit_N = z_NS[stretch] @ path.at(penalty)
            loss += float(weight_N[stretch] @ (np.logaddexp(0, logit_N) - y_N[stretch] * logit_N))
        losses.append(loss)
        if len(losses) - int(np.argmin(losses)) > PATIENCE:
            break
    return int(np.argmin(losses))


class LassoPath:
    """Solutions for one penalty after the other, each from the one before it.

    Args:
        z_NS: Columns of unit variance behind one of ones.
        y_N: 1 = defective, 0 = good.
        weight_N: What each window counts; both classes count.
    """

    def __init__(self, z_NS: Floats, y_N: Floats, weight_N: Floats) -> None:
        self._z_NS, self._y_N, self._weight_N = z_NS, y_N, weight_N / weight_N.sum()
        # The curvature of a cross-entropy is a quarter at most.
        curvature = np.linalg.eigvalsh((z_NS * self._weight_N[:, None]).T @ z_NS)[-1] / 4
        self._step = 1.0 / float(curvature)
        self._weight_S = np.zeros(z_NS.shape[1])
        self._weight_S[0] = np.log(self._weight_N @ y_N) - np.log(self._weight_N @ (1 - y_N))

    def at(self, penalty: float) -> Floats:
        """Weights for a penalty: proximal gradients with momentum, which starts anew when it points uphill.

        FISTA, Beck and Teboulle 2009; the restart, O'Donoghue and Candes 2015.
        """
        here_S, ahead_S, momentum = self._weight_S, self._weight_S, 1.0
        for _ in range(MAX_STEPS):
            prob_N = 0.5 + 0.5 * np.tanh(0.5 * (self._z_NS @ ahead_S))
            next_S = ahead_S - self._step * (self._z_NS.T @ (self._weight_N * (prob_N - self._y_N)))
            next_S[1:] = np.sign(next_S[1:]) * np.maximum(np.abs(next_S[1:]) - self._step * penalty, 0.0)
            moved_S = next_S - here_S
            if (ahead_S - next_S) @ moved_S > 0:
                momentum = 1.0
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead_S = next_S + (momentum - 1) / following * moved_S
            here_S, momentum = next_S, following
            if np.abs(moved_S).max() <= TOLERANCE * penalty * self._step:
                break
        self._weight_S = here_S
        return here_S
