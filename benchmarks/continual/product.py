"""The product: its cycle runner, its gate and its registry on disk, over windows in memory.

Shape suffixes: N windows.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.continual.campaign import Campaign, Known
from benchmarks.continual.method import Cost
from benchmarks.continual.source import OwnLease, RecordedWindows
from benchmarks.labelled import Ints
from trainer.cycle.config import CycleConfig
from trainer.cycle.journal import CycleJournal
from trainer.cycle.result import CycleResult
from trainer.cycle.runner import CycleRunner
from trainer.cycle.state import Cycle, State
from trainer.data.config import DatasetConfig
from trainer.errors import AttemptFailedError, NotEnoughDataError
from trainer.gate.config import GateConfig
from trainer.learn.config import ModelSettings
from trainer.learn.report.training_metrics import EpochResult
from trainer.learn.scores.evaluate import Probabilities
from trainer.release.client.artifact import Artifact
from trainer.release.registry.config import RegistryConfig
from trainer.release.registry.registry import Registry
from trainer.release.scorer import Scorer


class ClockedJournal(CycleJournal):
    """Takes the time of each phase of the cycles: what is written down when it begins and when it is over.

    Attributes:
        costs: By the phase that a cycle was in: `frozen` is the training, with what goes into the model file.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.costs = {"waiting": Cost(), "frozen": Cost(), "trained": Cost()}
        self._since: tuple[str, float, float] | None = None

    def write(self, state: State) -> None:
        """Writes the state."""
        super().write(state)
        phase = state.in_progress.phase if state.in_progress else None
        if self._since and self._since[0] != phase:
            self.stop_clock()
        if phase in self.costs and self._since is None:
            self._since = phase, time.perf_counter(), time.process_time()

    def stop_clock(self) -> None:
        """A cycle that waits for more windows, or is over, takes no more time."""
        if self._since:
            cost = self.costs[self._since[0]]
            cost.seconds += time.perf_counter() - self._since[1]
            cost.cpu_seconds += time.process_time() - self._since[2]
            self._since = None


class Ours:
    """One cycle for each chunk; the model in use is the champion of the registry.

    Args:
        folder: Of the registry.
    """

    def __init__(self, campaign: Campaign, settings: ModelSettings, folder: Path) -> None:
        self._campaign, self._windows = campaign, RecordedWindows(campaign)
        self.registry = Registry(RegistryConfig(path=folder), now=self._now).open()
        self._journal = ClockedJournal(self.registry.folder)
        self._runner = CycleRunner(
            dataset=DatasetConfig(),
            gate=GateConfig(),
            cycle=CycleConfig(),
            model=settings,
            registry=self.registry,
            journal=self._journal,
            lease=OwnLease(),
            observer=_Silent(),
            should_stop=lambda: False,
            now=self._now,
        )
        self._published = self._refused = 0
        self._scorer: Scorer | None = None
        self.first: Artifact | None = None

    @property
    def cost(self) -> Cost:
        """Of the phase in which a cycle trains."""
        training = self._journal.costs["frozen"]
        return Cost(training.seconds, training.cpu_seconds, self._published, self._refused)

    @property
    def now_ms(self) -> int:
        """Recorded time, epoch ms."""
        return self._windows.now_ms

    def update(self, known: Known) -> str:
        """Runs a cycle on what is labelled."""
        self._windows.now_ms = known.at_ms
        before = {phase: cost.seconds for phase, cost in self._journal.costs.items()}
        told = self._told()
        self._journal.stop_clock()
        champion = self.registry.champion()
        self._scorer = None if champion is None else Scorer(champion)
        self.first = self.first or champion
        spent = (cost.seconds - before[phase] for phase, cost in self._journal.costs.items())
        return told + ", freeze {:.2f} s, train {:.1f} s, decide {:.2f} s".format(*spent)

    def score(self, index_N: Ints) -> Probabilities | None:
        """By the champion."""
        if self._scorer is None:
            return None
        return self._scorer.probabilities(self._campaign.x_NTF[index_N], self._campaign.mask_NT[index_N])

    def close(self) -> None:
        """Gives the registry back."""
        self.registry.close()

    def _cycle(self) -> CycleResult | None:
        while True:
            with suppress(AttemptFailedError):  # counted: the last attempt ends the cycle
                return self._runner.run(self._windows, "new-windows")

    def _told(self) -> str:
        try:
            result = self._cycle()
        except NotEnoughDataError as exc:
            return f"waits: {exc}"
        if result is None:
            return (
                f"failed: {'; '.join(self._journal.state.cycle.reasons if self._journal.state.cycle else ())}"
            )
        self._published += result.decision == "promoted"
        self._refused += result.decision == "refused"
        unmet = [check.text for check in result.checks if not check.met]
        members = self.registry.manifest(result.version).members
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in members.items() if weight)
        return "; ".join([f"version {result.version} {result.decision} ({weights})", *unmet])

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._windows.now_ms / 1000, UTC)


class NeverRetrained:
    """The product up to its first model, which stays in use for ever.

    Args:
        ours: May be worked off beside it: then its first model costs nothing twice.
    """

    def __init__(self, campaign: Campaign, ours: Ours) -> None:
        self._campaign, self._ours = campaign, ours
        self._scorer: Scorer | None = None
        self.cost = Cost()

    def update(self, known: Known) -> str:
        """Runs cycles until there is a model."""
        if self._scorer is not None:
            return "keeps its model"
        if self._ours.now_ms != known.at_ms:
            self._ours.update(known)
        self.cost = self._ours.cost
        if self._ours.first is None:
            return "no model yet"
        self._scorer = Scorer(self._ours.first)
        return f"version {self._ours.first.manifest.version}"

    def score(self, index_N: Ints) -> Probabilities | None:
        """By the first champion."""
        if self._scorer is None:
            return None
        return self._scorer.probabilities(self._campaign.x_NTF[index_N], self._campaign.mask_NT[index_N])


class _Silent:
    """An observer that tells nobody."""

    def on_epoch(self, cycle: int, epoch: EpochResult) -> None: ...

    def on_fault(self, kind: str) -> None: ...

    def on_ended(self, cycle: Cycle) -> None: ...
