"""Which kinds of faults does the default model find, beside simple baselines? `python -m benchmarks.faults [--json]`

Each kind is a small data set of its own, made such that one thing alone tells defective windows: a level, a rhythm,
the order of two events and so on. Sensors have units and offsets of their own.

Figures of seeds 0 to 2 are the final ones: look at them once a design. A design is worked out on other random
numbers, `--seeds 100 101 102`; one that was chosen by the final ones is flattered by them. Wins that a design must
keep are means over the final seeds, so they are checked for these alone.

Shape suffixes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fault_kinds, fault_shifts
from benchmarks.fault_kinds import Bools, Kind
from benchmarks.labelled import Parts
from benchmarks.recordings import BASELINES, from_least, train
from streamer.errors import CastingError
from streamer.settings import load_settings
from trainer.learn.config import ModelSettings
from trainer.learn.members.labelled import LabelledPart
from trainer.learn.scores.baselines import score_baselines

SEEDS = (0, 1, 2)
RANKED = ("model", *BASELINES)
# Behind the better baseline, on each kind. Smaller: fails by the luck of 160 windows. Larger: hides a loss.
MAX_BEHIND = 0.02
# Where baselines find little and the model much: its AUC-ROC, mean over the final seeds.
WINS = {"rhythm": 0.895, "burst": 0.852, "lag": 1.000, "coincidence": 0.952, "correlation": 0.988}
MAX_LOST = 0.01

# Random numbers of a kind depend on its place: new ones come last.
KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        *(
            fault_kinds.level,
            fault_kinds.little_data,
            fault_kinds.many_sensors,
            fault_kinds.long_windows,
            fault_kinds.rare_defects,
            fault_kinds.missing_values,
            fault_kinds.all_lengths,
            fault_kinds.heavy_tails,
        ),
        *(
            fault_kinds.two_levels,
            fault_kinds.one_of_two_levels,
            fault_kinds.difference,
            fault_kinds.grades,
            fault_kinds.variance,
            fault_kinds.slope,
            fault_kinds.spikes,
            fault_kinds.stuck_sensor,
            fault_kinds.early_event,
        ),
        *(
            fault_kinds.rhythm,
            fault_kinds.burst,
            fault_kinds.order,
            fault_kinds.coincidence,
            fault_kinds.lag,
            fault_kinds.correlation,
        ),
        *(
            fault_shifts.set_points,
            fault_shifts.replaced_sensor,
            fault_shifts.seasonal_drift,
            fault_shifts.defect_clusters,
            fault_shifts.wrong_labels,
        ),
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
    train_part, validation, test = (
        LabelledPart(values_NTF[each], mask_NT[each], y_N[each])
        for each in fault_shifts.part_slices(len(y_N))
    )
    return train_part, validation, test


def measure(kind: str, seeds: Sequence[int], settings: ModelSettings) -> dict[str, float]:
    """AUC-ROC on the test part of model and baselines, means over the seeds."""
    found: dict[str, list[float]] = {who: [] for who in RANKED}
    for seed in seeds:
        parts = parts_of(kind, seed)
        baselines = score_baselines(*parts, seed=seed)
        scores = {"model": train(parts, settings, seed)} | {
            who: each.scores for who, each in baselines.items()
        }
        for who, each in scores.items():
            found[who].append(each.auc_roc)
    means = {who: float(np.mean(values)) for who, values in found.items()}
    print(f"{kind}: {json.dumps(means)}", file=sys.stderr)
    return means


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--seeds",
        type=from_least(0),
        nargs="+",
        default=SEEDS,
        help="left out: the final ones; 100 101 102, say, while a design is worked out",
    )
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
    checks = checked(kinds, mean) | (kept(kinds) if set(options.seeds) == set(SEEDS) else {})
    result = {"kinds": kinds, "mean": mean, "seeds": list(options.seeds), "checks": checks}
    print(json.dumps(result) if options.json else table(result))
    return 0 if all(checks.values()) else 1


def checked(kinds: dict[str, dict[str, float]], mean: dict[str, float]) -> dict[str, bool]:
    """What holds for any seeds."""
    return {f"on average the model is ahead of {name}": mean["model"] > mean[name] for name in BASELINES} | {
        f"the model is at most {MAX_BEHIND} behind the better baseline on each kind": all(
            ahead(kind) >= -MAX_BEHIND for kind in kinds.values()
        )
    }


def kept(kinds: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Which of the wins among these kinds are as large as they were, for the final seeds."""
    return {
        f"{name}: {least:.3f} less {MAX_LOST} at least": kinds[name]["model"] >= least - MAX_LOST
        for name, least in WINS.items()
        if name in kinds
    }


def ahead(kind: dict[str, float]) -> float:
    """AUC-ROC of the model less that of the better baseline."""
    return kind["model"] - max(kind[name] for name in BASELINES)


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{'AUC-ROC':20}" + "".join(f"{who:>26}" for who in (*RANKED, "ahead"))]
    for name, kind in (result["kinds"] | {"mean": result["mean"]}).items():
        figures = (*(kind[who] for who in RANKED), ahead(kind))
        lines.append(f"{name:20}" + "".join(f"{figure:26.3f}" for figure in figures))
    lines += [f"{'ok' if passed else 'FAILED':7}{text}" for text, passed in result["checks"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
