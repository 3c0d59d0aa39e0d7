"""From the outputs of the LSTM at each step to one vector a window.

Shapes: N windows, K steps, H outputs of the LSTM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.learn.config import Readout
from trainer.learn.model.recurrent import last_valid


class Attention(nn.Module):
    """Weights of the steps, learned: softmax over ``v * tanh(W h)``, as in https://arxiv.org/abs/1703.03130."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_outputs, num_outputs)
        self.score = nn.Linear(num_outputs, 1, bias=False)

    def forward(self, out_NKH: Tensor, mask_NK: Tensor) -> Tensor:
        """Returns weights_NK: 0 at masked steps, sum 1 over the others; all 0 in a window without a valid step."""
        score_NK = self.score(torch.tanh(self.hidden(out_NKH))).squeeze(2)
        masked_NK = score_NK.masked_fill(~mask_NK, torch.finfo(score_NK.dtype).min)
        # In a window without a valid step all scores are the same, and softmax shares 1 among them.
        return torch.softmax(masked_NK, dim=1) * mask_NK


def uses_attention(readout: Readout) -> bool:
    """Whether the readout needs an `Attention`."""
    return "attention" in _parts(readout)


def readout_size(readout: Readout, num_outputs: int) -> int:
    """How many numbers `read_out` returns for a window."""
    return len(_parts(readout)) * num_outputs


def read_out(
    readout: Readout, out_NKH: Tensor, mask_NK: Tensor, attention: Attention | None, num_backwards: int
) -> Tensor:
    """Sums up the valid steps of each window.

    Args:
        readout: What of: the last valid step, mean, maximum, attention, or several of them side by side.
        out_NKH: Outputs of the last layer.
        mask_NK: True = valid step.
        attention: Given where `uses_attention`.
        num_backwards: How many of the H outputs, the last ones, come from an LSTM that ran backwards: its last
            step is the first of the window.
    """
    parts = []
    for part in _parts(readout):
        if part == "last":
            parts.append(_last(out_NKH, mask_NK, num_backwards))
        elif part == "mean":
            v_NK1 = mask_NK.unsqueeze(2).to(out_NKH.dtype)
            parts.append((out_NKH * v_NK1).sum(dim=1) / v_NK1.sum(dim=1).clamp(min=1))
        elif part == "max":
            # Outputs lie in (-1, 1), so -1 never wins against a valid step and stays finite without one.
            parts.append(out_NKH.masked_fill(~mask_NK.unsqueeze(2), -1.0).amax(dim=1))
        elif attention is not None:
            parts.append((attention(out_NKH, mask_NK).unsqueeze(1) @ out_NKH).squeeze(1))
    return torch.cat(parts, dim=1)


def _parts(readout: Readout) -> list[str]:
    return readout.split("_")


def _last(out_NKH: Tensor, mask_NK: Tensor, num_backwards: int) -> Tensor:
    rows_N = torch.arange(out_NKH.shape[0], device=out_NKH.device)
    num_forwards = out_NKH.shape[2] - num_backwards
    forward_NH = out_NKH[rows_N, last_valid(mask_NK), :num_forwards]
    return torch.cat([forward_NH, out_NKH[:, 0, num_forwards:]], dim=1)
