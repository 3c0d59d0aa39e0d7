"""The phases of a cycle: each takes the cycle to the next one, and can be repeated after a kill anywhere in it.

Nothing here writes the state of the cycle: the runner does, once a phase has come through.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from trainer.cycle.candidate import TrainingSummary, candidate, read_scores_file
from trainer.cycle.challenger import train_challenger
from trainer.cycle.decide import Contest, judge, result_of, warn_if_behind
from trainer.cycle.journal import CycleJournal
from trainer.cycle.state import Cycle
from trainer.data.catalogue import keep, let_go
from trainer.data.config import DatasetConfig
from trainer.data.dataset import Dataset, LabelledWindows, freeze, load
from trainer.data.source import WindowSource
from trainer.data.split import Split, require_classes, split_by_time
from trainer.disk import map_disk_errors
from trainer.errors import ArtifactError, CheckpointError, RegistryBehindError
from trainer.gate.config import GateConfig
from trainer.gate.policy import require_enough_casts
from trainer.learn.config import ModelSettings
from trainer.learn.report.training_metrics import EpochResult
from trainer.learn.scores.evaluate import Probabilities
from trainer.release.client.artifact import Artifact
from trainer.release.registry.event import Decision
from trainer.release.registry.registry import Registry
from trainer.release.registry.versions import JUDGED_FILE

log = structlog.get_logger()

# Scores of the baselines on the windows of the gate, beside the version.
BASELINES_FILE = "baselines.safetensors"


class WriterLease(Protocol):
    """What says that this trainer is the one that writes for its model name; see `streamer.store.lease.Lease`."""

    def ensure(self) -> int:
        """Makes sure of the lease for its whole time, or raises."""
        ...

    def claim_version(self, version: int) -> bool:
        """Takes a version number; False if it, or a later one, was taken by another registry."""
        ...


class Phases:
    """Freezes, trains and decides.

    Args:
        on_epoch: Told of each epoch: cycle number, result.
        should_stop: Asked after each training step.
        tensorboard_dir: Gets a folder a cycle; None: no curves.
        now: The clock.
    """

    def __init__(
        self,
        *,
        dataset: DatasetConfig,
        gate: GateConfig,
        model: ModelSettings,
        registry: Registry,
        journal: CycleJournal,
        lease: WriterLease,
        on_epoch: Callable[[int, EpochResult], None],
        should_stop: Callable[[], bool],
        tensorboard_dir: Path | None,
        now: Callable[[], datetime],
    ) -> None:
        self._dataset_config, self._gate, self._model_settings = dataset, gate, model
        self._registry, self._journal, self._lease = registry, journal, lease
        self._on_epoch, self._should_stop, self._now = on_epoch, should_stop, now
        self._tensorboard_dir = tensorboard_dir
        self._dataset: Dataset | None = None  # of the cycle in progress, as long as this process runs it

    def step(self, reader: WindowSource, cycle: Cycle) -> Cycle:
        """Takes a cycle to its next phase."""
        if cycle.phase == "waiting":
            return self._freeze(reader, cycle)
        if cycle.phase == "frozen":
            return self._train(reader, cycle)
        return self._decide(reader, cycle)

    def forget(self) -> None:
        """Lets go of the windows in memory: the cycle is over, or a new one begins."""
        self._dataset = None

    def _check(self, dataset: LabelledWindows, config: DatasetConfig) -> Split:
        """Splits windows and checks that a training on them could be decided.

        Raises:
            NotEnoughDataError: The message says what is missing.
        """
        split = split_by_time(dataset.groups, dataset.end_N, dataset.y_N, config)
        gate_N = split.gate_N
        require_enough_casts(dataset.y_N[gate_N], np.asarray(dataset.casts)[gate_N], self._gate)
        require_classes(split, dataset.y_N)
        return split

    def _freeze(self, reader: WindowSource, cycle: Cycle) -> Cycle:
        self._lease.ensure()
        owner = self._registry.model_name
        dataset = freeze(
            reader,
            self._dataset_config.max_windows,
            lambda selection: self._check(selection, cycle.config),
            owner=owner,
        )
        self._lease.ensure()
        keep(reader, dataset.manifest, owner=owner)
        self._journal.freeze(cycle, dataset.manifest)
        if old := let_go(reader, self._needed(dataset), self._dataset_config.num_kept, owner=owner):
            log.info("data sets let go", ids=old)
        self._dataset = dataset
        return cycle.frozen(dataset.manifest.id, dataset.manifest.arrival)

    def _needed(self, dataset: Dataset) -> set[str]:
        """Data sets that stay held, whatever their age."""
        champion = self._registry.champion_version()
        of_champion = None if champion is None else self._registry.manifest(champion).dataset.id
        needed = (dataset.manifest.id, self._journal.state.dataset, of_champion)
        return {each for each in needed if each is not None}

    def _train(self, reader: WindowSource, cycle: Cycle) -> Cycle:
        dataset = self._loaded(reader, cycle)
        split = self._check(dataset, cycle.config)
        version = self._registry.trained_in(cycle.number)
        if version is None:
            version = self._train_and_register(cycle, dataset, split)
        return cycle.trained(version)

    def _train_and_register(self, cycle: Cycle, dataset: Dataset, split: Split) -> int:
        run_dir, number, curves = self._journal.run_dir(cycle), cycle.number, self._tensorboard_dir
        challenger = train_challenger(
            dataset,
            split,
            self._champion()[0],
            self._model_settings,
            cycle=number,
            run_dir=run_dir,
            tensorboard_dir=curves and curves / self._registry.model_name / f"cycle-{number:05d}",
            on_epoch=lambda epoch: self._on_epoch(number, epoch),
            should_stop=self._should_stop,
        )
        summary, version = TrainingSummary.of(challenger), self._registry.next_version()
        files = candidate(
            challenger,
            dataset,
            self._model_settings,
            model_name=self._registry.model_name,
            version=version,
            cycle=number,
            now=self._now(),
        )
        self._claim(version)
        return self._registry.register(
            files.published,
            files={
                "metrics.csv": _curves(challenger.trained.folder),
                "dataset.json": dataset.manifest.model_dump_json().encode(),
                BASELINES_FILE: files.baselines,
                **({JUDGED_FILE: files.judged} if files.judged else {}),
            },
            training=summary.model_dump_json().encode(),
            details={"cycle": number, "dataset": dataset.manifest.id, **summary.model_dump()},
        )

    def _claim(self, version: int) -> None:
        self._lease.ensure()
        if not self._lease.claim_version(version):
            raise RegistryBehindError(
                f"{self._registry.folder}: version {version} of {self._registry.model_name} was given out by another "
                "registry: point registry.path to that one, or start with --adopt to go on behind it"
            )

    def _decide(self, reader: WindowSource, cycle: Cycle) -> Cycle:
        dataset, version = self._loaded(reader, cycle), cycle.version
        assert version is not None  # noqa: S101 - the phase says so
        split = self._check(dataset, cycle.config)
        challenger = self._registry.judged(version)
        contest = Contest(challenger, *self._champion(judged=True), baselines=self._baselines(version))
        gate, fault = judge(contest, dataset, split, self._gate, self._model_settings.training.num_threads)
        reasons = (*gate.reasons, *([f"the champion could not score: {fault}"] if fault else []))
        decision = Decision.new("promoted" if gate.promote else "refused", reasons, self._now())
        summary = TrainingSummary.model_validate(self._registry.training(version))
        served = self._registry.champion_version()
        result = result_of(cycle, challenger.manifest, summary, decision, gate, champion=served)
        self._lease.ensure()
        log.info(decision.kind, cycle=cycle.number, version=version, reasons=reasons)
        warn_if_behind(challenger.manifest, decision=decision.kind)
        return cycle.decided(decision, result)

    def _loaded(self, reader: WindowSource, cycle: Cycle) -> Dataset:
        if self._dataset is None:
            log.info("going on", cycle=cycle.number, phase=cycle.phase)
            self._dataset = load(reader, self._journal.manifest(cycle))
        return self._dataset

    def _baselines(self, version: int) -> dict[str, Probabilities]:
        data = self._registry.file(version, BASELINES_FILE)
        return {} if data is None else read_scores_file(data)

    def _champion(self, *, judged: bool = False) -> tuple[Artifact | None, str | None]:
        """The champion as it is published, or as its gate saw it; or why it cannot be read."""
        try:
            champion = self._registry.champion()
        except ArtifactError as exc:
            return None, str(exc)
        if champion is None or not judged:
            return champion, None
        try:
            return self._registry.judged(champion.manifest.version), None
        except ArtifactError as exc:
            # It has learned the windows of its own gate, so it is harder to be better than it is.
            log.warning("the champion is judged as it is published", error=str(exc))
            return champion, None


def _curves(run_dir: Path) -> bytes:
    path = run_dir / "metrics.csv"
    with map_disk_errors("reading", path):
        try:
            return path.read_bytes()
        except FileNotFoundError as exc:
            raise CheckpointError(f"{path}: it is missing") from exc
