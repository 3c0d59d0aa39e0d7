"""Runs one cycle: each phase in its turn, each written down before the next begins.

    1. count the attempt, in the state of the cycles
    2. take the cycle to its next phase: frozen, trained, decided
    3. write down where it is
    4. once it is over, let the registry follow

What fails in the same place again and again ends the cycle; its windows stay news.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from streamer.errors import ConfigError, UnavailableError
from streamer.store.lease import LeaseTakenError
from trainer.cycle.config import CycleConfig
from trainer.cycle.journal import CycleJournal
from trainer.cycle.phases import Phases, WriterLease
from trainer.cycle.result import CycleResult
from trainer.cycle.settlement import Settlement
from trainer.cycle.state import Cycle, State
from trainer.data.catalogue import held_as
from trainer.data.config import DatasetConfig
from trainer.data.source import WindowSource
from trainer.errors import (
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
from trainer.learn.config import ModelSettings
from trainer.learn.report.training_metrics import EpochResult
from trainer.release.client.inputs import ModelInputs
from trainer.release.registry.registry import Registry
from trainer.triggers import Trigger

log = structlog.get_logger()

# Whoever meets these ends or waits; the attempt does not count.
FROM_OUTSIDE = (UnavailableError, LeaseTakenError, CycleStoppedError)
# A person decides: the process ends with the message, as often as it is started before that.
FOR_A_PERSON = (ConfigError, TrainingSetupError, RegistryBehindError)
# The same weights, the same windows and the same seed give the same again.
FOR_GOOD = (TrainingDivergedError, ModelInputError)


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
        self._dataset_config, self._cycle_config = dataset, cycle
        self._registry, self._journal = registry, journal
        self._observer, self._now = observer, now
        self._accept_new_inputs = accept_new_inputs
        self._settlement = Settlement(registry, journal, now)
        self._phases = Phases(
            dataset=dataset,
            gate=gate,
            model=model,
            registry=registry,
            journal=journal,
            lease=lease,
            on_epoch=observer.on_epoch,
            should_stop=should_stop,
            tensorboard_dir=tensorboard_dir,
            now=now,
        )
        self.configuration = _digest(dataset, gate, model)

    def run(self, reader: WindowSource, trigger: Trigger) -> CycleResult | None:
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
        self._drop_outdated(reader)
        self._journal.clear()
        while True:
            if self._is_before_the_freeze():
                self._require_inputs(reader)
            if self._state.in_progress is None:
                self._begin(reader, trigger)
            while (cycle := self._state.in_progress) is not None:
                self._attempt(reader, cycle)
            ended = self._state.cycle
            if ended is None or ended.ending != "abandoned":
                return None if ended is None else ended.result
            trigger = ended.trigger  # its rows are gone, its windows are news

    def settle(self) -> None:
        """Completes what the state says and a kill, a full disk or an outage left undone in the registry."""
        self._settlement.settle()

    def news_after(self, reader: WindowSource) -> int:
        """Label decisions after this number are news."""
        dataset = self._state.dataset
        held = dataset is None or held_as(self._registry.model_name, dataset) in reader.holds.holders()
        return self._state.news_after(self.configuration, windows_of(reader), is_remembered=held)

    def abandon(self, reason: str) -> None:
        """Gives the cycle in progress up; its windows stay news."""
        if self._state.in_progress is not None:
            self._end(self._state.abandoned(reason, self._now()))

    @property
    def _state(self) -> State:
        return self._journal.state

    def _begin(self, reader: WindowSource, trigger: Trigger) -> None:
        cycle = Cycle(
            number=self._state.last_number + 1,
            trigger=trigger,
            began_at=self._now(),
            config=self._dataset_config,
            configuration=self.configuration,
            windows=windows_of(reader),
            news_after=self.news_after(reader),
        )
        self._journal.write(self._state.begun(cycle))
        self._phases.forget()
        log.info("cycle begins", cycle=cycle.number, trigger=trigger)

    def _drop_outdated(self, reader: WindowSource) -> None:
        """Gives up a cycle that still waits for windows, where the configuration was changed: it may be why."""
        cycle = self._state.in_progress
        today = (self.configuration, windows_of(reader))
        if cycle and cycle.phase == "waiting" and (cycle.configuration, cycle.windows) != today:
            self.abandon("the configuration was changed before its windows were chosen")

    def _is_before_the_freeze(self) -> bool:
        cycle = self._state.in_progress
        return cycle is None or cycle.phase == "waiting"

    def _require_inputs(self, reader: WindowSource) -> None:
        champion = self._registry.champion_version()
        if champion is not None and not self._accept_new_inputs:
            require_same_inputs(self._registry.manifest(champion), ModelInputs.of(reader.data, reader.spec))

    def _attempt(self, reader: WindowSource, cycle: Cycle) -> None:
        """One attempt of the phase that comes next; it is counted on disk before it begins."""
        counted = cycle.attempt(self._journal.progress(cycle)).due(self._now())
        if counted.attempts > self._cycle_config.max_attempts:
            self._fail(cycle.why_given_up())
            return
        self._journal.write(self._state.moved(counted))
        try:
            moved = self._phases.step(reader, counted)
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
            self._journal.write(self._state.moved(counted.begun_anew(f"CheckpointError: {exc}")))
        except Exception as exc:  # noqa: BLE001 - counted, told, and raised again until its attempts are used up
            self._fault(counted, exc)
        else:
            self._reach(counted, moved)

    def _reach(self, counted: Cycle, moved: Cycle) -> None:
        """The cycle is in its next phase, or decided: under today's configuration, whatever it was begun with."""
        state = self._state.moved(moved)
        if moved.is_over:
            state = self._state.decided(moved.with_(configuration=self.configuration))
        try:
            self._journal.write(state)
        except UnavailableError:
            self._journal.note(self._state.moved(counted.uncounted()))
            raise
        if moved.is_over:
            self._ended()

    def _fault(self, counted: Cycle, exc: Exception) -> None:
        """An attempt failed: the cycle with it where it would fail again, or has done so too often."""
        self._observer.on_fault(type(exc).__name__)
        if isinstance(exc, FOR_A_PERSON):
            self._journal.note(self._state.moved(counted.uncounted()))
            raise exc
        faulted = counted.faulted(f"{type(exc).__name__}: {exc}")
        self._journal.write(self._state.moved(faulted))
        if isinstance(exc, FOR_GOOD):
            self._fail(str(exc))
        elif faulted.attempts >= self._cycle_config.max_attempts:
            self._fail(faulted.why_given_up())
        else:
            raise AttemptFailedError(
                f"cycle {counted.number}, attempt {counted.attempts} of {self._cycle_config.max_attempts} "
                f"in the phase after '{counted.phase}': {exc}"
            ) from exc

    def _fail(self, reason: str) -> None:
        state = self._state.failed(reason, self._now(), self._cycle_config)
        log.error("cycle failed", cycle=state.last_number, reason=reason, retry_at=str(state.retry_at))
        self._end(state)

    def _end(self, state: State) -> None:
        self._journal.write(state)
        self._ended()

    def _ended(self) -> None:
        """What is written down is told, and the registry follows."""
        self._settlement.reopen()
        self._phases.forget()
        if self._state.cycle is not None:
            self._observer.on_ended(self._state.cycle)
        self.settle()


def windows_of(reader: WindowSource) -> str:
    """Which windows a reader reads: namespace and name."""
    return f"{reader.namespace}/{reader.spec.name}"


def _digest(dataset: DatasetConfig, gate: GateConfig, model: ModelSettings) -> str:
    """Of all that a decision depends on beside the data."""
    text = json.dumps([each.model_dump(mode="json") for each in (dataset, gate, model)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
