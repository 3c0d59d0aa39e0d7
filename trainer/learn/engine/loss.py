"""What a wrong probability costs.

Shapes: N windows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.config import LossConfig


class DefectLoss:
    """Binary cross-entropy or focal loss on logits; a defective window counts ``pos_weight`` times a good one.

    With p the probability of a defect, z its logit, y the label and w the pos_weight:

    - cross-entropy: ``-w y log(p) - (1 - y) log(1 - p)``
    - focal loss: ``-w y (1 - p)^gamma log(p) - (1 - y) p^gamma log(1 - p)``; Lin et al. 2017, "Focal Loss for
      Dense Object Detection", equation 5, with alpha left to the pos_weight. Windows that are already right
      count less. It is computed from ``log(p) = logsigmoid(z)``, so no logit overflows.
    - label smoothing: ``y (1 - 2 s) + s`` in place of y.

    Args:
        config: Weight, focal loss, smoothing.
        num_good: Good windows of the training part.
        num_defects: Defective windows of the training part.

    Attributes:
        pos_weight: What a defective window counts.

    Raises:
        NotEnoughDataError: One of the classes is missing.
    """

    def __init__(self, config: LossConfig, *, num_good: int, num_defects: int) -> None:
        if num_good < 1 or num_defects < 1:
            raise NotEnoughDataError(
                f"training needs defective and good windows, got {num_defects} defective and {num_good} good"
            )
        self._config = config
        self.pos_weight = _pos_weight(config, num_good / num_defects)

    def __call__(self, logits_N: Tensor, y_N: Tensor, weight_N: Tensor | None = None) -> Tensor:
        """Costs each window, in the type of the labels: half-precision logits are widened first.

        Args:
            logits_N: Of the model.
            y_N: 0 or 1, floating point.
            weight_N: Factor of each window's loss.

        Returns:
            loss_N, unreduced.

        Raises:
            ModelInputError: Lengths differ.
        """
        for other_N in (y_N,) if weight_N is None else (y_N, weight_N):
            if other_N.shape != logits_N.shape:
                raise ModelInputError(
                    f"expected labels and weights {list(logits_N.shape)}, got {list(other_N.shape)}"
                )
        smoothing = self._config.label_smoothing
        loss_N = self._unweighted(logits_N.to(y_N.dtype), y_N * (1 - 2 * smoothing) + smoothing)
        return loss_N if weight_N is None else loss_N * weight_N

    def _unweighted(self, logits_N: Tensor, y_N: Tensor) -> Tensor:
        gamma = self._config.focal_gamma
        if gamma == 0:
            # Filled on the device; a tensor made of the number would be copied there, and a GPU waits for that.
            pos_weight = logits_N.new_full((), self.pos_weight)
            return binary_cross_entropy_with_logits(logits_N, y_N, pos_weight=pos_weight, reduction="none")
        log_p_N, log_q_N = logsigmoid(logits_N), logsigmoid(-logits_N)
        return -(
            self.pos_weight * y_N * torch.exp(gamma * log_q_N) * log_p_N
            + (1 - y_N) * torch.exp(gamma * log_p_N) * log_q_N
        )


def _pos_weight(config: LossConfig, class_ratio: float) -> float:
    if config.pos_weight == "auto":
        return class_ratio * config.weight_multiplier
    return 1.0 if config.pos_weight == "off" else config.pos_weight
