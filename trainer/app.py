"""Puts the trainer together: registry locked, servers awaited, the loop run until a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from streamer.http import Health, HttpServer
from streamer.kafka import Producer, ensure_topics
from streamer.metrics import exposition
from streamer.process import StopRequest, wait_for_server
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.namespace import read_namespace, read_spec
from streamer.store.reading import WindowReader
from trainer.config import TrainerSettings
from trainer.cycle.runner import CycleResult, CycleRunner
from trainer.daemon import TrainerDaemon
from trainer.errors import NotEnoughDataError
from trainer.learn.config import ModelSettings
from trainer.learn.report.tensorboard import require_tensorboard
from trainer.learn.report.training_metrics import EpochResult
from trainer.metrics import TrainerMetrics
from trainer.release.publish.publisher import Publisher, release_topics
from trainer.release.registry.versions import Registry

log = structlog.get_logger()

# An epoch over a large data set may take so long before the loop counts as dead.
MAX_SILENCE_S = 1_800.0


def run_trainer(settings: TrainerSettings, model_settings: ModelSettings, stop: StopRequest) -> None:
    """Runs the daemon until stopped.

    Raises:
        ConfigError, RegistryError, TrainingSetupError: A person has to decide.
        StoppedError: Stopped while a server was still awaited.
    """
    with _built(settings, model_settings, stop) as parts:
        log.info("watching", namespace=settings.redis.namespace, registry=str(parts.registry.folder))
        parts.daemon.run(stop)
        log.info("stopped")


def run_cycle_once(
    settings: TrainerSettings, model_settings: ModelSettings, stop: StopRequest
) -> CycleResult | None:
    """Runs one cycle now, whatever the triggers say, and publishes its outcome.

    Returns:
        The cycle; None if the training failed, which is logged.

    Raises:
        NotEnoughDataError: The windows do not suffice; the message says what is missing.
        RegistryError: A trainer runs on this registry already.
    """
    with _built(settings, model_settings, stop) as parts:
        return parts.daemon.run_cycle(parts.open_reader(), "manual")


@dataclass(frozen=True, slots=True)
class _Parts:
    registry: Registry
    daemon: TrainerDaemon
    open_reader: Callable[[], WindowReader]


@contextmanager
def _built(settings: TrainerSettings, model_settings: ModelSettings, stop: StopRequest) -> Iterator[_Parts]:
    if settings.model.tensorboard_dir is not None:
        require_tensorboard()
    health, metrics = Health(MAX_SILENCE_S), TrainerMetrics()
    with ExitStack() as stack:
        registry = stack.enter_context(Registry(settings.registry))
        stack.enter_context(HttpServer(settings.http, health, lambda: exposition(metrics.registry)))
        client = connect(settings.redis)
        stack.callback(client.close)
        keys = Keys(settings.redis.namespace)

        def open_reader() -> WindowReader:
            name = settings.dataset.windows
            data, spec = read_namespace(client, keys), read_spec(client, keys, name)
            if data is None or spec is None:
                what = f"namespace {keys.namespace}" + (f" has no windows {name}" if data else " is empty")
                raise NotEnoughDataError(
                    f"{what}: start the streamer on it, or mend redis.namespace and dataset.windows"
                )
            return WindowReader(client, keys, data, spec)

        if settings.topics.create:
            topics = release_topics(settings.topics)
            wait_for_server(lambda: ensure_topics(settings.kafka, topics), stop, health)
        producer = stack.enter_context(wait_for_server(lambda: Producer(settings.kafka), stop, health))

        def on_epoch(cycle: int, epoch: EpochResult) -> None:
            health.beat()
            metrics.on_epoch(epoch)
            log.info(
                "epoch",
                cycle=cycle,
                epoch=epoch.epoch,
                train_loss=round(epoch.train_loss, 4),
                val_loss=round(epoch.val_loss, 4),
                val_auc_roc=round(epoch.val_auc_roc, 4),
                val_auc_pr=round(epoch.val_auc_pr, 4),
                sequences_per_s=round(epoch.sequences_per_s),
            )

        daemon = TrainerDaemon(
            settings,
            open_reader=open_reader,
            registry=registry,
            publisher=Publisher(producer, settings.topics),
            runner=CycleRunner(settings, model_settings, registry, on_epoch=on_epoch, should_stop=stop),
            metrics=metrics,
            health=health,
        )
        yield _Parts(registry, daemon, open_reader)
