"""Weighted binary cross-entropy."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from trainer.errors import NotEnoughDataError
from trainer.learn.config import LossConfig


class WeightedBCELoss:
    """Binary cross-entropy on logits; a defective window counts ``pos_weight`` times a good one.

    Args:
        config: The multiplier.
        num_good: Good windows of the training part.
        num_defects: Defective windows of the training part.

    Raises:
        NotEnoughDataError: One of the classes is missing.
    """

    def __init__(self, config: LossConfig, *, num_good: int, num_defects: int) -> None:
        if num_good < 1 or num_defects < 1:
            raise NotEnoughDataError(
                f"training needs defective and good windows, got {num_defects} defective and {num_good} good"
            )
        self.pos_weight = num_good / num_defects * config.weight_multiplier

    def __call__(self, logits_N: Tensor, y_N: Tensor) -> Tensor:
        """Returns the mean over the batch, a scalar."""
        pos_weight = logits_N.new_tensor(self.pos_weight)
        return binary_cross_entropy_with_logits(logits_N, y_N, pos_weight=pos_weight)
