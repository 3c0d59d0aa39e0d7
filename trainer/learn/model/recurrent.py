"""Single-layer LSTMs, one after the other.

Layers of their own, because dropout between them then draws from the generator of the model, and because each can be
frozen by its name. torch.nn.LSTM with several layers computes the same, no faster.

Shapes: N windows, K steps, C channels, H outputs of a layer, R = N * K rows.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from trainer.learn.model.dropout import SeededDropout


class BidirectionalLSTM(nn.Module):
    """Two LSTMs, one of which starts at the last valid step of each window.

    Windows are turned round by an index instead of being packed: packing needs their lengths on the host.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.backwards = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, h_NKC: Tensor, turned_R: Tensor) -> Tensor:
        """Returns the outputs of both, H = 2 * hidden_size; turned_R comes from `turned_rows`."""
        backwards_NKH = self.backwards(_take(h_NKC, turned_R))[0]
        return torch.cat([self.forwards(h_NKC)[0], _take(backwards_NKH, turned_R)], dim=2)


def build_layers(input_size: int, hidden_size: int, num_layers: int, *, bidirectional: bool) -> nn.ModuleList:
    """Builds the layers that `run_layers` takes."""
    sizes = [input_size, *[hidden_size * (2 if bidirectional else 1)] * (num_layers - 1)]
    if bidirectional:
        return nn.ModuleList(BidirectionalLSTM(size, hidden_size) for size in sizes)
    return nn.ModuleList(nn.LSTM(size, hidden_size, batch_first=True) for size in sizes)


def run_layers(layers: nn.ModuleList, dropout: SeededDropout, h_NKC: Tensor, mask_NK: Tensor) -> Tensor:
    """Returns the outputs of the last layer.

    At a valid step they do not depend on what stands after the last valid step; there they mean nothing.
    """
    turned_R = turned_rows(mask_NK) if isinstance(layers[0], BidirectionalLSTM) else None
    if not _lacks_half_precision(h_NKC.device):
        return _run(layers, dropout, h_NKC, turned_R)
    with torch.autocast("cpu", enabled=False):
        return _run(layers, dropout, h_NKC.float(), turned_R)


def last_valid(mask_NK: Tensor) -> Tensor:
    """The last valid step of each window; 0 where none is."""
    steps_K = torch.arange(mask_NK.shape[1], device=mask_NK.device)
    return (steps_K * mask_NK).amax(dim=1)


def turned_rows(mask_NK: Tensor) -> Tensor:
    """Rows of the flattened [N, K]: each window backwards from its last valid step, the rest as it is."""
    num_windows, num_steps = mask_NK.shape
    steps_K = torch.arange(num_steps, device=mask_NK.device)
    back_NK = last_valid(mask_NK).unsqueeze(1) - steps_K
    first_N1 = torch.arange(num_windows, device=mask_NK.device).unsqueeze(1) * num_steps
    return (first_N1 + torch.where(back_NK >= 0, back_NK, steps_K)).flatten()


def _run(layers: nn.ModuleList, dropout: SeededDropout, h_NKC: Tensor, turned_R: Tensor | None) -> Tensor:
    for index, layer in enumerate(layers):
        inputs = dropout(h_NKC) if index else h_NKC
        h_NKC = layer(inputs)[0] if turned_R is None else layer(inputs, turned_R)
    return h_NKC


def _lacks_half_precision(device: torch.device) -> bool:
    """Whether half precision is asked of a processor that has no LSTM for it: oneDNN raises then."""
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return not _cpu_has_lstm_of(torch.get_autocast_dtype("cpu"))


@functools.cache
def _cpu_has_lstm_of(dtype: torch.dtype) -> bool:
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
            nn.LSTM(2, 2, batch_first=True)(torch.zeros(1, 2, 2))
    except RuntimeError:
        return False
    return True


def _take(h_NKC: Tensor, rows_R: Tensor) -> Tensor:
    return h_NKC.flatten(0, 1).index_select(0, rows_R).view(h_NKC.shape)
