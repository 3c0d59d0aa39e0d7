"""How the learning rates change while a model is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LRScheduler,
    ReduceLROnPlateau,
    StepLR,
)

from trainer.learn.config import SchedulerConfig


class Schedule:
    """A scheduler that looks at epochs, times a warm-up that looks at optimizer steps.

    For ``warmup_steps`` steps the rates rise evenly: step i (from 1) has i / (warmup_steps + 1) of what the
    scheduler says, which goes on counting epochs meanwhile. The scheduler therefore works on rates of its own
    (those of a stand-in without weights); the optimizer gets their product, and a reduction during the warm-up
    keeps its effect after it.

    Args:
        optimizer: As it was built; its rates are set here from now on.
        config: Scheduler and warm-up.
    """

    def __init__(self, optimizer: Optimizer, config: SchedulerConfig) -> None:
        self._optimizer = optimizer
        self._warmup_steps = config.warmup_steps
        self._num_steps = 0
        self._stand_in = _stand_in(optimizer)
        self._scheduler = _build(self._stand_in, config)
        self._set_rates()

    @property
    def learning_rates(self) -> dict[str, float]:
        """The rate of the next step, by the name of the parameter group."""
        return {group["name"]: group["lr"] for group in self._optimizer.param_groups}

    def end_step(self) -> None:
        """Counts an optimizer step."""
        if self._num_steps < self._warmup_steps:
            self._num_steps += 1
            self._set_rates()

    def end_epoch(self, val_loss: float) -> None:
        """Counts an epoch; ``plateau`` looks at its validation loss."""
        # A scheduler warns when its optimizer has not moved before; this one has nothing to move.
        self._stand_in.step()
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(val_loss)
        else:
            self._scheduler.step()
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the further rates depend on, as plain data."""
        return {
            "num_steps": self._num_steps,
            "rates": [group["lr"] for group in self._stand_in.param_groups],
            "scheduler": self._scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict` and sets the optimizer's rates; before or after the optimizer's own state."""
        self._num_steps = state["num_steps"]
        self._scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(self._stand_in.param_groups, state["rates"], strict=True):
            group["lr"] = rate
        self._set_rates()

    def _set_rates(self) -> None:
        warmup = min(1.0, (self._num_steps + 1) / (self._warmup_steps + 1))
        for group, scheduled in zip(self._optimizer.param_groups, self._stand_in.param_groups, strict=True):
            group["lr"] = scheduled["lr"] * warmup


def _stand_in(optimizer: Optimizer) -> Optimizer:
    return torch.optim.SGD(
        [{"params": [torch.zeros(1)], "lr": float(group["lr"])} for group in optimizer.param_groups]
    )


def _build(optimizer: Optimizer, config: SchedulerConfig) -> LRScheduler:
    match config.name:
        case "plateau":
            return ReduceLROnPlateau(
                optimizer,
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                min_lr=config.min_lr,
            )
        case "cosine_warm_restarts":
            return CosineAnnealingWarmRestarts(
                optimizer, T_0=config.cosine_epochs, T_mult=config.cosine_factor, eta_min=config.min_lr
            )
        case "step":
            return StepLR(optimizer, config.step_epochs, gamma=config.step_factor)
        case "exponential":
            return ExponentialLR(optimizer, gamma=config.exponential_factor)
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
