"""The defect model: an LSTM over a window of raw sensor values.

Shapes: N windows, T steps, F sensors, K steps after the stem, C channels, H hidden, D head inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streamer.errors import ConfigError
from trainer.errors import ModelInputError
from trainer.learn.config import ArchitectureConfig, DataProcessingConfig
from trainer.learn.model.dropout import SeededDropout
from trainer.learn.model.head import build_head
from trainer.learn.model.normalisation import (
    NUM_STATISTICS,
    Normalisation,
    center,
    statistics_magnitude,
    window_statistics,
)
from trainer.learn.model.readout import Attention, read_out, readout_size, uses_attention
from trainer.learn.model.recurrent import build_layers, run_layers
from trainer.learn.model.rows import WindowRows, passes
from trainer.learn.model.stem import ConvStem


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
        self.lstm = build_layers(
            config.stem_channels if self.stem else num_sensors,
            config.hidden_size,
            config.num_layers,
            bidirectional=config.bidirectional,
        )
        self.layer_dropout = SeededDropout(config.dropout)
        num_outputs = config.hidden_size * (2 if config.bidirectional else 1)
        self.attention = Attention(num_outputs) if uses_attention(config.readout) else None
        num_statistics = NUM_STATISTICS * num_sensors if config.window_statistics else 0
        self.statistics_normalisation = Normalisation(num_statistics) if num_statistics else None
        self.head = build_head(readout_size(config.readout, num_outputs) + num_statistics, config)

    @property
    def is_normalised(self) -> bool:
        """Whether normalisation was fitted, here or in the model whose weights were loaded."""
        return bool(self.input_normalisation.is_fitted)

    def fit_normalisation(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor | None = None,
        config: DataProcessingConfig | None = None,
        *,
        index_N: Tensor | None = None,
    ) -> None:
        """Fits input and statistics normalisation; call it with the training part only.

        A sensor that is constant or missing throughout is ignored by the model until the next fit.

        Args:
            x_NTF: Raw values, NaN = missing.
            mask_NT: True = valid step; None = all are.
            config: Method and clip.
            index_N: Which of the windows are the training part; None: all.

        Raises:
            ModelInputError: Shapes do not fit, or there is no valid value at all.
        """
        config = config or DataProcessingConfig()
        mask_NT = self._checked(x_NTF, mask_NT)
        rows = _rows(x_NTF, mask_NT, index_N)
        self.input_normalisation.fit(rows, method=config.normalisation, clip=config.clip)
        if self.statistics_normalisation:
            stats_NS = self._all_statistics(x_NTF, mask_NT, index_N).cpu().numpy()
            magnitude_S = statistics_magnitude(stats_NS, x_NTF.shape[1])
            self.statistics_normalisation.fit(
                stats_NS, method=config.normalisation, clip=config.clip, magnitude_C=magnitude_S
            )

    def hidden_sensors(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor | None = None,
        config: DataProcessingConfig | None = None,
        *,
        index_N: Tensor | None = None,
    ) -> tuple[int, ...]:
        """Places of the sensors that the normalisation hides, and that one fitted to these windows would show.

        Args:
            x_NTF: Raw values, NaN = missing.
            mask_NT: True = valid step; None = all are.
            config: Method of that other one.
            index_N: Which of the windows; None: all.

        Raises:
            ModelInputError: Shapes do not fit, or there is no valid value at all.
        """
        rows = _rows(x_NTF, self._checked(x_NTF, mask_NT), index_N)
        method = (config or DataProcessingConfig()).normalisation
        return self.input_normalisation.hidden_columns(rows, method=method)

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
        out_NKH, mask_NK = self._outputs(z_NTF, valid_NTF, mask_NT)
        num_backwards = self.config.hidden_size if self.config.bidirectional else 0
        features_ND = read_out(self.config.readout, out_NKH, mask_NK, self.attention, num_backwards)
        if self.statistics_normalisation:
            stats_NS = self.statistics_normalisation(self._statistics(z_NTF, valid_NTF))
            features_ND = torch.cat([features_ND, stats_NS], dim=1)
        # A logit in half precision has three digits: windows would tie.
        with torch.autocast(x_NTF.device.type, enabled=False):
            logits_N: Tensor = self.head(features_ND.to(x_NTF.dtype)).squeeze(-1)
        return logits_N

    @torch.no_grad()
    def attention_weights(self, x_NTF: Tensor, mask_NT: Tensor | None = None) -> Tensor:
        """Says how much each step of a window counts in the attention readout.

        Args:
            x_NTF: As for `forward`.
            mask_NT: As for `forward`.

        Returns:
            weights_NK, K = ceil(T / stem_stride): 0 where all steps of a stride are masked, sum 1 over the others.

        Raises:
            ConfigError: The readout has no attention.
            ModelInputError: Shapes or types do not fit the model.
        """
        if self.attention is None:
            raise ConfigError(f"architecture.readout: {self.config.readout} has no attention weights to show")
        mask_NT = self._checked(x_NTF, mask_NT)
        weights_NK: Tensor = self.attention(*self._outputs(*self._normalise(x_NTF, mask_NT), mask_NT))
        return weights_NK

    def freeze(self, names: Sequence[str]) -> None:
        """Lets parameters keep their values in training.

        Args:
            names: Of modules or parameters, such as ``stem``, ``lstm``, ``lstm.0`` or ``head``.

        Raises:
            ConfigError: There is no such module with parameters; the message lists those that there are.
        """
        known = [name for name, module in self.named_modules() if name and list(module.parameters())]
        parameters = dict(self.named_parameters())
        unknown = [name for name in names if name not in known and name not in parameters]
        if unknown:
            raise ConfigError(f"no layer {', '.join(unknown)} to freeze; there are {', '.join(known)}")
        for name, parameter in parameters.items():
            if any(f"{name}.".startswith(f"{frozen}.") for frozen in names):
                parameter.requires_grad_(False)

    def set_generator(self, generator: torch.Generator | None) -> None:
        """Sets what dropout draws from while training; it must live on the device of the model."""
        for module in self.modules():
            if isinstance(module, SeededDropout):
                module.generator = generator

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
        # Steps of a sensor side by side in memory: all that follows, up to the LSTM, runs along them.
        x_NTF = x_NTF.transpose(1, 2).contiguous().transpose(1, 2)
        valid_NTF = (x_NTF.abs() < torch.inf) & mask_NT.unsqueeze(2)
        z_NTF: Tensor = self.input_normalisation(torch.where(valid_NTF, x_NTF, torch.nan))
        return z_NTF, valid_NTF

    def _all_statistics(self, x_NTF: Tensor, mask_NT: Tensor, index_N: Tensor | None) -> Tensor:
        num_windows = len(x_NTF if index_N is None else index_N)
        # Filled, not joined: results between the blocks that a pass has freed would keep them from the next one.
        stats_NS = x_NTF.new_empty((num_windows, NUM_STATISTICS * self.num_sensors))
        rest_NS = stats_NS
        for x_BTF, mask_BT in passes(x_NTF, mask_NT, index_N):
            rest_NS[: len(x_BTF)] = self._statistics(*self._normalise(x_BTF, mask_BT))
            rest_NS = rest_NS[len(x_BTF) :]
        return stats_NS

    @torch.no_grad()
    def _statistics(self, z_NTF: Tensor, valid_NTF: Tensor) -> Tensor:
        return window_statistics(z_NTF, valid_NTF)

    def _outputs(self, z_NTF: Tensor, valid_NTF: Tensor, mask_NT: Tensor) -> tuple[Tensor, Tensor]:
        h_NTF = center(z_NTF, valid_NTF) if self.config.center_windows else z_NTF
        h_NKC, mask_NK = self.stem(h_NTF, mask_NT) if self.stem else (h_NTF, mask_NT)
        return run_layers(self.lstm, self.layer_dropout, h_NKC, mask_NK), mask_NK


def build_model(config: ArchitectureConfig, num_sensors: int, seed: int) -> SteelDefectLSTM:
    """Builds a model whose first weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SteelDefectLSTM(config, num_sensors)


def _rows(x_NTF: Tensor, mask_NT: Tensor, index_N: Tensor | None) -> WindowRows:
    rows = WindowRows(x_NTF, mask_NT, index_N)
    if not any(bool(torch.isfinite(part_RF).any()) for part_RF in rows.parts()):
        num_windows = len(x_NTF if index_N is None else index_N)
        raise ModelInputError(f"no valid value in {num_windows} windows: nothing to fit normalisation on")
    return rows
