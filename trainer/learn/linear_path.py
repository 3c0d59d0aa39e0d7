"""A logistic regression on window statistics beside the LSTM.

With few windows, or many sensors of which few matter, an LSTM learns noise where a regression finds the level that
tells defects. The two are summed up as logits, and validation says how much each counts. The regression is fitted at
once, not by the steps of the training: trained together, as in wide and deep learning (https://arxiv.org/abs/1606.07792),
it explains the easy windows within an epoch, and the LSTM no longer found what only a sequence shows.

Shapes: N windows, S statistics.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

# Of the squared weights beside the mean loss over N windows, as 1 / (2 N): the penalty of the baseline.
INVERSE_PENALTY = 1.0
MAX_ITERATIONS = 100
# So small that the weights are the same wherever they are computed, up to rounding.
TOLERANCE = 1e-9


class LinearPath(nn.Module):
    """Adds a share of its own logit to that of the LSTM and its head.

    All it holds are buffers: no optimizer moves them.

    Args:
        num_statistics: S.
    """

    weight_S: Tensor
    bias: Tensor
    share: Tensor

    def __init__(self, num_statistics: int) -> None:
        super().__init__()
        self.register_buffer("weight_S", torch.zeros(num_statistics))
        self.register_buffer("bias", torch.tensor(0.0))
        self.register_buffer("share", torch.tensor(0.0))

    def forward(self, logits_N: Tensor, stats_NS: Tensor) -> Tensor:
        """Returns ``(1 - share) * logits_N + share * regression``; with a share of 0 `logits_N` to the bit."""
        return torch.lerp(logits_N, stats_NS @ self.weight_S + self.bias, self.share)

    def set_share(self, share: float) -> None:
        """Sets how much the regression counts, 0 to 1."""
        self.share.fill_(share)

    @torch.no_grad()
    def fit(self, stats_NS: Tensor, y_N: Tensor, weight_N: Tensor) -> None:
        """Fits the regression and leaves it out until its share is set.

        Args:
            stats_NS: As `forward` takes them.
            y_N: 1 = defective, 0 = good; both classes.
            weight_N: What each window counts in the loss, not all 0.
        """
        self.set_share(0.0)
        columns_NS = stats_NS.cpu().double().numpy()
        mean_S, std_S = columns_NS.mean(axis=0), columns_NS.std(axis=0)
        gain_S = np.divide(1.0, std_S, out=np.zeros_like(std_S), where=std_S > 0)
        weight = weight_N.cpu().double().numpy()
        coefficient_S, intercept = _regress(
            (columns_NS - mean_S) * gain_S, y_N.cpu().numpy() > 0, weight / weight.mean()
        )
        self.weight_S.copy_(torch.from_numpy(coefficient_S * gain_S))
        self.bias.fill_(float(intercept - (coefficient_S * gain_S) @ mean_S))


def _regress(
    z_NS: npt.NDArray[np.float64], y_N: npt.NDArray[np.bool_], weight_N: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    regression = LogisticRegression(
        C=INVERSE_PENALTY, solver="newton-cholesky", max_iter=MAX_ITERATIONS, tol=TOLERANCE
    )
    # One thread: sums of several may differ by their order.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(z_NS, y_N, sample_weight=weight_N)
    return regression.coef_[0], float(regression.intercept_[0])
