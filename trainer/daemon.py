"""The trainer's loop: wait for a trigger, run a cycle, publish what was decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from streamer.errors import UnavailableError
from streamer.http import Health
from streamer.process import StopRequest
from streamer.store.reading import WindowReader
from trainer.config import TrainerSettings
from trainer.cycle.baseline_gap import warn_if_behind
from trainer.cycle.journal import CurrentCycle, CycleJournal
from trainer.cycle.runner import CycleResult, CycleRunner, CycleStoppedError
from trainer.data.dataset import Dataset, Selection, freeze, keep, let_go, load
from trainer.errors import (
    CheckpointError,
    DatasetChangedError,
    ModelInputError,
    NotEnoughDataError,
    TrainingDivergedError,
)
from trainer.metrics import TrainerMetrics
from trainer.release.publish.publisher import Publisher
from trainer.release.registry.versions import Registry
from trainer.triggers import Trigger, due

log = structlog.get_logger()


class TrainerDaemon:
    """Runs cycles for one model; it holds the registry's lock, so there is one of it.

    Args:
        open_reader: Opens the namespace; raises NotEnoughDataError while no streamer has written to it.
        now: The clock, timezone-aware.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        *,
        open_reader: Callable[[], WindowReader],
        registry: Registry,
        publisher: Publisher,
        runner: CycleRunner,
        metrics: TrainerMetrics,
        health: Health,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._open_reader = open_reader
        self._registry = registry
        self._publisher = publisher
        self._runner = runner
        self._metrics = metrics
        self._health = health
        self._now = now
        self._journal = CycleJournal(registry.folder)
        self._started_at = now()
        self._tried_arrival = -1  # up to here the windows were not enough, and nothing has come since
        self._last_said = ""
        self._away: type[Exception] | None = None  # the kind of the outage that was said

    def run(self, stop: StopRequest) -> None:
        """Runs until stopped.

        Raises:
            RegistryError: The registry cannot be used.
        """
        champion = self._registry.champion_version()
        if champion is not None:
            warn_if_behind(self._registry.manifest(champion), decision="promoted")
        while not stop():
            self._health.beat()
            try:
                self.run_once()
                self._reached()
            except UnavailableError as exc:
                self._miss(exc)
            except NotEnoughDataError as exc:
                self._reached()
                self._say("waiting", str(exc))
            except CycleStoppedError as exc:
                log.info("stopped in training", reason=str(exc))
            self._observe()
            stop.wait(self._settings.triggers.poll_s)

    def run_once(self) -> CycleResult | None:
        """Publishes what is left from before, then runs a cycle if one is in progress or due.

        Raises:
            UnavailableError: Redis or Kafka does not answer; nothing is lost.
            NotEnoughDataError: A cycle is due, but the windows do not suffice yet.
        """
        self.publish()
        reader = self._open_reader()
        trigger = self._due(reader)
        if self._journal.current() is None and trigger is None:
            return None
        return self.run_cycle(reader, trigger or "interval")

    def run_cycle(self, reader: WindowReader, trigger: Trigger) -> CycleResult | None:
        """Runs the cycle in progress, or a new one.

        Returns:
            What came of it; None if it failed, which is logged and counted, and the champion stays.

        Raises:
            UnavailableError: Redis or Kafka does not answer; the cycle goes on later.
            NotEnoughDataError: The windows do not suffice yet.
        """
        self._metrics.training.set(1)
        try:
            cycle, result = self._run_cycle(reader, trigger)
        except (TrainingDivergedError, ModelInputError) as exc:
            self._fail(exc)
            return None
        except NotEnoughDataError as exc:
            # Of a cycle in progress: a gate that was made stricter meanwhile. It would be so for ever.
            self._give_up(str(exc))
            raise
        except CheckpointError as exc:
            # Such as a configuration that was changed in mid-cycle: its windows are news for the next one.
            self._say("starting the cycle anew", str(exc))
            self._journal.abandon()
            return None
        finally:
            self._metrics.training.set(0)
        self._journal.finish(cycle, self._now())
        self._metrics.on_cycle(result)
        self._last_said = ""
        self.publish()
        return result

    def publish(self) -> None:
        """Sends what was decided and is not yet acknowledged.

        Raises:
            BrokerUnavailableError: It stays in the outbox.
        """
        if self._registry.outbox():
            for event in self._publisher.flush_outbox(self._registry):
                log.info("published", what=event.kind, version=event.version)

    def _due(self, reader: WindowReader) -> Trigger | None:
        last = self._journal.last()
        news = reader.num_labelled_since(last.arrival)
        self._metrics.new_windows.set(news)
        if reader.last_arrival() == self._tried_arrival:
            return None
        since = self._now() - (last.finished_at or self._started_at)
        return due(self._settings.triggers, num_new_windows=news, since_last_s=since.total_seconds())

    def _run_cycle(self, reader: WindowReader, trigger: Trigger) -> tuple[CurrentCycle, CycleResult]:
        current = self._journal.current()
        if current is not None and (result := self._runner.result(current)):
            return current, result  # killed between its decision and its end
        cycle, dataset = self._begin(reader, trigger)
        return cycle, self._runner.run(cycle, dataset, self._journal.run_dir)

    def _begin(self, reader: WindowReader, trigger: Trigger) -> tuple[CurrentCycle, Dataset]:
        current = self._journal.current()
        if current is not None:
            try:
                dataset = load(reader, current.manifest)
            except DatasetChangedError as exc:
                log.warning("frozen data set is gone", cycle=current.number, error=str(exc))
                self._give_up(str(exc))
                trigger = current.trigger
            else:
                log.info("going on", cycle=current.number)
                return current, dataset
        config = self._settings.dataset
        owner = self._registry.model_name
        dataset = freeze(reader, config.max_windows, self._check, owner=owner)
        keep(reader, dataset.manifest, owner=owner)
        cycle = self._journal.begin(trigger, dataset.manifest, config, self._now())
        champion = self._registry.champion()
        needed = {dataset.manifest.id, *([champion.manifest.dataset.id] if champion else [])}
        if old := let_go(reader, needed, config.num_kept, owner=owner):
            log.info("data sets let go", ids=old)
        return cycle, dataset

    def _check(self, selection: Selection) -> None:
        try:
            self._runner.check(selection, self._settings.dataset)
        except NotEnoughDataError:
            self._tried_arrival = selection.arrival
            raise

    def _give_up(self, reason: str) -> None:
        """Ends the cycle in progress without a model; its windows are news for the next one."""
        current = self._journal.current()
        if current is not None:
            self._runner.give_up(current, reason)
            self._journal.abandon()

    def _fail(self, exc: Exception) -> None:
        log.error("cycle failed", error=str(exc), kind=type(exc).__name__)
        self._metrics.failures.labels(type(exc).__name__).inc()
        current = self._journal.current()
        if current is not None:
            self._runner.give_up(current, str(exc))
            # The same data would fail again: the next cycle waits for news.
            self._journal.finish(current, self._now())

    def _miss(self, exc: UnavailableError) -> None:
        """A server did not answer: said once an outage, however the client words it from call to call."""
        if self._away is not type(exc):
            self._away = type(exc)
            log.warning("waiting", error=str(exc))
        self._health.not_ready(str(exc))

    def _reached(self) -> None:
        """All servers answered."""
        if self._away is not None:
            log.info("recovered")
            self._away = None
        self._health.ready()

    def _say(self, event: str, message: str) -> None:
        """Logs a state once, not at every turn."""
        if message != self._last_said:
            log.warning(event, error=message)
            self._last_said = message

    def _observe(self) -> None:
        self._metrics.unpublished.set(len(self._registry.outbox()))
        self._metrics.ready.set(self._health.why_not_ready() is None)
        promoted = [event for event in self._registry.events() if event.kind == "promoted"]
        if promoted:
            event, manifest = promoted[-1], self._registry.manifest(promoted[-1].version)
            self._metrics.version.set(event.version)
            self._metrics.promoted_at.set(event.at.timestamp())
            self._metrics.auc_roc.set(manifest.scores.get("auc_roc", math.nan))
            self._metrics.auc_pr.set(manifest.scores.get("auc_pr", math.nan))
            gap = manifest.baseline_gap
            self._metrics.baseline_gap.set(math.nan if gap is None else gap)
