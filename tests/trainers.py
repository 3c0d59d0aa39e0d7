"""A small trainer for tests: a model that learns `plants.casts` in seconds, and its parts put together anew for
each life of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from plants import Plant

from streamer.config import KafkaConfig, RedisConfig, TopicsConfig
from streamer.http import Health
from streamer.kafka import Producer
from streamer.process import StopRequest
from streamer.store.reading import WindowReader
from trainer.config import TrainerSettings, TriggersConfig
from trainer.cycle import CycleRunner
from trainer.daemon import TrainerDaemon
from trainer.journal import CycleJournal
from trainer.learn.config import (
    ArchitectureConfig,
    EarlyStoppingConfig,
    ModelSettings,
    OptimizerConfig,
    TrainingConfig,
)
from trainer.learn.training_metrics import EpochResult
from trainer.metrics import TrainerMetrics
from trainer.release import GateConfig, Publisher, Registry, RegistryConfig

MODEL = ModelSettings(
    architecture=ArchitectureConfig(num_layers=1, hidden_size=8, head_hidden_dims=(8,), dropout=0.0),
    training=TrainingConfig(max_epochs=8, batch_size=16),
    optimizer=OptimizerConfig(learning_rate=0.02),
    early_stopping=EarlyStoppingConfig(patience=8),
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
    epochs: list[tuple[int, EpochResult]] = field(default_factory=list)


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
) -> Iterator[Life]:
    """Starts a trainer on a registry and ends it; without topics of its own it never publishes."""
    clock, metrics, health = clock or Clock(), TrainerMetrics(), Health(60)
    epochs: list[tuple[int, EpochResult]] = []

    def note(cycle: int, epoch: EpochResult) -> None:
        epochs.append((cycle, epoch))
        on_epoch(epoch)

    with Registry(config.registry, now=clock) as registry, Producer(config.kafka) as producer:
        runner = CycleRunner(config, model, registry, on_epoch=note, should_stop=should_stop, now=clock)
        daemon = TrainerDaemon(
            config,
            open_reader=open_reader or plant.reader,
            registry=registry,
            publisher=Publisher(producer, config.topics),
            runner=runner,
            metrics=metrics,
            health=health,
            now=clock,
        )
        yield Life(registry, CycleJournal(registry.folder), runner, daemon, metrics, health, epochs)
