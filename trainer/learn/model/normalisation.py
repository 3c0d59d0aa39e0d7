"""Normalisation held in the model, and the statistics of a window.

Shapes: N windows, T steps, F sensors, S = 5 * F statistics, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from trainer.learn.config import NormalisationMethod as Method
from trainer.learn.model.rows import ArrayRows, Rows

NUM_STATISTICS = 5
# Interquartile range of a normal distribution with standard deviation 1.
IQR_OF_NORMAL = 1.349
# A spread below this share of the column's magnitude is float32 rounding, not a signal.
RELATIVE_RESOLUTION = 1e-6
# Knots of a bend, at evenly spaced scores up to +-TOP_SCORE, one value in 1,500 on either side. More knots follow
# steps of the distribution closer; a higher top rests on fewer training values.
NUM_KNOTS = 33
TOP_SCORE = 3.2
# Of knots, in standard deviations; slopes stay finite.
MIN_GAP = 1e-12
# Stands for knots that a column does not have; finite, as all tensors of a model file must be.
UNREACHED = torch.finfo(torch.float32).max
# Start, slope and score at the start of a piece that leaves a value as it is.
IDENTITY = (0.0, 1.0, 0.0)
# Takes a slope so far down that rounding at the end of a piece never passes the start of the next one.
ROUNDING_MARGIN = 1 - 2.0**-22
# Of a column's values beyond the limit, where all of them read the same. Smaller: the weights of a champion are upset
# by a few faults. Larger: it stays blind to a sensor whose level has moved.
HIDDEN_SHARE = 0.1


class Normalisation(nn.Module):
    """``clip(bend((x - center) * gain))`` for each column; NaN becomes 0, which is the column's centre.

    The bend is piecewise linear and monotone: the identity, or for ``quantile`` the way from a training value to the
    score of a standard normal distribution that has the same rank. Each column has the same number of pieces, used
    or not, so the state of a model fits another one that was fitted by another method.

    Before `fit` values pass through. A column that was constant or missing in all fitted rows gets gain 0 and so
    reads 0 for good: no weight has learned from it, and what it shows later would be noise to the model.
    """

    center_C: Tensor
    gain_C: Tensor
    knots_CQ: Tensor
    pieces_CP3: Tensor
    is_bent: Tensor
    limit: Tensor
    is_fitted: Tensor

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.register_buffer("center_C", torch.zeros(num_columns))
        self.register_buffer("gain_C", torch.ones(num_columns))
        self.register_buffer("knots_CQ", torch.full((num_columns, NUM_KNOTS), UNREACHED))
        self.register_buffer("pieces_CP3", torch.tensor(IDENTITY).repeat(num_columns, NUM_KNOTS + 1, 1))
        self.register_buffer("is_bent", torch.tensor(False))
        self.register_buffer("limit", torch.tensor(torch.finfo(torch.float32).max))
        self.register_buffer("is_fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(
        self,
        rows: Rows | npt.NDArray[np.float32],
        *,
        method: Method,
        clip: float,
        magnitude_C: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Sets everything from rows; NaN entries are left out. It copies one column at a time, in float64.

        Args:
            rows: float32, at least one row.
            method: ``zscore``: mean and standard deviation; ``robust``: median and interquartile range, or
                the standard deviation where more than half of the values are equal; ``quantile``: rank among the
                rows, and outside their range as many standard deviations further.
            clip: Limit of the absolute normalised value.
            magnitude_C: The largest of what the values of each column were computed from, by which they are rounded.
                None: each value is as exact as float32, and one that is far out says nothing of the others.
        """
        rows = ArrayRows(rows) if isinstance(rows, np.ndarray) else rows
        known_C = [None] * rows.num_columns if magnitude_C is None else magnitude_C.tolist()
        columns = [_center_and_gain(rows, column, known, method) for column, known in enumerate(known_C)]
        center_C, gain_C = np.array(columns, dtype=np.float64).T
        self.center_C.copy_(torch.from_numpy(center_C))
        self.gain_C.copy_(torch.from_numpy(gain_C))
        self.knots_CQ.fill_(UNREACHED)
        self.pieces_CP3.copy_(self.pieces_CP3.new_tensor(IDENTITY))
        self.is_bent.fill_(method == "quantile")
        if method == "quantile":
            self._fit_bend(rows, known_C)
        self.limit.fill_(clip)
        self.is_fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis."""
        return torch.clamp(torch.nan_to_num(self._unlimited(x), nan=0.0), -self.limit, self.limit)

    @torch.no_grad()
    def hidden_columns(self, rows: Rows | npt.NDArray[np.float32], *, method: Method) -> tuple[int, ...]:
        """Columns of which it hides more than a tenth, and twice as much as one would that was fitted to these rows.

        It hides what lies beyond its limit; of a column that was constant or missing, what differs from its centre.

        Args:
            rows: float32, at least one row.
            method: As of `fit`.
        """
        rows = ArrayRows(rows) if isinstance(rows, np.ndarray) else rows
        mine_C = self._hidden_share(rows)
        if (mine_C <= HIDDEN_SHARE).all():
            return ()
        fitted = Normalisation(rows.num_columns)
        fitted.fit(rows, method=method, clip=float(self.limit))
        is_hidden_C = (mine_C > HIDDEN_SHARE) & (mine_C > 2 * fitted._hidden_share(rows))
        is_hidden_C &= fitted.gain_C.numpy() != 0
        return tuple(np.flatnonzero(is_hidden_C).tolist())

    def _hidden_share(self, rows: Rows) -> npt.NDArray[np.float64]:
        num_seen_C = torch.zeros_like(self.gain_C, dtype=torch.int64)
        num_hidden_C = torch.zeros_like(num_seen_C)
        for part_RC in rows.parts():
            x_RC = part_RC.to(self.center_C.device)
            is_seen_RC = torch.isfinite(x_RC)
            num_seen_C += is_seen_RC.sum(dim=0)
            num_hidden_C += (is_seen_RC & self._is_hidden(x_RC)).sum(dim=0)
        share_C = num_hidden_C / num_seen_C.clamp(min=1)
        return share_C.cpu().numpy().astype(np.float64)

    def _is_hidden(self, x_RC: Tensor) -> Tensor:
        is_beyond_RC = self._unlimited(x_RC).abs() > self.limit
        is_other_RC = (x_RC - self.center_C).abs() > RELATIVE_RESOLUTION * self.center_C.abs()
        return torch.where(self.gain_C == 0, is_other_RC, is_beyond_RC)

    def _unlimited(self, x: Tensor) -> Tensor:
        z = (x - self.center_C) * self.gain_C
        # Reading the flag would hold up a GPU, where bending by the identity costs less.
        return self._bend(z) if z.device.type != "cpu" or self.is_bent else z

    def _bend(self, z: Tensor) -> Tensor:
        z_C = z.movedim(-1, 0)
        z_CM = z_C.reshape(len(z_C), -1).contiguous()
        piece_CM = torch.searchsorted(self.knots_CQ, z_CM)
        first_C1 = torch.arange(len(z_C), device=z.device).unsqueeze(1) * (NUM_KNOTS + 1)
        start_CM, slope_CM, score_CM = embedding(first_C1 + piece_CM, self.pieces_CP3.flatten(0, 1)).unbind(2)
        return ((z_CM - start_CM) * slope_CM + score_CM).view(z_C.shape).movedim(0, -1)

    def _fit_bend(self, rows: Rows, known_C: Sequence[float | None]) -> None:
        center_C, gain_C = self.center_C.cpu().numpy(), self.gain_C.cpu().numpy()
        for column in range(rows.num_columns):
            if gain_C[column] != 0:
                z_R = rows.values(column, np.float32)
                z_R -= center_C[column]
                z_R *= gain_C[column]
                # Ranks within what is rounding would lie as far apart as any others.
                rounding = RELATIVE_RESOLUTION * (known_C[column] or 0.0) * float(gain_C[column])
                knots, pieces = _bend_of(z_R[np.isfinite(z_R)], max(MIN_GAP, rounding))
                self.knots_CQ[column, : len(knots)] = torch.from_numpy(knots)
                self.pieces_CP3[column, : len(pieces)] = torch.from_numpy(pieces)


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
    num_NF = v_NTF.sum(dim=1)
    n_NF = num_NF.clamp(min=1)
    mean_NF = z_NTF.sum(dim=1) / n_NF
    centred_NTF = (z_NTF - mean_NF.unsqueeze(1)) * v_NTF
    std_NF = (centred_NTF.square().sum(dim=1) / n_NF).sqrt()
    min_NF = torch.where(valid_NTF, z_NTF, torch.inf).amin(dim=1)
    max_NF = torch.where(valid_NTF, z_NTF, -torch.inf).amax(dim=1)
    slope_NF = _slope(centred_NTF, v_NTF, n_NF)
    stats_NS = torch.cat([mean_NF, std_NF, min_NF, max_NF, slope_NF], dim=1)
    return stats_NS.masked_fill((num_NF == 0).repeat(1, NUM_STATISTICS), torch.nan)


def _slope(centred_NTF: Tensor, v_NTF: Tensor, n_NF: Tensor) -> Tensor:
    t_T = torch.arange(centred_NTF.shape[1], dtype=centred_NTF.dtype, device=centred_NTF.device)
    t_NTF = t_T.view(1, -1, 1) * v_NTF
    lag_NTF = (t_T.view(1, -1, 1) - (t_NTF.sum(dim=1) / n_NF).unsqueeze(1)) * v_NTF
    return (lag_NTF * centred_NTF).sum(dim=1) / lag_NTF.square().sum(dim=1).clamp(min=0.5)


def statistics_magnitude(stats_NS: npt.NDArray[np.float32], num_steps: int) -> npt.NDArray[np.float64]:
    """magnitude_S of `Normalisation.fit`: the largest value of the sensor; of its slope, a share of that a step."""
    ends_N2F = np.abs(np.nan_to_num(stats_NS)).reshape(len(stats_NS), NUM_STATISTICS, -1)[:, 2:4]
    largest_F = ends_N2F.max(axis=(0, 1)).astype(np.float64)
    return np.concatenate([np.tile(largest_F, NUM_STATISTICS - 1), largest_F / num_steps])


def _center_and_gain(rows: Rows, column: int, magnitude: float | None, method: Method) -> tuple[float, float]:
    seen = rows.values(column, np.float64)
    if seen.size == 0:
        return 0.0, 0.0
    largest = max(float(seen.max()), -float(seen.min()))
    center = float(seen.mean())
    spread = _deviation(seen, center)
    resolution = _resolution(largest if magnitude is None else magnitude)
    if spread <= resolution:
        return center, 0.0
    if method == "zscore":
        return center, 1.0 / spread
    del seen  # before the column is copied once more
    quartiles = np.quantile(rows.values(column, np.float64), [0.25, 0.5, 0.75], overwrite_input=True)
    low, center, high = map(float, quartiles)
    robust_spread = (high - low) / IQR_OF_NORMAL
    if magnitude is None:
        resolution = _resolution(max(abs(low), abs(high)))
    return center, 1.0 / (robust_spread if method == "robust" and robust_spread > resolution else spread)


def _deviation(values: npt.NDArray[np.float64], mean: float) -> float:
    """To the bit what ``values.std()`` is, which would copy them; this leaves their squares in their place."""
    values -= mean
    values *= values
    return float(np.sqrt(values.mean()))


def _resolution(magnitude: float) -> float:
    return max(RELATIVE_RESOLUTION * magnitude, float(np.finfo(np.float32).tiny))


def _bend_of(
    z_R: npt.NDArray[np.float32], min_gap: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Knots and the pieces before, between and after; equal knots become one with the mean of their scores."""
    normal = NormalDist()
    # Hazen's quantiles, by which the lowest of R values has the rank 0.5 / R.
    top = min(TOP_SCORE, normal.inv_cdf(1 - 0.5 / len(z_R)))
    score_Q = np.linspace(-top, top, NUM_KNOTS)
    rank_Q = [normal.cdf(score) for score in score_Q]
    knot_Q = np.quantile(z_R, rank_Q, method="hazen", overwrite_input=True).astype(np.float32)
    is_first_Q = np.diff(knot_Q, prepend=-np.inf) > min_gap
    knots, group_Q = knot_Q[is_first_Q], np.cumsum(is_first_Q) - 1
    scores = (np.bincount(group_Q, score_Q) / np.bincount(group_Q)).astype(np.float32)
    slopes = np.diff(scores) / np.diff(knots) * ROUNDING_MARGIN
    starts = [knots[0], *knots]
    pieces = np.column_stack([starts, [1.0, *slopes, 1.0], [scores[0], *scores]])
    return knots, pieces.astype(np.float32)
