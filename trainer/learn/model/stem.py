"""What stands in front of the LSTM.

Shapes: N windows, T steps, F sensors, C channels, K steps after the stem, s steps of a stride.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class ConvStem(nn.Module):
    """A strided convolution in front of the LSTM: K = ceil(T / stride) steps of filter outputs."""

    def __init__(self, num_sensors: int, num_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.kernel_size = 2 * stride
        self.conv = nn.Conv1d(num_sensors, num_channels, self.kernel_size, stride=stride)

    def forward(self, z_NTF: Tensor, mask_NT: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the filtered steps and which of them stand on a valid step. Masked inputs must be 0."""
        num_out = -(-z_NTF.shape[1] // self.stride)
        left = self.stride // 2
        right = (num_out - 1) * self.stride + self.kernel_size - left - z_NTF.shape[1]
        h_NCK = torch.relu(self.conv(pad(z_NTF.transpose(1, 2), (left, right))))
        filled_NT = pad(mask_NT, (0, num_out * self.stride - mask_NT.shape[1]))
        blocks_NKs = filled_NT.view(len(mask_NT), num_out, self.stride)
        return h_NCK.transpose(1, 2), blocks_NKs.any(dim=2)
