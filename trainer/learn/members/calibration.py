"""From a score that ranks to a probability: a sigmoid, fitted to windows that nothing was trained on.

Shapes: N windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from trainer.errors import ArtifactError

Floats = npt.NDArray[np.float64]
# Smaller: a score that tells nothing gives the same probability to all, and its ranking is lost in rounding.
MIN_SLOPE = 1e-3
MAX_STEPS = 100
# Of slope and offset in a file. Larger: products of finite scores are not finite.
LARGEST = 1e9
# Of the prior of a correction. Smaller: a score that is too sure stays so. Larger: a stretch of time that is unlike
# the others changes what a score means.
SPREAD_OF_LOG_SLOPE = 0.11
SPREAD_OF_OFFSET = 0.45


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = 1 / (1 + exp(-(slope * score + offset))); a slope above 0 leaves the ranking as it is."""

    slope: float = 1.0
    offset: float = 0.0

    def log_odds(self, score_N: Floats) -> Floats:
        """Returns the logarithm of prob / (1 - prob)."""
        return np.asarray(self.slope * score_N + self.offset)

    def __call__(self, score_N: Floats) -> Floats:
        """Returns prob_N."""
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * self.log_odds(score_N)))

    def tensor(self) -> Floats:
        """Slope and offset, as a model file holds them."""
        return np.array([self.slope, self.offset])

    @classmethod
    def from_tensor(cls, tensor: npt.NDArray[np.generic] | None) -> Self:
        """Reads what `tensor` gave.

        Raises:
            ArtifactError: It is not two finite numbers, the slope above 0.
        """
        if tensor is None or tensor.shape != (2,) or tensor.dtype != np.float64:
            raise ArtifactError("calibration: expected float64 [2], slope and offset")
        slope, offset = map(float, tensor)
        if not (0 < slope < LARGEST and abs(offset) < LARGEST):
            raise ArtifactError(
                f"calibration: slope {slope} and offset {offset} turn no score into a probability"
            )
        return cls(slope, offset)


def fit_calibration(score_N: Floats, y_N: npt.NDArray[np.bool_]) -> Calibration:
    """Fits slope and offset to the cross-entropy, of a score of any scale.

    Labels are moved by what one more window of each class would say (Platt 1999, "Probabilistic Outputs for Support
    Vector Machines"), so a score that tells the classes apart does not promise certainty. Newton's steps, halved
    where they overshoot (Lin, Lin and Weng 2007, "A Note on Platt's Probabilistic Outputs").

    Args:
        score_N: Higher: rather defective.
        y_N: True = defective; both classes.
    """
    num_defects, num_good = int(y_N.sum()), int((~y_N).sum())
    target_N = np.where(y_N, (num_defects + 1) / (num_defects + 2), 1 / (num_good + 2))
    theta = np.array([0.0, np.log((num_defects + 1) / (num_good + 1))])
    z_N2 = np.column_stack([score_N, np.ones(len(y_N))])
    loss = _loss(z_N2 @ theta, target_N)
    for _ in range(MAX_STEPS):
        prob_N = 0.5 + 0.5 * np.tanh(0.5 * (z_N2 @ theta))
        gradient = z_N2.T @ (prob_N - target_N)
        hessian = (z_N2 * (prob_N * (1 - prob_N))[:, None]).T @ z_N2 + 1e-10 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-8:
            ahead = theta - size * step
            if (new := _loss(z_N2 @ ahead, target_N)) < loss:
                break
            size /= 2
        else:
            break
        done = loss - new < 1e-12 * max(1.0, abs(loss))
        theta, loss = ahead, new
        if done:
            break
    if theta[0] >= MIN_SLOPE:
        return Calibration(float(theta[0]), float(theta[1]))
    rate = (num_defects + 1) / (num_defects + num_good + 2)
    return Calibration(MIN_SLOPE, float(np.log(rate / (1 - rate)) - MIN_SLOPE * score_N.mean()))


def fit_correction(log_odds_N: Floats, y_N: npt.NDArray[np.bool_], num_groups: int) -> Calibration:
    """Fits slope and offset of a score that is meant as log-odds already, so far as the evidence goes.

    Cross-entropy, the windows together counting as much as there are groups, and a prior: normal, of the logarithm of
    the slope and of the offset. Windows of a few stretches of time say little of the next one: on a rig whose faults
    came one after the other, scores that were calibrated by the stretches before ranked worse over time than without.

    Args:
        log_odds_N: Higher: rather defective.
        y_N: True = defective; both classes.
        num_groups: Of the windows.
    """
    share = num_groups / len(y_N)
    spread_2 = np.array([SPREAD_OF_LOG_SLOPE, SPREAD_OF_OFFSET])

    def objective(theta_2: Floats) -> tuple[float, Floats]:
        slope, offset = np.exp(theta_2[0]), theta_2[1]
        logit_N = slope * log_odds_N + offset
        error_N = 0.5 + 0.5 * np.tanh(0.5 * logit_N) - y_N
        gradient_2 = share * np.array([slope * (error_N @ log_odds_N), error_N.sum()])
        loss = share * _loss(logit_N, y_N.astype(np.float64)) + 0.5 * float(((theta_2 / spread_2) ** 2).sum())
        return loss, gradient_2 + theta_2 / spread_2**2

    bounds = [(np.log(MIN_SLOPE), -np.log(MIN_SLOPE)), (None, None)]
    found_2 = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Calibration(float(np.exp(found_2[0])), float(found_2[1]))


def _loss(logit_N: Floats, target_N: Floats) -> float:
    return float((np.logaddexp(0, logit_N) - target_N * logit_N).sum())
