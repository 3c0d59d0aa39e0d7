"""Kinds of faults, each a small data set in which one thing alone tells defective windows.

Sensors have noise of unit variance that, but for `heavy_tails`, remembers a step.

Shape suffixes: N windows, T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

NUM_WINDOWS = 800
BASE_RATE = 0.25

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Kind = Callable[[np.random.Generator], tuple[Floats, Bools]]


def noise(dice: np.random.Generator, num: int, steps: int, sensors: int) -> Floats:
    """x_NTF of unit variance; each step keeps 0.6 of the one before."""
    fresh_NTF = dice.normal(size=(num, steps, sensors))
    x_NTF = np.empty_like(fresh_NTF)
    x_NTF[:, 0] = fresh_NTF[:, 0]
    for t in range(1, steps):
        x_NTF[:, t] = 0.6 * x_NTF[:, t - 1] + 0.8 * fresh_NTF[:, t]
    return x_NTF


def labels(dice: np.random.Generator, num: int = NUM_WINDOWS, rate: float = BASE_RATE) -> Bools:
    """y_N."""
    return np.asarray(dice.random(num) < rate)


def level(
    dice: np.random.Generator,
    *,
    num: int = NUM_WINDOWS,
    steps: int = 100,
    sensors: int = 8,
    rate: float = BASE_RATE,
    shift: float = 0.35,
) -> tuple[Floats, Bools]:
    """One sensor lies a little higher."""
    y_N = labels(dice, num, rate)
    x_NTF = noise(dice, num, steps, sensors)
    x_NTF[y_N, :, 2] += shift
    return x_NTF, y_N


def little_data(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level; 90 windows to train on."""
    return level(dice, num=150, shift=0.6)


def many_sensors(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level of one sensor of forty."""
    return level(dice, sensors=40)


def long_windows(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level over 600 steps."""
    return level(dice, steps=600, shift=0.2)


def rare_defects(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level in three windows of a hundred."""
    return level(dice, num=2000, rate=0.03, shift=0.5)


def missing_values(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level; two values of five are missing, one sensor is, and another in each third window."""
    x_NTF, y_N = level(dice, shift=0.5)
    x_NTF[dice.random(x_NTF.shape) < 0.4] = np.nan
    x_NTF[:, :, 5] = np.nan
    for n in range(0, len(x_NTF), 3):
        x_NTF[n, :, dice.integers(0, 2)] = np.nan
    return x_NTF, y_N


def all_lengths(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level in windows of 40 to 299 steps."""
    x_NTF, y_N = level(dice, steps=300)
    for n in range(len(x_NTF)):
        x_NTF[n, dice.integers(40, 300) :] = np.nan
    return x_NTF, y_N


def heavy_tails(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level under noise without a variance (Student's t, 1.3 degrees of freedom)."""
    y_N = labels(dice)
    x_NTF = dice.standard_t(1.3, size=(NUM_WINDOWS, 100, 6))
    x_NTF[y_N, :, 3] += 0.5
    return x_NTF, y_N


def two_levels(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """Two sensors are high at once."""
    x_NTF, high_N, other_N = _two_shifts(dice)
    return x_NTF, high_N & other_N


def one_of_two_levels(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One of two sensors is high, and the other is not."""
    x_NTF, high_N, other_N = _two_shifts(dice)
    return x_NTF, high_N ^ other_N


def _two_shifts(dice: np.random.Generator) -> tuple[Floats, Bools, Bools]:
    high_N, other_N = labels(dice, rate=0.5), labels(dice, rate=0.5)
    x_NTF = noise(dice, NUM_WINDOWS, 80, 5)
    x_NTF[high_N, :, 0] += 1
    x_NTF[other_N, :, 1] += 1
    return x_NTF, high_N, other_N


def difference(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """Two sensors drift together from window to window, beyond all that was seen; one of them lies higher."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 5)
    x_NTF[:, :, :2] += np.cumsum(0.5 * dice.normal(size=NUM_WINDOWS))[:, None, None]
    x_NTF[y_N, :, 1] += 0.5
    return x_NTF, y_N


def grades(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One sensor varies more, under offsets of each window that are larger by far."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 6)
    x_NTF[y_N, :, 2] *= 1.3
    return x_NTF + 8 * dice.normal(size=(NUM_WINDOWS, 1, 6)), y_N


def variance(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One sensor varies more."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 8)
    x_NTF[y_N, :, 1] *= 1.25
    return x_NTF, y_N


def slope(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One sensor rises."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 120, 6)
    x_NTF[y_N, :, 4] += np.linspace(-0.6, 0.6, 120)
    return x_NTF, y_N


def spikes(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One of three sensors has one or two spikes of one step."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 150, 6)
    for n in np.flatnonzero(y_N):
        x_NTF[n, dice.integers(0, 150, 2), dice.integers(0, 3)] += 5
    return x_NTF, y_N


def stuck_sensor(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One sensor stands still for twelve steps."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 150, 5)
    for n in np.flatnonzero(y_N):
        at = dice.integers(0, 138)
        x_NTF[n, at : at + 12, 1] = x_NTF[n, at, 1]
    return x_NTF, y_N


def early_event(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One sensor is high for the first 10 of 300 steps."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 300, 5)
    x_NTF[y_N, :10, 2] += 2
    return x_NTF, y_N


def rhythm(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """An oscillation of 12 steps in place of one of 17, as large, at any phase."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 120, 5)
    period_N1 = np.where(y_N, 12, 17)[:, None]
    phase_N1 = dice.uniform(0, 2 * np.pi, NUM_WINDOWS)[:, None]
    x_NTF[:, :, 3] += 1.2 * np.sin(2 * np.pi * np.arange(120) / period_N1 + phase_N1)
    return x_NTF, y_N


def burst(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """An oscillation of 5 steps for 20 of 200 steps."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 200, 5)
    for n in np.flatnonzero(y_N):
        at = dice.integers(0, 180)
        x_NTF[n, at : at + 20, 3] += 1.5 * np.sin(1.2 * np.arange(20))
    return x_NTF, y_N


def order(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A pulse up comes before one down, or behind it."""
    y_N = labels(dice)
    x_NTF = 0.5 * noise(dice, NUM_WINDOWS, 120, 4)
    for n, sign in enumerate(np.where(y_N, 2, -2)):
        first, second = dice.integers(5, 40), dice.integers(60, 100)
        x_NTF[n, first : first + 12, 1] += sign
        x_NTF[n, second : second + 12, 1] -= sign
    return x_NTF, y_N


def coincidence(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """Pulses of two sensors come at the same time."""
    y_N = labels(dice)
    x_NTF = 0.7 * noise(dice, NUM_WINDOWS, 150, 5)
    for n, is_defective in enumerate(y_N):
        one, other = dice.integers(10, 130, 2)
        other = one if is_defective else other
        x_NTF[n, one : one + 8, 0] += 2.5
        x_NTF[n, other : other + 8, 1] += 2.5
    return x_NTF, y_N


def lag(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A sensor follows another by six steps in place of two."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 120, 4)
    for n, is_defective in enumerate(y_N):
        steps = 6 if is_defective else 2
        x_NTF[n, steps:, 2] = x_NTF[n, :-steps, 0] + 0.5 * x_NTF[n, steps:, 2]
    return x_NTF, y_N


def correlation(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """Two sensors no longer move together."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 5)
    x_NTF[~y_N, :, 1] = 0.8 * x_NTF[~y_N, :, 0] + 0.6 * x_NTF[~y_N, :, 1]
    return x_NTF, y_N
