"""Normalisation held in the model, and the statistics of a window.

Shapes: N windows, T steps, F sensors, S = 5 * F statistics, R rows, C columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NUM_STATISTICS = 5
# Interquartile range of a normal distribution with standard deviation 1.
IQR_OF_NORMAL = 1.349
# A spread below this share of the column's magnitude is float32 rounding, not a signal.
RELATIVE_RESOLUTION = 1e-6


class Normalisation(nn.Module):
    """``clip((x - center) * gain)`` for each column; NaN becomes 0, which is the column's centre.

    Before `fit` it passes values through. A column that was constant or missing in all fitted rows gets gain 0 and
    so reads 0 for good: no weight has learned from it, and what it shows later would be noise to the model.
    """

    center_C: Tensor
    gain_C: Tensor
    limit: Tensor
    is_fitted: Tensor

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.register_buffer("center_C", torch.zeros(num_columns))
        self.register_buffer("gain_C", torch.ones(num_columns))
        self.register_buffer("limit", torch.tensor(torch.finfo(torch.float32).max))
        self.register_buffer("is_fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(
        self, rows_RC: npt.NDArray[np.float32], *, method: Literal["zscore", "robust"], clip: float
    ) -> None:
        """Sets centre, gain and limit from rows; NaN entries are left out.

        Args:
            rows_RC: float32, at least one row.
            method: ``zscore``: mean and standard deviation; ``robust``: median and interquartile range, or
                the standard deviation where more than half of the values are equal.
            clip: Limit of the absolute normalised value.
        """
        columns = [_center_and_gain(column_R, method) for column_R in rows_RC.T]
        center_C, gain_C = np.array(columns, dtype=np.float64).T
        self.center_C.copy_(torch.from_numpy(center_C))
        self.gain_C.copy_(torch.from_numpy(gain_C))
        self.limit.fill_(clip)
        self.is_fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis."""
        z = torch.nan_to_num((x - self.center_C) * self.gain_C, nan=0.0)
        return torch.clamp(z, -self.limit, self.limit)


def center(z_NTF: Tensor, valid_NTF: Tensor) -> Tensor:
    """Takes each sensor's mean over its valid values in the window off them; the others stay 0."""
    v_NTF = valid_NTF.to(z_NTF.dtype)
    mean_NF = z_NTF.sum(dim=1) / v_NTF.sum(dim=1).clamp(min=1)
    return (z_NTF - mean_NF.unsqueeze(1)) * v_NTF


def window_statistics(z_NTF: Tensor, valid_NTF: Tensor) -> Tensor:
    """Mean, standard deviation, minimum, maximum and slope a step of each sensor, over its valid values.

    Args:
        z_NTF: Values; 0 where not valid.
        valid_NTF: bool, True where a value was measured.

    Returns:
        float [N, S], statistic by statistic; NaN where a sensor has no valid value in the window.
    """
    v_NTF = valid_NTF.to(z_NTF.dtype)
    n_NF = v_NTF.sum(dim=1).clamp(min=1)
    mean_NF = z_NTF.sum(dim=1) / n_NF
    centred_NTF = center(z_NTF, valid_NTF)
    std_NF = (centred_NTF.square().sum(dim=1) / n_NF).sqrt()
    min_NF = z_NTF.masked_fill(~valid_NTF, torch.inf).amin(dim=1)
    max_NF = z_NTF.masked_fill(~valid_NTF, -torch.inf).amax(dim=1)
    slope_NF = _slope(centred_NTF, v_NTF, n_NF)
    stats_NS = torch.cat([mean_NF, std_NF, min_NF, max_NF, slope_NF], dim=1)
    return stats_NS.masked_fill(~valid_NTF.any(dim=1).repeat(1, NUM_STATISTICS), torch.nan)


def _slope(centred_NTF: Tensor, v_NTF: Tensor, n_NF: Tensor) -> Tensor:
    t_T = torch.arange(centred_NTF.shape[1], dtype=centred_NTF.dtype, device=centred_NTF.device)
    t_NTF = t_T.view(1, -1, 1) * v_NTF
    lag_NTF = (t_T.view(1, -1, 1) - (t_NTF.sum(dim=1) / n_NF).unsqueeze(1)) * v_NTF
    return (lag_NTF * centred_NTF).sum(dim=1) / lag_NTF.square().sum(dim=1).clamp(min=0.5)


def _center_and_gain(column_R: npt.NDArray[np.float32], method: str) -> tuple[float, float]:
    seen = column_R[np.isfinite(column_R)].astype(np.float64)
    if seen.size == 0:
        return 0.0, 0.0
    center, spread = float(seen.mean()), float(seen.std())
    resolution = RELATIVE_RESOLUTION * max(float(np.abs(seen).max()), float(np.finfo(np.float32).tiny))
    if spread <= resolution:
        return center, 0.0
    if method == "robust":
        low, center, high = (float(q) for q in np.quantile(seen, [0.25, 0.5, 0.75]))
        robust_spread = (high - low) / IQR_OF_NORMAL
        spread = robust_spread if robust_spread > resolution else spread
    return center, 1.0 / spread
