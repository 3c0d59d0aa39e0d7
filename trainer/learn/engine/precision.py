"""Half precision for wide layers on a GPU: bf16, or fp16 with a scaled loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from trainer.learn.config import Amp

# Hidden size. Smaller: half precision is chosen where the casts that it launches cost more than it saves (at 64 on an
# H200: 0.73 to 0.90 times as fast). Larger: left out where it gains (at 256 without a stem: 1.1 to 1.3 times).
MIN_HALF_HIDDEN = 256


def resolve(amp: Amp, device: torch.device, hidden_size: int) -> Literal["off", "bf16", "fp16"]:
    """What `auto` means: on a GPU with wide layers bf16, fp16 if it is too old for that; else full precision."""
    if amp != "auto":
        return amp
    if device.type != "cuda" or hidden_size < MIN_HALF_HIDDEN:
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


# Of fp16, which begins at 65,536. Smaller: more steps are left out before a gradient is known to be no good. Larger:
# a gradient that a smaller scale would have mended stops the run.
LOWEST_SCALE = 1.0


class Precision:
    """Autocast, and for fp16 the scaling of the loss that keeps small gradients above zero.

    Attributes:
        amp: What it came to on this device.
        may_overflow: Whether a gradient that is not finite is no fault: the scale was too large, and this step is
            left out.
    """

    def __init__(self, amp: Amp, device: torch.device, hidden_size: int) -> None:
        self.amp = resolve(amp, device, hidden_size)
        self._device = device
        self._scaler = torch.amp.GradScaler(device.type) if self.amp == "fp16" else None
        self.may_overflow = self._scaler is not None

    @property
    def is_lost(self) -> bool:
        """Whether no scale mends the gradients: they overflow, or are not numbers, step after step."""
        return self._scaler is not None and self._scaler.get_scale() < LOWEST_SCALE

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.amp == "off":
            return nullcontext()
        dtype = torch.bfloat16 if self.amp == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype=dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """What to differentiate instead of the loss."""
        if self._scaler is None:
            return loss
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, gradient_P: Tensor, optimizer: torch.optim.Optimizer, diverged: Tensor) -> Tensor:
        """Takes the scale off the gradients of the optimizer, whose memory is `gradient_P`; returns their norm.

        Args:
            diverged: Whether a step has; then no step may move the weights any more.
        """
        if self._scaler is not None:
            # A scaler leaves a step out for its gradients alone, whatever the loss was.
            gradient_P.masked_fill_(diverged, torch.inf)
            self._scaler.unscale_(optimizer)
        norm: Tensor = torch.linalg.vector_norm(gradient_P)
        return norm

    def step(self, optimizer: torch.optim.Optimizer, diverged: Tensor) -> None:
        """Moves the weights, unless a step has diverged; no wait for the device in either case."""
        if self._scaler is not None:
            self._scaler.step(optimizer)
            self._scaler.update()
            return
        if diverged.device.type == "cuda":
            # A fused optimizer looks at this flag on the device, as it does for a gradient scaler.
            optimizer.found_inf = diverged.float()  # type: ignore[attr-defined]  # torch's own protocol, untyped
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The scale and what it depends on."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
