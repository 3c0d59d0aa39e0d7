"""Dropout whose masks come from a generator that the caller owns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 2**16


class SeededDropout(nn.Module):
    """Dropout that draws from ``generator``; None: torch's default generator of the device.

    Replicas of a model in several threads share the default generator, so what each of them draws from it
    depends on who comes first. With a generator for each replica it does not.

    Args:
        p: Probability that an element becomes 0, to 1 / 65,536; the others are divided by 1 - p.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None
        self._num_kept = min(max(round((1 - p) * LEVELS), 1), LEVELS - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Drops elements while training; otherwise x itself."""
        if not self.training or self.p == 0:
            return x
        scale = LEVELS / self._num_kept
        return x * (self._kept_of_bits(x) if x.device.type == "cpu" else self._kept(x)).mul_(scale)

    def extra_repr(self) -> str:
        """As `torch.nn.Dropout` shows it."""
        return f"p={self.p}"

    def _kept(self, x: Tensor) -> Tensor:
        return torch.empty_like(x).bernoulli_(self._num_kept / LEVELS, generator=self.generator)

    def _kept_of_bits(self, x: Tensor) -> Tensor:
        # Four elements a draw: five times as fast as bernoulli_, which takes a twentieth of a training step.
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        draws.random_(-(2**63), None, generator=self.generator)
        bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
        return torch.lt(bits, self._num_kept - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
