"""A logistic regression on window statistics beside the LSTM.

With few windows, or many sensors of which few matter, an LSTM learns noise where a regression finds the level that
tells defects. The two are summed up as logits, and validation says how much each counts. The regression is fitted at
once, not by the steps of the training: trained together, as in wide and deep learning (https://arxiv.org/abs/1606.07792),
it explains the easy windows within an epoch, and the LSTM no longer found what only a sequence shows.

Shapes: N windows, S statistics.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from trainer.learn.model.lasso import both_count, fit_lasso

# Of a statistic over the training part, by the spread that the normalisation was fitted to. What varies less is
# rounding, as of a sensor that stands still while a champion is fine-tuned.
MIN_SPREAD = 1e-3


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
    def fit(self, stats_NS: Tensor, y_N: Tensor, weight_N: Tensor, pos_weight: float) -> None:
        """Fits the regression and leaves it out until its share is set.

        Args:
            stats_NS: As `forward` takes them.
            y_N: 1 = defective, 0 = good; both classes.
            weight_N: What each window counts. Where a class counts nothing, the regression is left at 0.
            pos_weight: What a defective window counts besides in the loss of the LSTM. It moves the best intercept
                of a regression by its logarithm, and so it does here.
        """
        for each in (self.share, self.weight_S, self.bias):
            each.zero_()
        label, weight = (each.cpu().double().numpy() for each in (y_N, weight_N))
        if not both_count(label, weight):
            return
        column_NS = stats_NS.cpu().double().numpy()
        mean_S = np.average(column_NS, axis=0, weights=weight)
        std_S = np.sqrt(np.average((column_NS - mean_S) ** 2, axis=0, weights=weight))
        gain_S = np.divide(1.0, std_S, out=np.zeros_like(std_S), where=std_S > MIN_SPREAD)
        weight_S, intercept = fit_lasso((column_NS - mean_S) * gain_S, label > 0, weight)
        self.weight_S.copy_(torch.from_numpy(weight_S * gain_S))
        self.bias.fill_(intercept - float((weight_S * gain_S) @ mean_S) + math.log(pos_weight))
