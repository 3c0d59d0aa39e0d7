"""Runs one cycle: each phase in its turn, each written down before the next begins.

    1. count the attempt                      (state.json)
    2. waiting -> frozen: choose and hold the windows, keep the manifest
    3. frozen -> trained: fine-tune, score beside baselines, register the version
    4. trained -> decided: score challenger and champion, write the decision down, then carry it out

Every phase can be repeated. What fails in the same place again and again ends the cycle; its windows stay news.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from streamer.errors import ConfigError, UnavailableError
from streamer.store.lease import LeaseTakenError
from streamer.store.reading import WindowReader
from trainer.cycle.baseline_gap import warn_if_behind
from trainer.cycle.candidate import TrainingSummary, model_file
from trainer.cycle.challenger import train_challenger
from trainer.cycle.config import CycleConfig
from trainer.cycle.decide import Contest, judge, result_of
from trainer.cycle.journal import CycleJournal
from trainer.cycle.state import Cycle, CycleResult, State
from trainer.data.catalogue import keep, let_go
from trainer.data.config import DatasetConfig
from trainer.data.dataset import Dataset, LabelledWindows, freeze, load
from trainer.data.split import Split, require_classes, split_by_time
from trainer.errors import (
    ArtifactError,
    AttemptFailedError,
    CheckpointError,
    CycleStoppedError,
    DatasetChangedError,
    ModelInputError,
    NotEnoughDataError,
    RegistryBehindError,
    TrainingDivergedError,
    TrainingSetupError,
)
from trainer.gate.config import GateConfig
from trainer.gate.lineage import require_same_inputs
from trainer.gate.policy import require_enough_casts
from trainer.learn.config import ModelSettings
from trainer.learn.report.training_metrics import EpochResult
from trainer.release.client.artifact import Artifact
from trainer.release.client.inputs import ModelInputs
from trainer.release.registry.event import Decision
from trainer.release.registry.registry import Registry
from trainer.triggers import Trigger

log = structlog.get_logger()

# Whoever meets these ends or waits; the attempt does not count.
FROM_OUTSIDE = (UnavailableError, LeaseTakenError, CycleStoppedError)
# A person decides: the process ends with the message.
FOR_A_PERSON = (ConfigError, TrainingSetupError, RegistryBehindError)
# The same weights, the same windows and the same seed give the same again.
FOR_GOOD = (TrainingDivergedError, ModelInputError)


class WriterLease(Protocol):
    """What says that this trainer is the one that writes for its model name; see `streamer.store.lease.Lease`."""

    def ensure(self) -> int:
        """Makes sure of the lease for its whole time, or raises."""
        ...

    def claim_version(self, version: int) -> bool:
        """Takes a version number; False if it, or a later one, was taken by another registry."""
        ...


class Observer(Protocol):
    """What is told of a cycle as it goes on."""

    def on_epoch(self, cycle: int, epoch: EpochResult) -> None:
        """An epoch has ended."""

    def on_fault(self, kind: str) -> None:
        """An attempt has ended in an error."""

    def on_ended(self, cycle: Cycle) -> None:
        """A cycle is decided, failed or abandoned."""


class CycleRunner:
    """Runs cycles against one registry.

    Args:
        tensorboard_dir: Gets a folder a cycle; None: no curves.
        accept_new_inputs: Whether a model of other inputs than the champion's may be trained at all.
        should_stop: Asked after each training step.
        now: The clock.
    """

    def __init__(
        self,
        *,
        dataset: DatasetConfig,
        gate: GateConfig,
        cycle: CycleConfig,
        model: ModelSettings,
        registry: Registry,
        journal: CycleJournal,
        lease: WriterLease,
        observer: Observer,
        should_stop: Callable[[], bool],
        tensorboard_dir: Path | None = None,
        accept_new_inputs: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dataset_config, self._gate, self._cycle_config = dataset, gate, cycle
        self._model_settings = model
        self._registry, self._journal, self._lease = registry, journal, lease
        self._observer, self._should_stop, self._now = observer, should_stop, now
        self._tensorboard_dir = tensorboard_dir
        self._accept_new_inputs = accept_new_inputs
        self._dataset: Dataset | None = None  # of the cycle in progress, as long as this process runs it

    @property
    def configuration(self) -> str:
        """Digest of all that a decision depends on beside the data."""
        sections = (self._dataset_config, self._gate, self._model_settings)
        text = json.dumps([section.model_dump(mode="json") for section in sections], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def run(self, reader: WindowReader, trigger: Trigger) -> CycleResult | None:
        """Runs the cycle in progress to its end, or a new one.

        Returns:
            What it came to; None if it failed, which is logged and told, and the champion stays.

        Raises:
            NotEnoughDataError: The windows do not suffice yet; the message says what is missing.
            InputsChangedError: They are of other inputs than the champion's.
            UnavailableError: Redis or the disk does not answer; the cycle goes on later.
            LeaseTakenError: Another trainer writes for this model name.
            CycleStoppedError: `should_stop` said so.
            AttemptFailedError: It is tried again.
        """
        self.settle()
        self._drop_outdated()
        self._journal.clear()
        while True:
            if self._state.in_progress is None:
                self._begin(reader, trigger)
            cycle = self._run_phases(reader)
            if cycle.ending != "abandoned":
                return cycle.result
            trigger = cycle.trigger  # its rows are gone, its windows are news

    def check(self, dataset: LabelledWindows, config: DatasetConfig) -> Split:
        """Splits windows and checks that a training on it could be decided.

        Raises:
            NotEnoughDataError: The message says what is missing.
        """
        split = split_by_time(dataset.groups, dataset.end_N, config)
        gate_N = split.gate_N
        require_enough_casts(dataset.y_N[gate_N], np.asarray(dataset.casts)[gate_N], self._gate)
        require_classes(split, dataset.y_N)
        return split

    def settle(self) -> None:
        """Completes what the state says and a kill, a full disk or an outage left undone in the registry."""
        cycle = self._state.cycle
        if cycle is not None:
            self._carry_out(cycle)
        current = self._state.in_progress
        mine = None if current is None else self._registry.trained_in(current.number)
        for version in self._registry.undecided():
            if version != mine:
                self._refuse(version, _why_undecided(cycle, version))
        if cycle is not None and cycle.ending == "failed" and not cycle.is_told:
            self._tell_failed(cycle)

    def abandon(self, reason: str) -> None:
        """Gives the cycle in progress up; its windows stay news."""
        if self._state.in_progress is not None:
            self._end(self._state.abandoned(reason, self._now()))

    @property
    def _state(self) -> State:
        return self._journal.state

    def _begin(self, reader: WindowReader, trigger: Trigger) -> None:
        champion = self._registry.champion_version()
        if champion is not None and not self._accept_new_inputs:
            require_same_inputs(self._registry.manifest(champion), ModelInputs.of(reader.data, reader.spec))
        state, windows = self._state, windows_of(reader)
        cycle = Cycle(
            number=state.last_number + 1,
            trigger=trigger,
            began_at=self._now(),
            config=self._dataset_config,
            configuration=self.configuration,
            windows=windows,
            news_after=state.news_after(self.configuration, windows, reader.last_arrival()),
        )
        self._journal.write(state.begun(cycle))
        self._dataset = None
        log.info("cycle begins", cycle=self._state.last_number, trigger=trigger)

    def _drop_outdated(self) -> None:
        """Gives up a cycle that still waits for windows, where the configuration was changed: it may be why."""
        cycle = self._state.in_progress
        if cycle is not None and cycle.phase == "waiting" and cycle.configuration != self.configuration:
            self.abandon("the configuration was changed before its windows were chosen")

    def _run_phases(self, reader: WindowReader) -> Cycle:
        cycle = self._state.cycle
        while cycle is not None and not cycle.is_over:
            self._attempt(reader, cycle)
            cycle = self._state.cycle
        assert cycle is not None  # noqa: S101 - one was begun
        return cycle

    def _attempt(self, reader: WindowReader, cycle: Cycle) -> None:
        """One attempt of the phase that comes next; it is counted on disk before it begins."""
        counted = cycle.attempt(self._journal.progress(cycle))
        if counted.attempts > self._cycle_config.max_attempts:
            self._fail(cycle.why_given_up())
            return
        self._journal.write(self._state.moved(counted))
        try:
            self._step(reader, counted)
        except FROM_OUTSIDE:
            self._journal.note(self._state.moved(counted.uncounted()))
            raise
        except NotEnoughDataError as exc:
            # Once frozen: a gate that was made stricter meanwhile. It would be so for ever.
            if counted.phase == "waiting":
                self._journal.note(self._state.moved(counted.uncounted()))
            else:
                self.abandon(str(exc))
            raise
        except DatasetChangedError as exc:
            log.warning("frozen data set is gone", cycle=cycle.number, error=str(exc))
            self.abandon(str(exc))
        except CheckpointError as exc:
            # Such as a configuration that was changed in mid-cycle: the windows are the same, the training is not.
            log.warning("starting the training anew", cycle=cycle.number, error=str(exc))
            self._journal.begin_training_anew(cycle)
            self._journal.write(self._state.moved(counted.begun_anew(str(exc))))
        except Exception as exc:  # noqa: BLE001 - counted, told, and raised again until its attempts are used up
            self._fault(counted, exc)

    def _fault(self, counted: Cycle, exc: Exception) -> None:
        """An attempt failed: the cycle with it where it would fail again, or has done so too often."""
        self._observer.on_fault(type(exc).__name__)
        faulted = counted.faulted(f"{type(exc).__name__}: {exc}")
        self._journal.write(self._state.moved(faulted))
        if isinstance(exc, FOR_GOOD):
            self._fail(str(exc))
        elif isinstance(exc, FOR_A_PERSON):
            raise exc
        elif faulted.attempts >= self._cycle_config.max_attempts:
            self._fail(faulted.why_given_up())
        else:
            raise AttemptFailedError(
                f"cycle {counted.number}, attempt {counted.attempts} of {self._cycle_config.max_attempts} "
                f"in the phase after '{counted.phase}': {exc}"
            ) from exc

    def _fail(self, reason: str) -> None:
        self._end(self._state.failed(reason, self._now(), self._cycle_config))

    def _end(self, state: State) -> None:
        self._journal.write(state)
        cycle, self._dataset = state.cycle, None
        if cycle is None:
            return
        if cycle.ending == "failed":
            log.error("cycle failed", cycle=cycle.number, reasons=cycle.reasons, retry_at=str(state.retry_at))
        self._observer.on_ended(cycle)
        self.settle()

    # The phases

    def _step(self, reader: WindowReader, cycle: Cycle) -> None:
        if cycle.phase == "waiting":
            self._freeze(reader, cycle)
        elif cycle.phase == "frozen":
            self._train(reader, cycle)
        else:
            self._decide(reader, cycle)

    def _freeze(self, reader: WindowReader, cycle: Cycle) -> None:
        self._lease.ensure()
        owner = self._registry.model_name
        dataset = freeze(
            reader,
            self._dataset_config.max_windows,
            lambda selection: self.check(selection, cycle.config),
            owner=owner,
        )
        self._lease.ensure()
        keep(reader, dataset.manifest, owner=owner)
        self._journal.freeze(cycle, dataset.manifest)
        self._journal.write(self._state.moved(cycle.frozen(dataset.manifest.id, dataset.manifest.arrival)))
        self._dataset = dataset
        champion = self._registry.champion_version()
        needed = {dataset.manifest.id, *([self._registry.manifest(champion).dataset.id] if champion else [])}
        if old := let_go(reader, needed, self._dataset_config.num_kept, owner=owner):
            log.info("data sets let go", ids=old)

    def _train(self, reader: WindowReader, cycle: Cycle) -> None:
        dataset = self._loaded(reader, cycle)
        split = self.check(dataset, cycle.config)
        version = self._registry.trained_in(cycle.number)
        if version is None:
            version = self._train_and_register(cycle, dataset, split)
        self._journal.write(self._state.moved(cycle.trained(version)))

    def _train_and_register(self, cycle: Cycle, dataset: Dataset, split: Split) -> int:
        run_dir, number = self._journal.run_dir(cycle), cycle.number
        curves = self._tensorboard_dir
        challenger = train_challenger(
            dataset,
            split,
            self._champion()[0],
            self._model_settings,
            cycle=number,
            run_dir=run_dir,
            tensorboard_dir=curves and curves / self._registry.model_name / f"cycle-{number:05d}",
            on_epoch=lambda epoch: self._observer.on_epoch(number, epoch),
            should_stop=self._should_stop,
        )
        summary, version = TrainingSummary.of(challenger.training), self._registry.next_version()
        data = model_file(
            challenger,
            dataset,
            split,
            self._model_settings,
            model_name=self._registry.model_name,
            version=version,
            cycle=number,
            now=self._now(),
        )
        self._claim(version)
        details = {"cycle": number, "dataset": dataset.manifest.id, **summary.model_dump()}
        files = {
            "metrics.csv": (run_dir / "metrics.csv").read_bytes(),
            "dataset.json": dataset.manifest.model_dump_json().encode(),
        }
        training = summary.model_dump_json().encode()
        return self._registry.register(data, files=files, training=training, details=details)

    def _claim(self, version: int) -> None:
        self._lease.ensure()
        if not self._lease.claim_version(version):
            raise RegistryBehindError(
                f"{self._registry.folder}: version {version} of {self._registry.model_name} was given out by another "
                "registry: point registry.path to that one, or start with --adopt to go on behind it"
            )

    def _decide(self, reader: WindowReader, cycle: Cycle) -> None:
        dataset = self._loaded(reader, cycle)
        split = self.check(dataset, cycle.config)
        version = cycle.version
        assert version is not None  # noqa: S101 - the phase says so
        challenger = self._registry.artifact(version)
        contest = Contest(challenger, *self._champion())
        gate, fault = judge(contest, dataset, split, self._gate, self._model_settings.training.num_threads)
        reasons = (*gate.reasons, *([f"the champion could not score: {fault}"] if fault else []))
        decision = Decision.new("promoted" if gate.promote else "refused", reasons, self._now())
        summary = TrainingSummary.model_validate(self._registry.training(version))
        result = result_of(cycle, challenger.manifest, summary, decision, gate)
        self._lease.ensure()
        log.info(decision.kind, cycle=cycle.number, version=version, reasons=reasons)
        warn_if_behind(challenger.manifest, decision=decision.kind)
        self._end(self._state.decided(cycle.decided(decision, result)))

    def _carry_out(self, cycle: Cycle) -> None:
        version, decision, result = cycle.version, cycle.decision, cycle.result
        if version is None or decision is None or self._registry.decision(version) is not None:
            return
        details = (
            {}
            if result is None
            else result.model_dump(mode="json", exclude={"decision", "version", "reasons"})
        )
        details["cycle"] = details.pop("number", cycle.number)
        self._registry.decide(version, decision, {**details, "dataset": cycle.dataset})

    def _refuse(self, version: int, reason: str) -> None:
        manifest = self._registry.manifest(version)
        details = {"cycle": manifest.cycle, "dataset": manifest.dataset.id}
        self._registry.refuse(version, [reason], details)

    def _tell_failed(self, cycle: Cycle) -> None:
        ce_id = str(uuid.uuid5(uuid.UUID(self._registry.identity().id), f"cycle-{cycle.number}-failed"))
        details = {
            "cycle": cycle.number,
            "trigger": cycle.trigger,
            "phase": cycle.phase,
            "faults": cycle.faults,
        }
        self._registry.tell_failed(ce_id, cycle.reasons, {**details, "dataset": cycle.dataset})
        self._journal.write(self._state.moved(cycle.told()))

    def _loaded(self, reader: WindowReader, cycle: Cycle) -> Dataset:
        if self._dataset is None:
            log.info("going on", cycle=cycle.number, phase=cycle.phase)
            self._dataset = load(reader, self._journal.manifest(cycle))
        return self._dataset

    def _champion(self) -> tuple[Artifact | None, str | None]:
        """The champion, or why it cannot be read."""
        try:
            return self._registry.champion(), None
        except ArtifactError as exc:
            return None, str(exc)


def windows_of(reader: WindowReader) -> str:
    """Which windows a reader reads: namespace and name."""
    return f"{reader.namespace}/{reader.spec.name}"


def _why_undecided(cycle: Cycle | None, version: int) -> str:
    if cycle is not None and cycle.ending in ("failed", "abandoned") and cycle.version in (None, version):
        return "; ".join(cycle.reasons)
    return "its cycle ended before it was decided"
