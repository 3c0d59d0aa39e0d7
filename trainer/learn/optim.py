"""One optimizer step: clip, refuse what is not finite, move the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer.errors import TrainingDivergedError
from trainer.learn.config import OptimizerConfig, SchedulerConfig


class ClippedAdam:
    """Adam with gradient clipping and ReduceLROnPlateau.

    Args:
        model: Whose parameters move.
        optimizer: Of Adam.
        scheduler: Of the learning rate.
        grad_clip_norm: Gradients are scaled down to this norm.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerConfig,
        scheduler: SchedulerConfig,
        *,
        grad_clip_norm: float,
    ) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._grad_clip_norm = grad_clip_norm
        self._adam = torch.optim.Adam(
            self._parameters,
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        )
        self._scheduler = ReduceLROnPlateau(
            self._adam, factor=scheduler.factor, patience=scheduler.patience, min_lr=scheduler.min_lr
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self._adam.param_groups[0]["lr"])

    def step(self, loss: Tensor) -> float:
        """Back-propagates and moves the weights.

        Returns:
            The norm of the gradient before clipping.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; the weights did not move.
        """
        self._adam.zero_grad(set_to_none=True)
        if not torch.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss is {loss.item()}: lower the learning rate or look at the data"
            )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._grad_clip_norm)
        if not torch.isfinite(norm):
            self._adam.zero_grad(set_to_none=True)
            raise TrainingDivergedError(f"the gradient norm is {norm.item()}: lower the learning rate")
        self._adam.step()
        return float(norm)

    def end_epoch(self, val_loss: float) -> None:
        """Lets the scheduler look at the validation loss."""
        self._scheduler.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {"adam": self._adam.state_dict(), "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._adam.load_state_dict(state["adam"])
        self._scheduler.load_state_dict(state["scheduler"])
