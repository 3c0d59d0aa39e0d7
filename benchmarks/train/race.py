"""Time to a validation AUC-ROC on the casts after a change of regime: from scratch, and from a champion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.train.data import write_race
from benchmarks.train.job import Job
from benchmarks.train.measured import Run, train

TARGET_AUC = 0.88
# A champion that is no worse after the change has nothing to make up for.
MAX_CHAMPION_AUC = 0.80

Train = Callable[[str, Job], Run]


@dataclass(frozen=True)
class Lap:
    """One training towards the target.

    Attributes:
        reached: Whether it got there; `run.seconds` are those until then, or all that it took.
    """

    run: Run
    reached: bool

    def describe(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "seconds": self.run.seconds if self.reached else None,
            "seconds_run": self.run.seconds,
            "epochs": len(self.run.auc),
            "best_auc": max(self.run.auc),
            **({} if self.run.champion_auc is None else {"champion_auc": self.run.champion_auc}),
        }

    @property
    def counts(self) -> bool:
        """Whether it began where there was something to make up for."""
        return self.run.champion_auc is None or self.run.champion_auc < MAX_CHAMPION_AUC


def race(
    folder: Path, seed: int, *, num_casts: int, max_epochs: int, peers: bool = True, train: Train = train
) -> dict[str, Lap]:
    """Lets everyone train on the same casts of one seed.

    Args:
        folder: Gets the windows and the champion.
        seed: Of the plant and of all engines.
        num_casts: Of the campaign; a quarter of them is raced on.
        max_epochs: Who has not arrived then, has not arrived.
        peers: Whether Lightning takes part.
        train: Runs one competitor.
    """
    before, after, champion = (
        folder / f"{seed}-{name}" for name in ("before.npz", "after.npz", "champion.pt")
    )
    write_race(before, after, seed, num_casts)
    train("ours", Job(str(before), None, max_epochs, seed=seed, save_to=str(champion)))
    entries: dict[str, tuple[str, Job]] = {
        "scratch": ("ours", _job(after, None, max_epochs, seed)),
        "finetune": ("ours", _job(after, None, max_epochs, seed, champion=str(champion))),
        "plain": ("ours", _job(after, "last", max_epochs, seed)),
    }
    if peers:
        entries["lightning"] = ("lightning", _job(after, "last", max_epochs, seed))
    laps = {}
    for name, (engine, job) in entries.items():
        run = train(engine, job)
        laps[name] = Lap(run, job.is_reached(run.auc))
    return laps


def _job(data: Path, readout: Any, max_epochs: int, seed: int, champion: str | None = None) -> Job:
    return Job(str(data), readout, max_epochs, seed=seed, target_auc=TARGET_AUC, champion=champion)


def seconds(laps: Sequence[Lap]) -> float | None:
    """Median over the seeds that count; None when it is a run that did not arrive, or nothing counts."""
    counted = [lap.run.seconds if lap.reached else math.inf for lap in laps if lap.counts]
    median = statistics.median(counted) if counted else math.inf
    return round(median, 3) if math.isfinite(median) else None


def at_least(laps: Sequence[Lap]) -> float:
    """Median over the seeds of what was spent, whether or not they arrived: no more than the time to the target."""
    return round(statistics.median(lap.run.seconds for lap in laps), 3)


def summary(races: Mapping[int, Mapping[str, Lap]], *names: str) -> dict[str, float | None]:
    """Seconds to the target of these entries and of Lightning, if it took part.

    `lightning_at_least` is a number also where `lightning` is None.
    """
    laps = {name: [each[name] for each in races.values()] for name in next(iter(races.values()))}
    result = {name: seconds(laps[name]) for name in (*names, "lightning") if name in laps}
    if "lightning" in laps:
        result["lightning_at_least"] = at_least(laps["lightning"])
    return result


def checks(races: Mapping[int, Mapping[str, Lap]]) -> dict[str, bool]:
    """Whether the median of the fine-tuned is one of all seeds."""
    if not races:
        return {}
    all_count = all(each["finetune"].counts for each in races.values())
    return {f"finetune starts below {MAX_CHAMPION_AUC:g} with every seed": all_count}


def ratios(races: Mapping[int, Mapping[str, Lap]]) -> dict[str, float]:
    """How many times longer Lightning took, at least, over the seeds that count for the entry."""
    result = {}
    for name in ("scratch", "finetune", "plain"):
        counted = [each for each in races.values() if "lightning" in each and each[name].counts]
        ours = seconds([each[name] for each in counted])
        if ours is not None:
            lightning = at_least([each["lightning"] for each in counted])
            result[f"seconds_lightning_to_{name}"] = round(lightning / ours, 3)
    return result
