"""Which kinds of faults does the default model find, beside simple baselines? `python -m benchmarks.faults [--json]`

Each kind is a small data set of its own, made such that one thing alone tells defective windows: a level, a rhythm,
the order of two events and so on. Sensors have units and offsets of their own and, but for `heavy_tails`, noise that
remembers a step.

Shape suffixes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.labelled import Parts
from benchmarks.recordings import BASELINES, from_least, train
from streamer.errors import CastingError
from streamer.settings import load_settings
from trainer.learn.config import ModelSettings
from trainer.learn.scores.baselines import LabelledPart, score_baselines

SEEDS = (0, 1, 2)
NUM_WINDOWS = 800
BASE_RATE = 0.25
# Of the windows, in the order in which they were made: the first train, the next validate, the rest test.
ENDS = (0.6, 0.8)
RANKED = ("model", *BASELINES)
# Behind the regression, on each kind.
MAX_BEHIND = 0.05
# Its sensors leave the range that the model's normalisation keeps, of which the regression knows nothing.
OUT_OF_RANGE = "difference"

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


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        *(
            level,
            little_data,
            many_sensors,
            long_windows,
            rare_defects,
            missing_values,
            all_lengths,
            heavy_tails,
        ),
        *(
            two_levels,
            one_of_two_levels,
            difference,
            grades,
            variance,
            slope,
            spikes,
            stuck_sensor,
            early_event,
        ),
        *(rhythm, burst, order, coincidence, lag, correlation),
    )
}


def parts_of(kind: str, seed: int) -> Parts:
    """The windows of a kind, in the units of its sensors, in three parts."""
    dice = np.random.default_rng([seed, list(KINDS).index(kind)])
    x_NTF, y_N = KINDS[kind](dice)
    num_sensors = x_NTF.shape[2]
    x_NTF = x_NTF * 10 ** dice.uniform(-1, 2, num_sensors) + 10 ** dice.uniform(0, 3, num_sensors)
    values_NTF = x_NTF.astype(np.float32)
    mask_NT: Bools = ~np.asarray(np.isnan(values_NTF).all(axis=2))
    first, second = (round(end * len(y_N)) for end in ENDS)
    train_part, validation, test = (
        LabelledPart(values_NTF[each], mask_NT[each], y_N[each])
        for each in (slice(first), slice(first, second), slice(second, None))
    )
    return train_part, validation, test


def measure(kind: str, seeds: Sequence[int], settings: ModelSettings) -> dict[str, float]:
    """AUC-ROC on the test part of model and baselines, means over the seeds."""
    found: dict[str, list[float]] = {who: [] for who in RANKED}
    for seed in seeds:
        parts = parts_of(kind, seed)
        scores = {"model": train(parts, settings, seed)} | score_baselines(*parts, seed=seed)
        for who, each in scores.items():
            found[who].append(each.auc_roc)
    means = {who: float(np.mean(values)) for who, values in found.items()}
    print(f"{kind}: {json.dumps(means)}", file=sys.stderr)
    return means


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seeds", type=from_least(0), nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--config", type=Path, help="model_config.yaml; left out: the defaults")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(ModelSettings, options.config) if options.config else ModelSettings()
        kinds = {kind: measure(kind, options.seeds, settings) for kind in options.only}
    except CastingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    mean = {who: float(np.mean([kind[who] for kind in kinds.values()])) for who in RANKED}
    checks = {
        f"on average the model is ahead of {name}": mean["model"] > mean[name] for name in BASELINES
    } | {
        f"the model is at most {MAX_BEHIND} behind logistic_regression on each kind but {OUT_OF_RANGE}": all(
            kind["model"] >= kind["logistic_regression"] - MAX_BEHIND
            for name, kind in kinds.items()
            if name != OUT_OF_RANGE
        )
    }
    result = {"kinds": kinds, "mean": mean, "seeds": list(options.seeds), "checks": checks}
    print(json.dumps(result) if options.json else table(result))
    return 0 if all(checks.values()) else 1


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{'AUC-ROC':20}" + "".join(f"{who:>26}" for who in RANKED)]
    for name, kind in (result["kinds"] | {"mean": result["mean"]}).items():
        lines.append(f"{name:20}" + "".join(f"{kind[who]:26.3f}" for who in RANKED))
    lines += [f"{'ok' if passed else 'FAILED':7}{text}" for text, passed in result["checks"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
