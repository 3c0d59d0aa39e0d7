"""Stops when a validation figure no longer improves, and gives the best weights back."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from trainer.errors import TrainingDivergedError
from trainer.learn.config import EarlyStoppingConfig, Monitor

FALLING: frozenset[Monitor] = frozenset({"val_loss", "val_brier", "val_ece"})


def is_better(value: float | None, than: float | None, monitor: Monitor) -> bool:
    """Whether a monitored figure is better than another; any is better than none."""
    if value is None or than is None:
        return value is not None
    return value < than if monitor in FALLING else value > than


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies the model's state to the CPU."""
    return {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}


class EarlyStopping:
    """Watches one figure; losses, Brier score and calibration error should fall, the others rise.

    Attributes:
        best_value: The best figure so far, None before the first epoch.
        best_epoch: Its epoch.
    """

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self._config = config
        self._sign = -1.0 if config.monitor in FALLING else 1.0
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self._num_bad_epochs = 0
        self._best_weights: dict[str, Tensor] = {}

    @property
    def should_stop(self) -> bool:
        """Whether patience is used up."""
        return self._num_bad_epochs >= self._config.patience

    def update(self, epoch: int, value: float, model: nn.Module) -> bool:
        """Notes the figure of an epoch, and the weights when it is the best.

        Returns:
            Whether it improved by more than ``min_delta``.

        Raises:
            TrainingDivergedError: The figure is not finite.
        """
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"{self._config.monitor} of epoch {epoch} is {value}: lower the learning rate or look at the data"
            )
        if self.best_value is not None and not self.improves(value, self.best_value):
            self._num_bad_epochs += 1
            return False
        self.best_value, self.best_epoch, self._num_bad_epochs = value, epoch, 0
        self._best_weights = copy_weights(model)
        return True

    def improves(self, value: float, best: float) -> bool:
        """Whether a figure is better than another by more than ``min_delta``."""
        return self._sign * (value - best) > self._config.min_delta

    def restore(self, model: nn.Module) -> bool:
        """Loads the best weights; returns False before the first epoch, when there are none."""
        if self._best_weights:
            model.load_state_dict(self._best_weights)
        return bool(self._best_weights)

    def state_dict(self) -> dict[str, Any]:
        """Figures and best weights."""
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "num_bad_epochs": self._num_bad_epochs,
            "best_weights": self._best_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
        self._num_bad_epochs, self._best_weights = state["num_bad_epochs"], state["best_weights"]
