"""Puts the trainer together: registry locked, lease taken, servers awaited, the loop run until a stop."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from streamer.errors import CastingError, UnavailableError
from streamer.http import Health, HttpServer
from streamer.kafka import Producer, ensure_topics
from streamer.metrics import exposition
from streamer.process import StoppedError, StopRequest, wait_for_server
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseHolder, LeaseTakenError
from streamer.store.namespace import read_namespace, read_spec
from streamer.store.reading import WindowReader
from streamer.store.requests import CycleRequests
from trainer.config import TrainerSettings
from trainer.cycle.journal import CycleJournal
from trainer.cycle.result import CycleResult
from trainer.cycle.runner import CycleRunner
from trainer.cycle.state import Cycle
from trainer.daemon import TrainerDaemon
from trainer.errors import NotEnoughDataError, RegistryLockedError
from trainer.learn.config import ModelSettings
from trainer.learn.report.tensorboard import require_tensorboard
from trainer.learn.report.training_metrics import EpochResult
from trainer.metrics import TrainerMetrics
from trainer.release.publish.head import Head, read_head
from trainer.release.publish.outbox import Outbox
from trainer.release.publish.publisher import Publisher, release_topics
from trainer.release.registry.registry import Registry

log = structlog.get_logger()

# An epoch over a large data set may take so long before the loop counts as dead.
MAX_SILENCE_S = 1_800.0
# Smaller: Redis is asked more often. Larger: the answer of the running trainer is seen later.
ASK_S = 0.5
# Smaller: the lock is tried more often. Larger: a `once` goes on later when the one before it has ended.
ASK_AGAIN_S = 5.0


def run_trainer(
    settings: TrainerSettings, model_settings: ModelSettings, stop: StopRequest, *, adopts: bool = False
) -> None:
    """Runs the daemon until stopped.

    Args:
        adopts: Go on behind what the topics know, with the model in use as the champion, where they are ahead of
            the registry.

    Raises:
        ConfigError, RegistryError, LeaseTakenError, TrainingSetupError: A person has to decide.
        StoppedError: Stopped while a server was still awaited.
    """
    with _built(settings, model_settings, stop, adopts=adopts) as parts:
        log.info("watching", namespace=settings.redis.namespace, registry=str(parts.registry.folder))
        parts.daemon.run(stop)
        log.info("stopped")


def run_cycle_once(
    settings: TrainerSettings, model_settings: ModelSettings, stop: StopRequest
) -> CycleResult | None:
    """Runs one cycle now, whatever the triggers say; where a trainer runs for this model, that one is asked to.

    Returns:
        The cycle; None if it failed, which is logged.

    Raises:
        NotEnoughDataError: The windows do not suffice; the message says what is missing.
        AskedCycleError: The trainer that runs could not do it; the message says why.
        StoppedError: Stopped while a server, or the other trainer, was still awaited.
    """
    request_id, said = uuid.uuid4().hex, False
    while True:
        try:
            with _built(settings, model_settings, stop, serves=False) as parts:
                if said:
                    _withdraw(settings, request_id)
                parts.daemon.compare()
                return parts.daemon.run_cycle(parts.open_reader(), "manual")
        except (RegistryLockedError, LeaseTakenError) as exc:
            if not said:
                log.info("a trainer runs already: it is asked for the cycle", found=str(exc))
                said = True
        # After a while it is looked again: what ran may have been another `once`, or have ended.
        if told := _ask(settings, request_id, stop):
            if "result" not in told:
                raise AskedCycleError(f"the running trainer answered: {told.get('error')}")
            return CycleResult.model_validate(told["result"])


class AskedCycleError(CastingError):
    """The running trainer was asked for a cycle, and it came to nothing."""


@dataclass(frozen=True, slots=True)
class _Parts:
    registry: Registry
    daemon: TrainerDaemon
    open_reader: Callable[[], WindowReader]


@contextmanager
def _built(
    settings: TrainerSettings,
    model_settings: ModelSettings,
    stop: StopRequest,
    *,
    adopts: bool = False,
    serves: bool = True,
) -> Iterator[_Parts]:
    if settings.model.tensorboard_dir is not None:
        require_tensorboard()
    health, metrics = Health(MAX_SILENCE_S), TrainerMetrics()
    registry = Registry(settings.registry)
    with ExitStack() as stack:
        # The registry first: whoever holds its lock may take the lease over from a process that died here.
        wait_for_server(registry.open, stop, health)
        stack.callback(registry.close)
        if serves:
            stack.enter_context(HttpServer(settings.http, health, lambda: exposition(metrics.registry)))
        client = connect(settings.redis)
        stack.callback(client.close)
        keys = Keys(settings.redis.namespace)
        lease = _lease(settings, registry, client, keys)
        stack.callback(lease.close)
        _take(lease, registry, stop, health, adopts=adopts)

        def open_reader() -> WindowReader:
            name = settings.dataset.windows
            data, spec = read_namespace(client, keys), read_spec(client, keys, name)
            if data is None or spec is None:
                what = f"namespace {keys.namespace}" + (f" has no windows {name}" if data else " is empty")
                raise NotEnoughDataError(
                    f"{what}: start the streamer on it, or mend redis.namespace and dataset.windows"
                )
            return WindowReader(client, keys, data, spec)

        journal = CycleJournal(registry.folder)
        outbox = Outbox(
            registry,
            Publisher(_producer_when_needed(settings, stack), settings.topics),
            read_head=lambda: _read_head(settings),
            ensure=lease.ensure,
            adopts=adopts,
        )
        runner = CycleRunner(
            dataset=settings.dataset,
            gate=settings.gate,
            cycle=settings.cycle,
            model=model_settings,
            registry=registry,
            journal=journal,
            lease=lease,
            observer=_Told(metrics, health),
            should_stop=lambda: stop() or lease.is_lost,
            tensorboard_dir=settings.model.tensorboard_dir,
            accept_new_inputs=settings.registry.accept_new_inputs,
        )
        daemon = TrainerDaemon(
            settings,
            open_reader=open_reader,
            registry=registry,
            journal=journal,
            runner=runner,
            outbox=outbox,
            lease=lease,
            requests=CycleRequests(client, keys, registry.model_name),
            metrics=metrics,
            health=health,
        )
        yield _Parts(registry, daemon, open_reader)


def _lease(settings: TrainerSettings, registry: Registry, client: Client, keys: Keys) -> Lease:
    holder = LeaseHolder(
        host=socket.gethostname(),
        pid=os.getpid(),
        folder=str(registry.folder.resolve()),
        registry_id=registry.identity().id,
    )
    return Lease(client, keys, registry.model_name, holder, ttl_s=settings.registry.lease_s)


def _take(lease: Lease, registry: Registry, stop: StopRequest, health: Health, *, adopts: bool) -> None:
    """Takes the lease, if need be once the trainer that had it on another host is seen to be dead."""
    if wait_for_server(lambda: lease.acquire_or_wait(stop.wait), stop, health) is None:
        raise StoppedError("stopped while waiting for the lease")
    lease.start_renewing()
    if adopts:
        registry.raise_version(lease.highest_version())


def _read_head(settings: TrainerSettings) -> Head:
    if settings.topics.create:
        ensure_topics(settings.kafka, release_topics(settings.topics))
    return read_head(settings.kafka, settings.topics, settings.registry.model_name)


def _producer_when_needed(settings: TrainerSettings, stack: ExitStack) -> Callable[[], Producer]:
    """Makes the client when the first event goes: training needs none."""
    made: list[Producer] = []

    def producer() -> Producer:
        if not made:
            made.append(stack.enter_context(Producer(settings.kafka)))
        return made[0]

    return producer


class _Told:
    """What a cycle tells of itself, on its way to the log, the metrics and the probes."""

    def __init__(self, metrics: TrainerMetrics, health: Health) -> None:
        self._metrics, self._health = metrics, health

    def on_epoch(self, cycle: int, epoch: EpochResult) -> None:
        self._health.beat()
        self._metrics.on_epoch(epoch)
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

    def on_fault(self, kind: str) -> None:
        self._metrics.failures.labels(kind).inc()

    def on_ended(self, cycle: Cycle) -> None:
        self._metrics.on_ended(cycle)


def _ask(settings: TrainerSettings, request_id: str, stop: StopRequest) -> dict[str, Any] | None:
    """Asks the running trainer for a cycle; what it came to, None if there is no answer yet.

    Raises:
        StoppedError: The request is withdrawn.
    """
    with closing(connect(settings.redis)) as client:
        requests = CycleRequests(client, Keys(settings.redis.namespace), settings.registry.model_name)
        until = time.monotonic() + ASK_AGAIN_S
        while time.monotonic() < until:
            try:
                if (answer := requests.take_answer(request_id)) is not None:
                    requests.withdraw(request_id)
                    return dict(json.loads(answer))
                requests.ask(request_id)
                if stop.wait(ASK_S):
                    requests.withdraw(request_id)
            except UnavailableError as exc:
                log.warning("waiting", server="redis", error=str(exc))
            if stop():
                raise StoppedError("stopped while waiting for the running trainer")
    return None


def _withdraw(settings: TrainerSettings, request_id: str) -> None:
    """Takes the request back: what was asked for is done here."""
    with closing(connect(settings.redis)) as client:
        keys = Keys(settings.redis.namespace)
        CycleRequests(client, keys, settings.registry.model_name).withdraw(request_id)
