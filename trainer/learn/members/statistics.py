"""Statistics of the raw values of windows: of each sensor, and of some pairs of sensors.

Everything is computed in float64 from centred values: a level a million times what a sensor varies by takes no
digits, and a sensor that stands still varies by exactly 0.

Shapes: N windows, B windows of a pass, T steps, U pairs of steps, F sensors, S statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainer.errors import ModelInputError

# A rhythm shows at two of them; one alone does not see a short burst of another. More cost columns, and tell no more.
LAGS = (2, 4)
OF_SENSOR = (
    "mean",
    "standard deviation",
    "minimum",
    "maximum",
    "slope",
    "median",
    "longest stretch without change",
    *(f"autocorrelation over {lag} steps" for lag in LAGS),
    "share of steps without a value",
)
# All pairs of eleven sensors. More: columns that tell nothing. Fewer: the pair that matters is left out.
MAX_PAIRS = 64
# Smaller: differences of sensors that have little to do with each other. Larger: noise hides a drift that both share.
LEAST_DRIFT = 0.9
# A correlation of two steps is always 1.
LEAST_STEPS = 3
# Bounds memory and changes no result. Smaller: more calls. Larger: a pass leaves the processor's cache.
VALUES_A_PASS = 262_144
# Of the training part, evenly spaced, by which pairs are chosen.
VALUES_TO_CHOOSE = 16_777_216
# Squares of such values, and products of sums of these, are finite in float64.
LARGEST = float(np.finfo(np.float32).max)
# What is left of a sum of squares below this share of it is rounding.
ROUNDING = 1e-12
# Means of windows that differ by less than this share of the level are one mean, and rounding.
STILL = 1e-9

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.integer[Any]]
Pair = tuple[int, int]


class WindowStatistics:
    """What the columns are depends on the arguments alone.

    Args:
        num_sensors: F.
        pairs: Two different sensors each, by their places, whose correlation is a column; none twice.
        differences: Two sensors each, and the gain by which the mean of the second is multiplied before it is taken
            off that of the first. What is left shows one of two levels that drift together.

    Raises:
        ModelInputError: There is no sensor, a pair is not one or comes twice, or a gain is not finite.
    """

    def __init__(
        self,
        num_sensors: int,
        pairs: Sequence[Pair] = (),
        differences: Sequence[tuple[int, int, float]] = (),
    ) -> None:
        if num_sensors < 1:
            raise ModelInputError(f"expected at least one sensor, got {num_sensors}")
        self.num_sensors: Final = num_sensors
        self.pairs: Final = tuple((int(one), int(other)) for one, other in pairs)
        self.differences: Final = tuple(
            (int(one), int(other), float(gain)) for one, other, gain in differences
        )
        _check_pairs(self.pairs, num_sensors)
        _check_pairs([(one, other) for one, other, _ in self.differences], num_sensors)
        if not all(math.isfinite(gain) for *_, gain in self.differences):
            raise ModelInputError(f"a gain is not finite: {self.differences}")

    @classmethod
    def chosen(cls, x_NTF: Values, mask_NT: Bools, index_N: Places | None = None) -> WindowStatistics:
        """All pairs of few sensors; of many, those that move together most within a window.

        Differences are of those whose means drift together from window to window.

        Args:
            x_NTF: Raw values of the training part.
            mask_NT: True = valid step.
            index_N: Which of these windows are the training part; None: all.

        Raises:
            ModelInputError: Shapes or types do not fit.
        """
        _check(x_NTF, mask_NT, index_N)
        num_sensors = x_NTF.shape[2]
        place_N = np.arange(len(x_NTF)) if index_N is None else index_N
        stride = max(1, math.ceil(len(place_N) * math.prod(x_NTF.shape[1:]) / VALUES_TO_CHOOSE))
        mean_NF, within_FF = _moves(x_NTF, mask_NT, place_N[::stride])
        drift_FF, gain_FF = _drifts(mean_NF)
        drifting = [pair for pair in _strongest(drift_FF) if drift_FF[pair] > LEAST_DRIFT]
        differences = [(*pair, float(gain_FF[pair])) for pair in drifting]
        return cls(num_sensors, _strongest(within_FF), differences)

    @property
    def num_statistics(self) -> int:
        """S."""
        return len(OF_SENSOR) * self.num_sensors + len(self.pairs) + len(self.differences)

    def names(self, sensor_names: Sequence[str]) -> tuple[str, ...]:
        """What each column is.

        Raises:
            ModelInputError: There are not F names.
        """
        if len(sensor_names) != self.num_sensors:
            raise ModelInputError(f"expected {self.num_sensors} names of sensors, got {len(sensor_names)}")
        return (
            *(f"{what} of {name}" for what in OF_SENSOR for name in sensor_names),
            *(f"correlation of {sensor_names[a]} and {sensor_names[b]}" for a, b in self.pairs),
            *(
                f"mean of {sensor_names[a]} less {gain:.4g} times that of {sensor_names[b]}"
                for a, b, gain in self.differences
            ),
        )

    def __call__(self, x_NTF: Values, mask_NT: Bools, index_N: Places | None = None) -> Floats:
        """Computes the statistics of windows, some at a time.

        Args:
            x_NTF: Raw values. NaN, and what float32 cannot hold, is no value.
            mask_NT: True = valid step.
            index_N: Which of these windows, in which order; None: all.

        Returns:
            stats_NS: statistic by statistic, first those of sensors; NaN where a window has too few values for it.
            Where a sensor says nothing, only its share of steps without a value is known.

        Raises:
            ModelInputError: Shapes or types do not fit.
        """
        _check(x_NTF, mask_NT, index_N)
        if x_NTF.shape[2] != self.num_sensors:
            raise ModelInputError(f"expected {self.num_sensors} sensors, got {x_NTF.shape[2]}")
        num_windows = len(x_NTF if index_N is None else index_N)
        stats_NS = np.empty((num_windows, self.num_statistics))
        for some, windows in _passes(x_NTF, mask_NT, index_N):
            stats_NS[some] = self._of_some(windows).T
        return stats_NS

    def _of_some(self, windows: _Windows) -> Floats:
        correlations = [windows.correlation(*pair) for pair in self.pairs]
        mean_FB = np.where(windows.is_empty_FB, np.nan, windows.mean_FB)
        differences = [mean_FB[one] - gain * mean_FB[other] for one, other, gain in self.differences]
        return np.concatenate([*windows.of_sensors(), *(row_B[None] for row_B in correlations + differences)])


class _Windows:
    """Some windows, sensor by sensor: the steps of a sensor lie side by side.

    Attributes:
        valid_FBT: Where there is a value.
        is_empty_FB: Where there is none in the window.
        num_FB: How many there are, 1 where there is none.
        missing_FB: Of the steps that the mask leaves, the share without a value; NaN where it leaves none.
        x_FBT: Values, 0 where there is none.
        mean_FB: Their mean, 0 where there is none.
        centred_FBT: Values less their mean, 0 where there is none.
        square_FB: Sum of the squares of those.
    """

    def __init__(self, x_BTF: Values, mask_BT: Bools) -> None:
        # A copy even where the steps of the only sensor lie side by side already.
        self.x_FBT: Floats = np.array(x_BTF.transpose(2, 0, 1), dtype=np.float64, order="C")
        self.valid_FBT: Bools = (np.abs(self.x_FBT) <= LARGEST) & mask_BT
        self.x_FBT[~self.valid_FBT] = 0.0
        num_FB = self.valid_FBT.sum(axis=2)
        self.is_empty_FB: Bools = num_FB == 0
        num_steps_B = mask_BT.sum(axis=1)
        missing_FB = 1 - num_FB / np.maximum(num_steps_B, 1)
        self.missing_FB: Floats = np.where(num_steps_B > 0, missing_FB, np.nan)
        self.num_FB: Floats = np.maximum(num_FB, 1).astype(np.float64)
        # Less the first value, a sensor that stands still is 0, and its mean has no rounding.
        first_FB1 = np.take_along_axis(self.x_FBT, self.valid_FBT.argmax(axis=2)[..., None], axis=2)
        self.centred_FBT: Floats = (self.x_FBT - first_FB1) * self.valid_FBT
        shift_FB1 = self.centred_FBT.sum(axis=2, keepdims=True) / self.num_FB[..., None]
        self.centred_FBT -= shift_FB1
        self.centred_FBT *= self.valid_FBT
        self.mean_FB: Floats = (first_FB1 + shift_FB1)[..., 0]
        self.square_FB: Floats = _dot(self.centred_FBT, self.centred_FBT)

    def of_sensors(self) -> list[Floats]:
        """stat_FB of each of OF_SENSOR."""
        lowest_FB, median_FB, highest_FB = self._ordered()
        std_FB = np.sqrt(self.square_FB / self.num_FB)
        found = [self.mean_FB, std_FB, lowest_FB, highest_FB, self._slope(), median_FB]
        found = [np.where(self.is_empty_FB, np.nan, stat_FB) for stat_FB in found]
        autocorrelations = [self._autocorrelation(lag) for lag in LAGS]
        return [*found, self._longest_stretch(), *autocorrelations, self.missing_FB]

    def correlation(self, one: int, other: int) -> Floats:
        """corr_B over the steps on which both sensors have a value; NaN where one of them stands still."""
        both_BT = self.valid_FBT[one] & self.valid_FBT[other]
        num_B = both_BT.sum(axis=1)
        a_BT, b_BT = self.centred_FBT[one] * both_BT, self.centred_FBT[other] * both_BT
        n_B = np.maximum(num_B, 1)
        mean_a_B, mean_b_B = a_BT.sum(axis=1) / n_B, b_BT.sum(axis=1) / n_B
        square_a_B, square_b_B = _dot(a_BT, a_BT), _dot(b_BT, b_BT)
        left_a_B, left_b_B = square_a_B - n_B * mean_a_B**2, square_b_B - n_B * mean_b_B**2
        varies_B = (left_a_B > ROUNDING * square_a_B) & (left_b_B > ROUNDING * square_b_B)
        varies_B &= num_B >= LEAST_STEPS
        scale_B = np.sqrt(np.where(varies_B, left_a_B, 1.0)) * np.sqrt(np.where(varies_B, left_b_B, 1.0))
        corr_B = np.clip((_dot(a_BT, b_BT) - n_B * mean_a_B * mean_b_B) / scale_B, -1.0, 1.0)
        return np.where(varies_B, corr_B, np.nan)

    def _slope(self) -> Floats:
        """A step; 0 for a single value."""
        t_T = np.arange(self.x_FBT.shape[2], dtype=np.float64)
        middle_FB = _dot(self.valid_FBT.astype(np.float64), t_T) / self.num_FB
        lag_FBT = (t_T - middle_FB[..., None]) * self.valid_FBT
        return _dot(lag_FBT, self.centred_FBT) / np.maximum(_dot(lag_FBT, lag_FBT), 0.5)

    def _ordered(self) -> tuple[Floats, Floats, Floats]:
        """Lowest value, median and highest value; 0 where there is none."""
        sorted_FBT = np.where(self.valid_FBT, self.x_FBT, np.inf)
        sorted_FBT.sort(axis=2)
        last_FB = self.num_FB.astype(np.intp) - 1
        ranks = (np.zeros_like(last_FB), last_FB // 2, (last_FB + 1) // 2, last_FB)
        taken = [np.take_along_axis(sorted_FBT, rank_FB[..., None], axis=2)[..., 0] for rank_FB in ranks]
        lowest_FB, low_FB, high_FB, highest_FB = (np.where(self.is_empty_FB, 0.0, x_FB) for x_FB in taken)
        return lowest_FB, low_FB + (high_FB - low_FB) / 2, highest_FB

    def _longest_stretch(self) -> Floats:
        """How many steps in a row, at most, show what the step before them showed; NaN without two in a row."""
        both_FBU = self.valid_FBT[:, :, 1:] & self.valid_FBT[:, :, :-1]
        is_still_FBU = both_FBU & (self.x_FBT[:, :, 1:] == self.x_FBT[:, :, :-1])
        place_U = np.arange(1, is_still_FBU.shape[2] + 1, dtype=np.int32)
        moved_FBU = np.where(is_still_FBU, np.int32(0), place_U)
        np.maximum.accumulate(moved_FBU, axis=2, out=moved_FBU)
        longest_FB = (place_U - moved_FBU).max(axis=2, initial=0)
        return np.where(both_FBU.any(axis=2), longest_FB.astype(np.float64), np.nan)

    def _autocorrelation(self, lag: int) -> Floats:
        """1 less half the mean square of changes over the lag, by the variance; NaN where a sensor stands still."""
        later = slice(lag, None)
        sooner = slice(None, max(0, self.x_FBT.shape[2] - lag))
        both_FBU = self.valid_FBT[:, :, later] & self.valid_FBT[:, :, sooner]
        change_FBU = (self.x_FBT[:, :, later] - self.x_FBT[:, :, sooner]) * both_FBU
        num_FB = both_FBU.sum(axis=2)
        is_known_FB = (num_FB > 0) & (self.square_FB > 0)
        ratio_FB = _dot(change_FBU, change_FBU) / np.where(is_known_FB, self.square_FB, 1.0)
        corr_FB = 1 - ratio_FB * self.num_FB / (2 * np.maximum(num_FB, 1))
        return np.where(is_known_FB, corr_FB, np.nan)


def _passes(x_NTF: Values, mask_NT: Bools, index_N: Places | None) -> Iterator[tuple[slice, _Windows]]:
    """Some windows at a time, and where they stand among those asked for."""
    size = max(1, VALUES_A_PASS // math.prod(x_NTF.shape[1:]))
    for start in range(0, len(x_NTF if index_N is None else index_N), size):
        some = slice(start, start + size)
        place_B = some if index_N is None else index_N[some]
        yield some, _Windows(x_NTF[place_B], mask_NT[place_B])


def _dot(a_T: Floats, b_T: Floats) -> Floats:
    """Sums of products over the last axis, in the same order however many there are of the others."""
    return np.asarray(np.einsum("...t,...t->...", a_T, b_T))


def _moves(x_NTF: Values, mask_NT: Bools, place_N: Places) -> tuple[Floats, Floats]:
    """mean_NF, and strength_FF: the absolute correlation within windows, on average over them."""
    num_sensors = x_NTF.shape[2]
    mean_NF, total_FF = np.empty((len(place_N), num_sensors)), np.zeros((num_sensors, num_sensors))
    for some, windows in _passes(x_NTF, mask_NT, place_N):
        mean_NF[some] = np.where(windows.is_empty_FB, np.nan, windows.mean_FB).T
        length_FB = np.sqrt(np.where(windows.square_FB > 0, windows.square_FB, 1.0))
        z_BFT = (windows.centred_FBT / length_FB[..., None]).transpose(1, 0, 2)
        for z_FT in z_BFT:
            total_FF += z_FT @ z_FT.T
    return mean_NF, np.abs(total_FF) / max(1, len(place_N))


def _drifts(mean_NF: Floats) -> tuple[Floats, Floats]:
    """strength_FF: absolute correlation of the means; gain_FF: so many units of the first to one of the second."""
    seen_NF = np.isfinite(mean_NF)
    num_F = np.maximum(seen_NF.sum(axis=0), 1)
    known_NF = np.where(seen_NF, mean_NF, 0.0)
    centred_NF = np.where(seen_NF, mean_NF - known_NF.sum(axis=0) / num_F, 0.0)
    std_F = np.sqrt((centred_NF**2).sum(axis=0) / num_F)
    drifts_F = std_F > STILL * np.abs(known_NF).max(axis=0, initial=0.0)
    std_F = np.where(drifts_F, std_F, 1.0)
    z_NF = np.where(drifts_F, centred_NF / std_F / np.sqrt(num_F), 0.0)
    corr_FF = z_NF.T @ z_NF
    return np.abs(corr_FF), np.sign(corr_FF) * std_F[:, None] / std_F


def _strongest(strength_FF: Floats) -> list[Pair]:
    """All pairs, or so many as there may be, those of equal strength in their order."""
    pairs = list(combinations(range(len(strength_FF)), 2))
    # Less its last digits, which depend on the processor.
    strongest = sorted(pairs, key=lambda pair: -round(float(strength_FF[pair]), 9))[:MAX_PAIRS]
    return sorted(strongest)


def _check_pairs(pairs: Sequence[Pair], num_sensors: int) -> None:
    for one, other in pairs:
        if one == other or not (0 <= one < num_sensors and 0 <= other < num_sensors):
            raise ModelInputError(f"({one}, {other}) are not two of {num_sensors} sensors")
    if len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise ModelInputError(f"two sensors are a pair twice: {pairs}")


def _check(x_NTF: Values, mask_NT: Bools, index_N: Places | None) -> None:
    if x_NTF.ndim != 3 or 0 in x_NTF.shape[1:] or mask_NT.shape != x_NTF.shape[:2]:
        raise ModelInputError(f"expected x [N, T, F] and mask [N, T], got {x_NTF.shape} and {mask_NT.shape}")
    if x_NTF.dtype not in (np.float32, np.float64) or mask_NT.dtype != np.bool_:
        raise ModelInputError(f"expected floats and a bool mask, got {x_NTF.dtype} and {mask_NT.dtype}")
    if index_N is not None and (index_N.ndim != 1 or not np.issubdtype(index_N.dtype, np.integer)):
        raise ModelInputError(f"expected an index of integers, got {index_N.dtype} {index_N.shape}")
