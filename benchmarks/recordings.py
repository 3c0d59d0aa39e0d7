"""Does the default model rank defects as well as simple baselines do? `python -m benchmarks.recordings DIR... --json`

Each DIR is a labelled recording; the name `simulator` stands for simulated casts, a campaign a seed. Windows are
whole casts, split in time by whole groups: 60 % train, 20 % validation, 20 % test, the same for model and baselines.

Shape suffixes: N windows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labelled import Parts, recorded, simulated, split
from streamer.errors import CastingError
from streamer.settings import load_settings
from trainer.errors import NotEnoughDataError
from trainer.learn.config import ModelSettings
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.ensemble.fitting import fit_ensemble
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.members.labelled import LabelledPart
from trainer.learn.members.part_statistics import PartStatistics
from trainer.learn.model.network import build_model
from trainer.learn.scores.baselines import score_baselines
from trainer.learn.scores.evaluate import Scores, evaluate

SIMULATOR = "simulator"
NUM_CASTS = 1000
SEEDS = (0, 1, 2)
# Smaller: fewer recordings are seen cast by cast. Larger: one long cast pads the windows of all the others.
MAX_STEPS = 600
FIGURES = ("auc_roc", "auc_pr", "f1", "ece")
BASELINES = ("logistic_regression", "hist_gradient_boosting")

Report = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 when a check fails or a data set cannot be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.recordings", description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", metavar="DIR", help=f"a recording, or {SIMULATOR}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seeds", type=from_least(0), nargs="+", default=SEEDS)
    parser.add_argument(
        "--max-steps", type=from_least(2), default=MAX_STEPS, help="longer casts are cut into windows"
    )
    parser.add_argument("--casts", type=from_least(1), default=NUM_CASTS, help="of each simulated campaign")
    parser.add_argument("--config", type=Path, help="model_config.yaml; left out: the defaults")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(ModelSettings, options.config) if options.config else ModelSettings()
        # All are read before the first training: a fault is told in seconds.
        sources = {name: _open(source, options) for name, source in named(options.sources).items()}
        result = {name: measure(name, parts_of, settings) for name, parts_of in sources.items()}
    except CastingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(result) if options.json else table(result))
    return 0 if all(all(report["checks"].values()) for report in result.values()) else 1


def from_least(low: int) -> Callable[[str], int]:
    """Reads a whole number that is not smaller, for argparse."""

    def number(text: str) -> int:
        if not low <= int(text) < 2**31:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {low} to {2**31 - 1}")
        return int(text)

    return number


def named(sources: Sequence[str]) -> dict[str, str]:
    """The sources by name; where two have the same one, by the paths that were given."""
    times = Counter(name_of(source) for source in dict.fromkeys(sources))
    return {source if times[name_of(source)] > 1 else name_of(source): source for source in sources}


def name_of(source: str) -> str:
    return source if source == SIMULATOR else Path(source).resolve().name


def _open(source: str, options: argparse.Namespace) -> dict[int, Parts]:
    """The parts that each seed trains on: a recording is the same for all."""
    try:
        if source == SIMULATOR:
            return {seed: split(simulated(seed, options.casts), options.max_steps) for seed in options.seeds}
        parts = split(recorded(Path(source)), options.max_steps)
    except NotEnoughDataError as exc:
        raise NotEnoughDataError(f"{source}: {exc}") from exc
    return dict.fromkeys(options.seeds, parts)


def measure(name: str, parts_of: dict[int, Parts], settings: ModelSettings) -> Report:
    """Trains and scores with every seed.

    Returns:
        Mean scores of model and baselines, what they are made of, and the checks.
    """
    seeds: dict[str, Report] = {}
    for seed, parts in parts_of.items():
        started = time.perf_counter()
        scores = {"model": train(parts, settings, seed)}
        seconds = time.perf_counter() - started
        scores |= {who: each.scores for who, each in score_baselines(*parts, seed=seed).items()}
        seeds[str(seed)] = {who: _figures(each) for who, each in scores.items()} | {"seconds": seconds}
        print(f"{name} seed {seed}: {json.dumps(seeds[str(seed)])}", file=sys.stderr)
    mean = {
        who: {figure: _mean([report[who][figure] for report in seeds.values()]) for figure in FIGURES}
        for who in ("model", *BASELINES)
    }
    tests = [parts[2].y_N for parts in parts_of.values()]
    return {
        **mean,
        "base_rate": _mean([float(y_N.mean()) for y_N in tests]),
        "windows": {
            part: len(each.y_N)
            for part, each in zip(("train", "validation", "test"), next(iter(parts_of.values())), strict=True)
        },
        "seconds": _mean([report["seconds"] for report in seeds.values()]),
        "seeds": seeds,
        "checks": {text: check(mean) for text, check in CHECKS.get(name_of(name), {}).items()},
    }


def train(parts: Parts, settings: ModelSettings, seed: int) -> Scores:
    """Trains a model from scratch, as a cycle does, and scores it on the test part."""
    training = settings.training.model_copy(update={"seed": seed})
    settings = settings.model_copy(update={"training": training})
    part, validation, test = parts
    network = build_model(settings.architecture, part.x_NTF.shape[2], seed)
    LSTMTrainer(network, settings).train(
        _loader(part, settings, shuffle=True), _loader(validation, settings, shuffle=False)
    )
    fitted = fit_ensemble(
        network, (part, validation), settings=settings, statistics=PartStatistics.chosen(part)
    )
    model = fitted.model
    print(f"  weights {model.combination.weights}", file=sys.stderr)
    return evaluate(test.y_N, model.probabilities(test.x_NTF, test.mask_NT), fitted.threshold)


def _loader(part: LabelledPart, settings: ModelSettings, *, shuffle: bool) -> WindowLoader:
    training = settings.training
    return WindowLoader(
        *(part.x_NTF, part.mask_NT, part.y_N),
        batch_size=training.batch_size,
        shuffle=shuffle,
        seed=training.seed,
    )


def _figures(scores: Scores) -> dict[str, float]:
    return {figure: getattr(scores, figure) for figure in FIGURES}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _ahead(mean: Report) -> float:
    """AUC-ROC of the model less that of the better baseline."""
    return float(mean["model"]["auc_roc"]) - max(float(mean[name]["auc_roc"]) for name in BASELINES)


CHECKS: dict[str, dict[str, Callable[[Report], bool]]] = {
    "hydraulic_rig": {
        "AUC-ROC of the model is at least 0.99": lambda mean: mean["model"]["auc_roc"] >= 0.99,
        "AUC-PR of the model is at least 0.95": lambda mean: mean["model"]["auc_pr"] >= 0.95,
    },
    SIMULATOR: {
        "the model is at most 0.01 AUC-ROC behind the better baseline": lambda mean: _ahead(mean) >= -0.01,
    },
}


def table(result: Report) -> str:
    """The result for people."""
    lines = [f"{'':30}{'AUC-ROC':>10}{'AUC-PR':>10}{'F1':>10}"]
    for name, report in result.items():
        sizes = ", ".join(f"{number} {part}" for part, number in report["windows"].items())
        lines.append(f"{name}: windows {sizes}; base rate {report['base_rate']:.3f}")
        for who in ("model", *BASELINES):
            lines.append(f"  {who:28}" + "".join(f"{report[who][figure]:10.3f}" for figure in FIGURES))
        lines += [f"  {'ok' if passed else 'FAILED':7}{text}" for text, passed in report["checks"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
