"""The defect model: an LSTM over a window of raw sensor values.

Shapes: N windows, T steps, F sensors, K steps after the stem, C channels, H hidden, D head inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trainer.errors import ModelInputError
from trainer.learn.config import ArchitectureConfig, DataProcessingConfig, Readout
from trainer.learn.normalisation import NUM_STATISTICS, Normalisation, center, window_statistics

# Windows a pass when the statistics of a training part are fitted: bounds memory, does not change the result.
FIT_BATCH = 1024


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


class SteelDefectLSTM(nn.Module):
    """Raw sensor values to the logit of "defective".

    Normalisation is part of the model, so a scorer feeds what the sensors say. Masked steps, wherever they stand,
    enter neither readout nor statistics; at the end of a window they do not change the logit. A missing value
    (NaN or infinite) at a valid step reads as the sensor's centre.

    Args:
        config: Sizes and options.
        num_sensors: F.
    """

    def __init__(self, config: ArchitectureConfig, num_sensors: int) -> None:
        super().__init__()
        self.config = config
        self.num_sensors = num_sensors
        self.input_normalisation = Normalisation(num_sensors)
        self.stem = (
            ConvStem(num_sensors, config.stem_channels, config.stem_stride)
            if config.stem_stride > 1
            else None
        )
        self.lstm = nn.LSTM(
            input_size=config.stem_channels if self.stem else num_sensors,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            batch_first=True,
        )
        num_statistics = NUM_STATISTICS * num_sensors if config.window_statistics else 0
        self.statistics_normalisation = Normalisation(num_statistics) if num_statistics else None
        num_outputs = config.hidden_size * (2 if config.bidirectional else 1)
        readout_size = num_outputs * (2 if config.readout == "mean_max" else 1)
        self.head = _head(readout_size + num_statistics, config.head_hidden_dims, config.dropout)

    @property
    def is_normalised(self) -> bool:
        """Whether normalisation was fitted, here or in the model whose weights were loaded."""
        return bool(self.input_normalisation.is_fitted)

    def fit_normalisation(
        self, x_NTF: Tensor, mask_NT: Tensor | None = None, config: DataProcessingConfig | None = None
    ) -> None:
        """Fits input and statistics normalisation; call it with the training part only.

        A sensor that is constant or missing throughout is ignored by the model until the next fit.

        Args:
            x_NTF: Raw values, NaN = missing.
            mask_NT: True = valid step; None = all are.
            config: Method and clip.

        Raises:
            ModelInputError: Shapes do not fit, or there is no valid value at all.
        """
        config = config or DataProcessingConfig()
        mask_NT = self._checked(x_NTF, mask_NT)
        rows_RF = x_NTF[mask_NT].cpu().numpy()
        if not np.isfinite(rows_RF).any():
            raise ModelInputError(f"no valid value in {len(x_NTF)} windows: nothing to fit normalisation on")
        self.input_normalisation.fit(rows_RF, method=config.normalisation, clip=config.clip)
        if self.statistics_normalisation:
            batches = zip(torch.split(x_NTF, FIT_BATCH), torch.split(mask_NT, FIT_BATCH), strict=True)
            stats = [self._statistics(*self._normalise(x, mask)) for x, mask in batches]
            stats_NS = torch.cat(stats).cpu().numpy()
            self.statistics_normalisation.fit(stats_NS, method=config.normalisation, clip=config.clip)

    def forward(self, x_NTF: Tensor, mask_NT: Tensor | None = None) -> Tensor:
        """Scores windows.

        Args:
            x_NTF: Raw values, float32, NaN = missing.
            mask_NT: bool, True = valid step; None = all are.

        Returns:
            logits_N; a sigmoid turns them into probabilities.

        Raises:
            ModelInputError: Shapes or types do not fit the model.
        """
        mask_NT = self._checked(x_NTF, mask_NT)
        z_NTF, valid_NTF = self._normalise(x_NTF, mask_NT)
        h_NTF = center(z_NTF, valid_NTF) if self.config.center_windows else z_NTF
        h_NKC, mask_NK = self.stem(h_NTF, mask_NT) if self.stem else (h_NTF, mask_NT)
        features_ND = self._readout(self._run_lstm(h_NKC, mask_NK), mask_NK)
        if self.statistics_normalisation:
            stats_NS = self.statistics_normalisation(self._statistics(z_NTF, valid_NTF))
            features_ND = torch.cat([features_ND, stats_NS], dim=1)
        logits_N1: Tensor = self.head(features_ND)
        return logits_N1.squeeze(-1)

    def _checked(self, x_NTF: Tensor, mask_NT: Tensor | None) -> Tensor:
        if x_NTF.ndim != 3 or x_NTF.shape[1] < 1 or x_NTF.shape[2] != self.num_sensors:
            raise ModelInputError(f"expected windows [N, T, {self.num_sensors}], got {list(x_NTF.shape)}")
        if x_NTF.dtype != self.input_normalisation.center_C.dtype:
            raise ModelInputError(f"expected {self.input_normalisation.center_C.dtype}, got {x_NTF.dtype}")
        if mask_NT is None:
            return torch.ones(x_NTF.shape[:2], dtype=torch.bool, device=x_NTF.device)
        if mask_NT.dtype != torch.bool or mask_NT.shape != x_NTF.shape[:2]:
            raise ModelInputError(
                f"expected a bool mask {list(x_NTF.shape[:2])}, got {mask_NT.dtype} {list(mask_NT.shape)}"
            )
        return mask_NT

    def _normalise(self, x_NTF: Tensor, mask_NT: Tensor) -> tuple[Tensor, Tensor]:
        valid_NTF = torch.isfinite(x_NTF) & mask_NT.unsqueeze(2)
        z_NTF: Tensor = self.input_normalisation(x_NTF.masked_fill(~valid_NTF, torch.nan))
        return z_NTF, valid_NTF

    @torch.no_grad()
    def _statistics(self, z_NTF: Tensor, valid_NTF: Tensor) -> Tensor:
        return window_statistics(z_NTF, valid_NTF)

    def _run_lstm(self, h_NKC: Tensor, mask_NK: Tensor) -> Tensor:
        # Forward outputs at valid steps cannot see what comes after them; the backward direction starts at
        # the end, so there padding has to be cut off first.
        if not self.config.bidirectional or bool(mask_NK[:, -1].all()):
            out_NKH: Tensor = self.lstm(h_NKC)[0]
            return out_NKH
        lengths_N = (_last_valid(mask_NK) + 1).cpu()
        packed = pack_padded_sequence(h_NKC, lengths_N, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=h_NKC.shape[1])[0]

    def _readout(self, out_NKH: Tensor, mask_NK: Tensor) -> Tensor:
        readout: Readout = self.config.readout
        if readout == "last":
            return self._last(out_NKH, mask_NK)
        parts = []
        if readout in ("mean", "mean_max"):
            v_NK1 = mask_NK.unsqueeze(2).to(out_NKH.dtype)
            parts.append((out_NKH * v_NK1).sum(dim=1) / v_NK1.sum(dim=1).clamp(min=1))
        if readout in ("max", "mean_max"):
            # Outputs lie in (-1, 1), so -1 never wins against a valid step and stays finite without one.
            parts.append(out_NKH.masked_fill(~mask_NK.unsqueeze(2), -1.0).amax(dim=1))
        return torch.cat(parts, dim=1)

    def _last(self, out_NKH: Tensor, mask_NK: Tensor) -> Tensor:
        rows_N = torch.arange(out_NKH.shape[0], device=out_NKH.device)
        forward_NH = out_NKH[rows_N, _last_valid(mask_NK), : self.config.hidden_size]
        backward_NH = out_NKH[:, 0, self.config.hidden_size :]
        return torch.cat([forward_NH, backward_NH], dim=1)


def build_model(config: ArchitectureConfig, num_sensors: int, seed: int) -> SteelDefectLSTM:
    """Builds a model whose first weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SteelDefectLSTM(config, num_sensors)


def _last_valid(mask_NK: Tensor) -> Tensor:
    steps_K = torch.arange(mask_NK.shape[1], device=mask_NK.device)
    return (steps_K * mask_NK).amax(dim=1)


def _head(num_inputs: int, hidden_dims: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dim in hidden_dims:
        layers += [nn.Dropout(dropout), nn.Linear(num_inputs, dim), nn.ReLU()]
        num_inputs = dim
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(num_inputs, 1))
