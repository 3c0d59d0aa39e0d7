"""A small trainer for tests: a model that learns `plants.casts` in seconds, its parts put together anew for each
life of the process, and real processes that need not import torch each time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from plants import Plant

from streamer.config import KafkaConfig, RedisConfig, TopicsConfig
from streamer.http import Health
from streamer.kafka import Producer
from streamer.process import StopRequest
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseHolder
from streamer.store.reading import WindowReader
from streamer.store.requests import CycleRequests
from trainer.config import TrainerSettings
from trainer.cycle.journal import CycleJournal
from trainer.cycle.runner import CycleRunner
from trainer.cycle.state import Cycle
from trainer.daemon import TrainerDaemon
from trainer.gate.config import GateConfig
from trainer.learn.config import (
    ArchitectureConfig,
    EarlyStoppingConfig,
    ModelSettings,
    OptimizerConfig,
    TrainingConfig,
)
from trainer.learn.report.training_metrics import EpochResult
from trainer.metrics import TrainerMetrics
from trainer.release import Publisher, Registry, RegistryConfig
from trainer.release.publish.head import read_head
from trainer.release.publish.outbox import Outbox
from trainer.triggers import TriggersConfig

MODEL = ModelSettings(
    architecture=ArchitectureConfig(num_layers=1, hidden_size=8, head_hidden_dims=(8,), dropout=0.0),
    training=TrainingConfig(max_epochs=8, batch_size=16),
    optimizer=OptimizerConfig(learning_rate=0.02),
    early_stopping=EarlyStoppingConfig(monitor="val_loss", patience=8),
)


def settings(
    redis: RedisConfig, folder: Path, kafka: KafkaConfig | None = None, unique: str = "x"
) -> TrainerSettings:
    """Gate and triggers that 60 casts of two windows satisfy."""
    return TrainerSettings(
        kafka=kafka or KafkaConfig(),
        topics=TopicsConfig(models=f"models-{unique}", model_events=f"events-{unique}"),
        redis=redis,
        triggers=TriggersConfig(new_labelled_windows=100, interval_s=3_600, poll_s=0.01),
        gate=GateConfig(min_defective_casts=4, min_good_casts=4),
        registry=RegistryConfig(path=folder),
    )


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self._at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self._at

    def move(self, seconds: float) -> None:
        """Lets time go by."""
        self._at += timedelta(seconds=seconds)


class Turns(StopRequest):
    """Ends a loop after so many turns; what is planned for a turn happens before it."""

    def __init__(self, number: int, plan: dict[int, Callable[[], object]] | None = None) -> None:
        super().__init__()
        self._left, self._plan, self._turn = number, plan or {}, 0

    def __call__(self) -> bool:
        self._turn += 1
        self._plan.get(self._turn, lambda: None)()
        return self._turn > self._left

    def wait(self, _: float) -> bool:
        return False


@dataclass
class Life:
    """One life of the trainer's process, without the process."""

    registry: Registry
    journal: CycleJournal
    runner: CycleRunner
    daemon: TrainerDaemon
    metrics: TrainerMetrics
    health: Health
    lease: Lease
    epochs: list[tuple[int, EpochResult]] = field(default_factory=list)


class Watching:
    """What a cycle tells, kept for the test and handed to the metrics."""

    def __init__(self, metrics: TrainerMetrics, on_epoch: Callable[[EpochResult], None]) -> None:
        self.epochs: list[tuple[int, EpochResult]] = []
        self._metrics, self._on_epoch = metrics, on_epoch

    def on_epoch(self, cycle: int, epoch: EpochResult) -> None:
        self.epochs.append((cycle, epoch))
        self._on_epoch(epoch)

    def on_fault(self, kind: str) -> None:
        self._metrics.failures.labels(kind).inc()

    def on_ended(self, cycle: Cycle) -> None:
        self._metrics.on_ended(cycle)


@contextmanager
def life(
    plant: Plant,
    config: TrainerSettings,
    model: ModelSettings = MODEL,
    *,
    clock: Clock | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[EpochResult], None] = lambda _: None,
    open_reader: Callable[[], WindowReader] | None = None,
    adopts: bool = False,
) -> Iterator[Life]:
    """Starts a trainer on a registry and ends it; without topics of its own it never publishes."""
    clock, metrics, health = clock or Clock(), TrainerMetrics(), Health(60)
    watching = Watching(metrics, on_epoch)
    with ExitStack() as stack:
        registry = stack.enter_context(Registry(config.registry, now=clock))
        client = connect(config.redis)
        stack.callback(client.close)
        keys, name = Keys(config.redis.namespace), registry.model_name
        place = LeaseHolder("here", os.getpid(), str(registry.folder), registry.identity().id)
        lease = Lease(client, keys, name, place, ttl_s=30)
        stack.callback(lease.close)
        lease.acquire()
        journal, made = CycleJournal(registry.folder), list[Producer]()

        def producer() -> Producer:
            if not made:
                made.append(stack.enter_context(Producer(config.kafka)))
            return made[0]

        runner = CycleRunner(
            dataset=config.dataset,
            gate=config.gate,
            cycle=config.cycle,
            model=model,
            registry=registry,
            journal=journal,
            lease=lease,
            observer=watching,
            should_stop=should_stop,
            tensorboard_dir=config.model.tensorboard_dir,
            accept_new_inputs=config.registry.accept_new_inputs,
            now=clock,
        )
        outbox = Outbox(
            registry,
            Publisher(producer, config.topics),
            read_head=lambda: read_head(config.kafka, config.topics, name),
            ensure=lease.ensure,
            adopts=adopts,
        )
        daemon = TrainerDaemon(
            config,
            open_reader=open_reader or plant.reader,
            registry=registry,
            journal=journal,
            runner=runner,
            outbox=outbox,
            lease=lease,
            requests=CycleRequests(client, keys, name),
            metrics=metrics,
            health=health,
            now=clock,
        )
        yield Life(registry, journal, runner, daemon, metrics, health, lease, watching.epochs)


# Every process of the trainer is forked from a fresh one that has imported torch and done nothing else.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["trainer.app", "trainers"])


class Process:
    """A trainer as a process of its own: signals, exit code, log in a file."""

    def __init__(self, folder: Path, command: str, *, dies_after_register: bool = False) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        self._log.touch()
        arguments = [command, "-c", str(folder / "trainer.yaml")]
        self._child = _FORKS.Process(
            target=_run, args=(str(self._log), arguments, dies_after_register), daemon=True
        )
        self._child.start()

    @property
    def pid(self) -> int:
        assert self._child.pid is not None
        return self._child.pid

    def text(self) -> str:
        """All that it has said."""
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Its log; a line that it is just writing is left out."""
        whole = self.text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if line.startswith("{")]

    def count(self, event: str) -> int:
        """How often it has said this."""
        return sum(line["event"] == event for line in self.lines())

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Waits for the first line of this event with these fields."""
        deadline = time.monotonic() + PROCESS_PATIENCE_S
        while time.monotonic() < deadline:
            ended = self._child.exitcode
            for line in self.lines():
                if line["event"] == event and fields.items() <= line.items():
                    return line
            assert ended is None, f"ended with {ended}: {self.text()}"
            time.sleep(0.01)
        raise AssertionError(f"no {event} {fields} in {self.text()}")

    def end(self, number: signal.Signals | None = None) -> int | None:
        """Sends a signal, if any, and waits for the end; returns the exit code."""
        if number is not None:
            os.kill(self.pid, number)
        self._child.join(PROCESS_PATIENCE_S)
        return self._child.exitcode

    def close(self) -> None:
        """Ends it, if it still runs."""
        self._child.kill()
        self._child.join()
        self._child.close()


# Enough for a loaded machine; a test that passes does not wait for it.
PROCESS_PATIENCE_S = 60.0


def _run(log: str, arguments: list[str], dies_after_register: bool) -> None:
    from trainer.cli import main  # noqa: PLC0415 - what a process of its own would import

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["trainer", *arguments]
    if dies_after_register:
        _die_after_register()
    main()


def _die_after_register() -> None:
    register = Registry.register

    def dying(*args: Any, **kwargs: Any) -> int:
        register(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    Registry.register = dying  # type: ignore[method-assign]  # what a kill at the worst moment does
