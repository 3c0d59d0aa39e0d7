"""How fast does the engine train, beside peers with the same model? `python -m benchmarks.train [--json]`

Every engine trains in a process of its own on the same windows, one after the other, again and again; then they race
to a validation AUC-ROC after a change of regime. `docs/benchmarks.md` says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ingest.child import CompetitorError
from benchmarks.ingest.environment import PeersMissingError
from benchmarks.ingest.report import machine
from benchmarks.train import race, report
from benchmarks.train.data import write_work
from benchmarks.train.job import Job
from benchmarks.train.measured import MODULES, Run, ceiling, medians, python_of, train

PARTS = (*report.READOUTS, "race")
BATCH_SIZE = 32


@dataclass(frozen=True)
class Size:
    """How much is done."""

    num_train: int
    num_val: int
    num_epochs: int
    num_casts: int
    num_race_epochs: int


DEFAULT = Size(num_train=1000, num_val=200, num_epochs=3, num_casts=1600, num_race_epochs=60)
QUICK = Size(num_train=64, num_val=64, num_epochs=1, num_casts=160, num_race_epochs=2)


@dataclass
class Throughput:
    """All engines on the default work, in rounds."""

    size: Size
    engines: Sequence[str]
    readouts: Sequence[str]
    folder: Path

    def measure(self, repeat: int) -> tuple[dict[str, dict[str, Any]], report.Core]:
        """Figures by readout and engine, and what a core can do, all medians of the rounds."""
        path, size = self.folder / "work.npz", self.size
        write_work(path, size.num_train, size.num_val, num_epochs=size.num_epochs, batch_size=BATCH_SIZE)
        runs: dict[tuple[str, str], list[Run]] = {}
        gflops: list[float] = []
        subnormal_costs: list[float] = []
        for number in range(repeat):
            for each, measured in zip((gflops, subnormal_costs), ceiling(), strict=True):
                each.append(measured)
            say(f"{number + 1}/{repeat} ceiling: {gflops[-1]:.0f} GFLOP/s a core")
            for readout in self.readouts:
                for name in self.engines:
                    run = train(name, self._job(path, readout))
                    runs.setdefault((readout, name), []).append(run)
                    say(f"{number + 1}/{repeat} {readout} {name}: {self._num / run.seconds:.0f} sequences/s")
        core = report.Core(statistics.median(gflops), statistics.median(subnormal_costs))
        return self._figures(runs, core.gflops), core

    @property
    def _num(self) -> int:
        return self.size.num_train * self.size.num_epochs

    def _job(self, path: Path, readout: str) -> Job:
        pooling: Any = report.READOUTS[readout]
        return Job(str(path), pooling, self.size.num_epochs, batch_size=BATCH_SIZE)

    def _figures(self, runs: dict[tuple[str, str], list[Run]], gflops: float) -> dict[str, dict[str, Any]]:
        figures: dict[str, dict[str, Any]] = {}
        for (readout, name), each in runs.items():
            found = medians(each, self._num)
            found["ceiling_share"] = report.ceiling_share(found["sequences_per_s"], gflops, num_cpus())
            figures.setdefault(readout, {})[name] = found
        return figures


def num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_races(
    size: Size, seeds: Sequence[int], engines: Sequence[str], folder: Path
) -> dict[int, dict[str, race.Lap]]:
    """The race of each seed."""
    races = {}
    for seed in seeds:
        races[seed] = race.race(
            folder,
            seed,
            num_casts=size.num_casts,
            max_epochs=size.num_race_epochs,
            peers="lightning" in engines,
        )
        for name, lap in races[seed].items():
            say(f"seed {seed} {name}: {json.dumps(lap.describe())}")
    return races


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 when a check fails or an engine did."""
    options = _options(arguments)
    size = QUICK if options.quick else DEFAULT
    before = machine()
    try:
        for name in options.only:  # what is missing is told before anything is measured
            python_of(name)
        with tempfile.TemporaryDirectory(prefix="castloop-bench-") as folder:
            readouts = [part for part in options.parts if part in report.READOUTS]
            throughput = Throughput(size, options.only, readouts, Path(folder))
            figures, core = throughput.measure(options.repeat) if readouts else ({}, None)
            with_race = "race" in options.parts and "ours" in options.only
            races = run_races(size, options.seeds, options.only, Path(folder)) if with_race else {}
    except (CompetitorError, PeersMissingError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    result = _result(figures, core, races)
    if options.quick:
        result["checks"] = report.agreement(figures)
    result["machine"] = {"before": before, "after": machine()}
    result["size"] = vars(size) | {"repeat": options.repeat, "seeds": options.seeds}
    print(json.dumps(result) if options.json else report.table(result))
    return 0 if all(result["checks"].values()) else 1


def _result(
    figures: dict[str, dict[str, Any]], core: report.Core | None, races: dict[int, dict[str, race.Lap]]
) -> dict[str, Any]:
    seconds = race.summary(races, "scratch", "finetune") if races else {}
    laps = {seed: {name: lap.describe() for name, lap in each.items()} for seed, each in races.items()}
    ratios = report.ratios(figures) | race.ratios(races)
    result: dict[str, Any] = {
        readout: {name: each["sequences_per_s"] for name, each in engines.items()}
        for readout, engines in figures.items()
    }
    if races:
        result["seconds_to_auc"] = seconds
        result["seconds_to_auc_plain"] = race.summary(races, "plain")
    if "ours" in figures.get("pooled", {}):
        result["ceiling_share"] = figures["pooled"]["ours"]["ceiling_share"]
    return result | {
        "ratios": ratios,
        "checks": report.checks(figures, ratios, seconds, core) | race.checks(races),
        "details": figures | {"core": None if core is None else vars(core), "race": laps},
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.train", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--repeat", type=int, default=5, help="rounds of the throughput; the median counts")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the race; the median counts"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it runs")
    for name, known in (("--only", MODULES), ("--parts", PARTS)):
        parser.add_argument(
            name, type=lambda text: text.split(","), default=list(known), help=",".join(known)
        )
    options = parser.parse_args(arguments)
    for name, known in (("only", MODULES), ("parts", PARTS)):
        if unknown := sorted(set(getattr(options, name)) - set(known)):
            parser.error(f"--{name}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    if options.parts == ["race"] and "ours" not in options.only:
        parser.error("--parts race needs ours among --only: there is nothing to race against")
    if options.repeat < 1:
        parser.error("--repeat must be at least 1")
    return options


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
