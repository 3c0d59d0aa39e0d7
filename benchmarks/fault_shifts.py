"""Kinds of faults in a plant whose later windows are not like those before: `benchmarks.faults` trains on the first.

Shape suffixes: N windows, T steps, F sensors, C campaigns, P products, R sensors that a recipe sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fault_kinds import NUM_WINDOWS, Bools, Floats, labels, level, noise

# Of the windows, in the order in which they were made: the first train, the next validate, the rest test.
ENDS = (0.6, 0.8)

NUM_PRODUCTS = 6
# A multiple of it is in each part, so that the new product comes with the test part.
CAMPAIGN_WINDOWS = 20
# In a record. At 1 or more, seasons of the training part would come back in the test part.
NUM_YEARS = 0.8
# Of a hundred windows of the train, validation and test part, how many stretches of BAD_WINDOWS begin.
BAD_STRETCHES = (1.0, 0.5, 2.0)
BAD_WINDOWS = 30
BAD_RATE, CALM_RATE = 0.75, 0.03
WRONG_RATE = 0.05

Products = npt.NDArray[np.integer[Any]]


def part_slices(num: int) -> tuple[slice, slice, slice]:
    """Which of the windows train, validate and test."""
    first, second = (round(end * num) for end in ENDS)
    return slice(first), slice(first, second), slice(second, num)


def set_points(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level about a set-point, which is a sensor too; products differ by far more, and one is new at the end."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 6)
    recipe_PR = 8 * dice.normal(size=(NUM_PRODUCTS, 2))
    recipe_NR = recipe_PR[_campaigns(dice)]
    x_NTF[:, :, 1:3] = recipe_NR[:, None]
    x_NTF[:, :, 0] += recipe_NR[:, None, 0]
    x_NTF[y_N, :, 0] += 0.35
    return x_NTF, y_N


def _campaigns(dice: np.random.Generator) -> Products:
    """product_N: all but the last come and go from the start on; the last has every other campaign of the test."""
    num = NUM_WINDOWS // CAMPAIGN_WINDOWS
    known = NUM_PRODUCTS - 1
    product_C = np.concatenate([dice.permutation(known), dice.integers(0, known, num - known)])
    product_C[part_slices(num)[2]][::2] = known
    return np.repeat(product_C, CAMPAIGN_WINDOWS)


def replaced_sensor(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """One sensor varies more; one with another offset takes its place, late in the validation or in the test part."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 6)
    x_NTF[y_N, :, 2] *= 1.22
    moment = round(NUM_WINDOWS * dice.uniform(0.75, 0.9))
    x_NTF[moment:, :, 2] += dice.choice([-1, 1]) * dice.uniform(4, 12)
    return x_NTF, y_N


def seasonal_drift(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """All sensors drift with the season and wander, each in its way but two alike; one of these lies higher."""
    y_N = labels(dice)
    x_NTF = noise(dice, NUM_WINDOWS, 100, 6)
    angle_N1 = 2 * np.pi * NUM_YEARS * np.arange(NUM_WINDOWS)[:, None] / NUM_WINDOWS
    late_F = dice.uniform(0, np.pi / 3) + dice.uniform(-np.pi / 6, np.pi / 6, 6)
    swing_F = dice.choice([-1, 1], 6) * dice.uniform(2, 5, 6)
    drift_NF = swing_F * np.sin(angle_N1 + late_F) + _wander(dice, NUM_WINDOWS, 6)
    drift_NF[:, 1] = drift_NF[:, 0]
    x_NTF += drift_NF[:, None]
    x_NTF[y_N, :, 1] += 0.5
    return x_NTF, y_N


def defect_clusters(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level; defects come in bad stretches, in some parts more than in others, and other sensors wander."""
    num = 1000
    y_N = np.asarray(dice.random(num) < np.where(_is_bad(dice, num), BAD_RATE, CALM_RATE))
    x_NTF = noise(dice, num, 100, 6)
    x_NTF[:, :, 1:] += _wander(dice, num, 5)[:, None]
    x_NTF[y_N, :, 0] += 0.35
    return x_NTF, y_N


def _is_bad(dice: np.random.Generator, num: int) -> Bools:
    is_bad_N = np.zeros(num, dtype=np.bool_)
    place_N = np.arange(num)
    for part, a_hundred in zip(part_slices(num), BAD_STRETCHES, strict=True):
        place = place_N[part]
        begin = dice.choice(place[:-BAD_WINDOWS], round(a_hundred * len(place) / 100), replace=False)
        is_bad_N[(begin[:, None] + np.arange(BAD_WINDOWS)).ravel()] = True
    return is_bad_N


def _wander(dice: np.random.Generator, num: int, sensors: int) -> Floats:
    """x_NF of unit variance; each window keeps 0.98 of the one before."""
    x_NF = dice.normal(size=(num, sensors))
    for n in range(1, num):
        x_NF[n] = 0.98 * x_NF[n - 1] + 0.199 * x_NF[n]
    return x_NF


def wrong_labels(dice: np.random.Generator) -> tuple[Floats, Bools]:
    """A level; one label of twenty is wrong, but for those of the test part."""
    x_NTF, y_N = level(dice)
    is_wrong_N = dice.random(len(y_N)) < WRONG_RATE
    is_wrong_N[part_slices(len(y_N))[2]] = False
    return x_NTF, y_N ^ is_wrong_N
