"""Logistic regression that leaves out the columns that tell nothing.

Most sensors have nothing to do with a given defect. The lasso (Tibshirani 1996) keeps few of them, where squared
penalties keep all: with forty sensors and one that matters, it ranked the test part of `benchmarks.faults` at 0.87
and a squared penalty at 0.72. Its strength is chosen by cross-validation over folds that the caller gives: those of a
data set are stretches of time.

Shapes: N windows, S columns, of which the first is the intercept and is not penalised, A of them that count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

# Penalties by the smallest one that keeps no column, from strong to weak. Coarser or shorter: a worse choice.
PENALTIES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02)
# So many penalties in a row that predict no better end the search.
PATIENCE = 3
# Steps of one penalty at most, and sweeps within a step: where columns nearly repeat each other it ends near the
# solution.
MAX_STEPS = 50
MAX_SWEEPS = 100
# By which share of the penalty the gradient of a weight may be off.
TOLERANCE = 1e-3
# Least curvature of a window: one that is told for certain still holds the step back a little.
LEAST_CURVATURE = 1e-5
# Of the windows, weighted: where a class counts less, its share is lost in rounding.
LEAST_SHARE = 1e-9

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LassoFit:
    """Weights, and what was predicted of windows without them.

    Attributes:
        weight_S: Without the intercept.
        held_out_N: Logit of each window by the weights that were fitted to the other folds; NaN where those had one
            class only.
    """

    weight_S: Floats
    intercept: float
    held_out_N: Floats


def fit_lasso(x_NS: Floats, y_N: npt.NDArray[np.bool_], weight_N: Floats, fold_N: Ints) -> LassoFit:
    """Fits weights and intercept to the cross-entropy plus the penalty times the sum of absolute weights.

    The same input gives the same bits on one kind of processor: one thread computes all sums.

    Args:
        x_NS: Columns of zero mean and unit variance, or all 0.
        y_N: True = defective.
        weight_N: What each window counts; both classes count.
        fold_N: Fold of each window; each fold is predicted by the others.
    """
    z_NS = np.column_stack([np.ones(len(x_NS)), x_NS])
    label_N = y_N.astype(np.float64)
    with threadpool_limits(1):
        rate = np.average(label_N, weights=weight_N)
        gradient_S = z_NS.T @ (weight_N * (rate - label_N)) / weight_N.sum()
        penalties = np.abs(gradient_S[1:]).max(initial=0.0) * np.array(PENALTIES)
        chosen, held_out_N = _chosen(z_NS, label_N, weight_N, fold_N, penalties)
        path = LassoPath(z_NS, label_N, weight_N)
        for penalty in penalties[: chosen + 1]:
            weight_S = path.at(penalty)
    return LassoFit(weight_S[1:], float(weight_S[0]), held_out_N)


def both_count(y_N: Floats, weight_N: Floats) -> bool:
    """Whether defective and good windows both count enough to fit anything to them."""
    counts = (float(weight_N @ y_N), float(weight_N @ (1 - y_N)))
    return min(counts) > LEAST_SHARE * sum(counts)


def _chosen(
    z_NS: Floats, y_N: Floats, weight_N: Floats, fold_N: Ints, penalties: Floats
) -> tuple[int, Floats]:
    """Place of the penalty that predicts best what it was not fitted to, and those predictions."""
    paths, held_out = [], []
    for fold in np.unique(fold_N):
        is_kept_N = fold_N != fold
        if both_count(y_N[is_kept_N], weight_N[is_kept_N]):
            # Without a copy: what counts nothing is left out.
            paths.append(LassoPath(z_NS, y_N, weight_N * is_kept_N))
            held_out.append(np.flatnonzero(~is_kept_N))
    losses: list[float] = []
    best_N = np.full(len(y_N), np.nan)
    for penalty in penalties:
        loss, logit_N = 0.0, np.full(len(y_N), np.nan)
        for path, some in zip(paths, held_out, strict=True):
            logit_N[some] = z_NS[some] @ path.at(penalty)
            loss += float(weight_N[some] @ (np.logaddexp(0, logit_N[some]) - y_N[some] * logit_N[some]))
        losses.append(loss)
        if int(np.argmin(losses)) == len(losses) - 1:
            best_N = logit_N
        if len(losses) - int(np.argmin(losses)) > PATIENCE:
            break
    return int(np.argmin(losses)), best_N


class LassoPath:
    """Solutions for one penalty after the other, each from the one before it.

    Newton's steps on the columns that count, each solved by coordinate descent; a column joins them where its
    gradient says so (Friedman, Hastie and Tibshirani 2010, "Regularization Paths for Generalized Linear Models via
    Coordinate Descent"). Steps that do not lower the objective are halved.

    Args:
        z_NS: Columns of unit variance behind one of ones.
        y_N: 1 = defective, 0 = good.
        weight_N: What each window counts; both classes count.
    """

    def __init__(self, z_NS: Floats, y_N: Floats, weight_N: Floats) -> None:
        self._z_NS, self._y_N, self._weight_N = z_NS, y_N, weight_N / weight_N.sum()
        self._weight_S = np.zeros(z_NS.shape[1])
        self._weight_S[0] = np.log(self._weight_N @ y_N) - np.log(self._weight_N @ (1 - y_N))

    def at(self, penalty: float) -> Floats:
        """Weights for a penalty."""
        weight_S = self._weight_S
        logit_N = self._logits(weight_S)
        for _ in range(MAX_STEPS):
            prob_N = 0.5 + 0.5 * np.tanh(0.5 * logit_N)
            gradient_S = self._z_NS.T @ (self._weight_N * (prob_N - self._y_N))
            counts_S = weight_S != 0
            off_S = np.where(
                counts_S,
                np.abs(gradient_S + penalty * np.sign(weight_S)),
                np.maximum(np.abs(gradient_S) - penalty, 0.0),
            )
            off_S[0] = abs(gradient_S[0])
            if off_S.max() <= TOLERANCE * penalty:
                break
            place_A = np.flatnonzero(counts_S | (off_S > 0))
            place_A = place_A if place_A[:1] == 0 else np.append(0, place_A)
            z_NA = self._z_NS[:, place_A]
            curvature_N = self._weight_N * np.maximum(prob_N * (1 - prob_N), LEAST_CURVATURE)
            wanted_A = _descend(
                (z_NA * curvature_N[:, None]).T @ z_NA, gradient_S[place_A], weight_S[place_A], penalty
            )
            moved = self._move(
                weight_S, place_A, wanted_A - weight_S[place_A], z_NA=z_NA, logit_N=logit_N, penalty=penalty
            )
            if moved is None:
                break
            weight_S, logit_N = moved
        self._weight_S = weight_S
        return weight_S

    def _logits(self, weight_S: Floats) -> Floats:
        counts_S = weight_S != 0
        return np.asarray(self._z_NS[:, counts_S] @ weight_S[counts_S])

    def _objective(self, logit_N: Floats, weight_S: Floats, penalty: float) -> float:
        loss = float(self._weight_N @ (np.logaddexp(0, logit_N) - self._y_N * logit_N))
        return loss + penalty * float(np.abs(weight_S[1:]).sum())

    def _move(
        self,
        weight_S: Floats,
        place_A: npt.NDArray[np.intp],
        step_A: Floats,
        *,
        z_NA: Floats,
        logit_N: Floats,
        penalty: float,
    ) -> tuple[Floats, Floats] | None:
        """The weights behind a step, and their logits; None where no part of it lowers the objective."""
        before, step_N, size = self._objective(logit_N, weight_S, penalty), z_NA @ step_A, 1.0
        while size > 1e-6:
            ahead_S, ahead_N = weight_S.copy(), logit_N + size * step_N
            ahead_S[place_A] += size * step_A
            if self._objective(ahead_N, ahead_S, penalty) < before:
                return ahead_S, ahead_N
            size /= 2
        return None


def _descend(hessian_AA: Floats, gradient_A: Floats, weight_A: Floats, penalty: float) -> Floats:
    """Weights that minimise the parabola around `weight_A` plus the penalty; the first one is not penalised."""
    found_A, slope_A = weight_A.copy(), gradient_A.copy()
    diagonal = hessian_AA.diagonal().tolist()
    for _ in range(MAX_SWEEPS):
        furthest = 0.0
        for a, curvature in enumerate(diagonal):
            if curvature <= 0:
                continue
            old = float(found_A[a])
            free = old - float(slope_A[a]) / curvature
            bound = penalty / curvature if a else 0.0
            new = free - bound if free > bound else free + bound if free < -bound else 0.0
            if new != old:
                found_A[a] = new
                slope_A += (new - old) * hessian_AA[a]
                furthest = max(furthest, curvature * abs(new - old))
        if furthest <= 0.1 * TOLERANCE * penalty:
            break
    return found_A
