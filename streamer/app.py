"""Puts the streamer together: servers awaited, topics and namespace claimed, the loop run until a stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import structlog

from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetters
from streamer.errors import BrokerUnavailableError
from streamer.housekeeping import Housekeeping
from streamer.http import Health, HttpServer
from streamer.kafka import GroupConsumer, Producer, TopicSpec, ensure_topics, missing_topics
from streamer.memory import keep_freed_memory
from streamer.metrics import StreamerMetrics, exposition
from streamer.process import StopRequest, wait_for_server
from streamer.service import StreamerService
from streamer.store.casts import CastStore
from streamer.store.connection import Client, connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import check_server, claim_namespace, claim_spec, refuse_backfill
from streamer.store.pending import PendingLabels
from streamer.store.positions import PositionStore
from streamer.store.retention import Retention
from streamer.store.stops import StopStore

log = structlog.get_logger()

# What one turn allocates and frees. Smaller: turns wait for the system, an eighth of their CPU time. Larger: memory
# grows over millions of readings (64 MiB: by 6 % in the soak).
KEPT_BYTES = 16 * 1024**2

# A batch against a slow Redis may take so long before the loop counts as dead.
MAX_SILENCE_S = 120.0


def input_topics(settings: StreamerSettings) -> dict[str, TopicSpec]:
    """The topics that the streamer reads and writes, as it creates them."""
    topics = settings.topics
    spec = TopicSpec(topics.num_partitions, topics.replication_factor)
    return dict.fromkeys((*settings.reading_topics, topics.labels, topics.dead_letters), spec)


def run_streamer(settings: StreamerSettings, stop: StopRequest, *, reset: bool = False) -> None:
    """Runs one member until stopped.

    Raises:
        ConfigError, RefusedError: A person has to decide.
        StoppedError: Stopped while a server was still awaited.
    """
    keep_freed_memory(KEPT_BYTES)
    health, metrics = Health(MAX_SILENCE_S), StreamerMetrics.of(settings)
    with ExitStack() as stack:
        stack.enter_context(HttpServer(settings.http, health, lambda: exposition(metrics.registry)))
        client = connect(settings.redis)
        stack.callback(client.close)
        keys = Keys(settings.redis.namespace)

        def claim() -> None:
            check_server(client)
            refuse_backfill(
                client,
                keys,
                "the other casts are missing from it; give the live stream a redis.namespace of its own",
            )
            claim_namespace(client, keys, settings.data)
            claim_spec(client, keys, settings.windows)

        wait_for_server(claim, stop, health)
        wait_for_server(lambda: have_topics(settings), stop, health)
        producer = stack.enter_context(wait_for_server(lambda: Producer(settings.kafka), stop, health))
        topics = (*settings.reading_topics, settings.topics.labels)
        consumer = wait_for_server(
            lambda: GroupConsumer(settings.kafka, settings.consumer, topics), stop, health
        )
        stack.callback(consumer.close)
        service = StreamerService(
            settings,
            consumer=consumer,
            casts=CastStore(client, keys, settings.data),
            index=WindowIndex(client, keys, settings.data, settings.windows),
            positions=PositionStore(client, keys),
            dead_letters=DeadLetters(producer, settings.topics.dead_letters, settings.redis.namespace),
            stops=StopStore(client, keys),
            metrics=metrics,
            health=health,
            housekeeping=make_housekeeping(settings, client, metrics),
            reset=reset,
        )
        log.info(
            "streaming",
            group=settings.consumer.group_id,
            namespace=settings.redis.namespace,
            read_path=consumer.path,
        )
        service.run(stop)
        log.info("stopped")


def make_housekeeping(
    settings: StreamerSettings,
    client: Client,
    metrics: StreamerMetrics,
    clock: Callable[[], float] = time.monotonic,
) -> Housekeeping:
    """What keeps the namespace of some settings within its limits."""
    keys, config = Keys(settings.redis.namespace), settings.retention
    retention = Retention(client, keys, settings.data, config)
    pending = PendingLabels(client, keys)
    return Housekeeping(retention, pending, metrics, interval_s=config.interval_s, clock=clock)


def have_topics(settings: StreamerSettings) -> None:
    """Creates the input topics, or checks that they exist where creating is switched off.

    Raises:
        BrokerUnavailableError: The broker does not answer, or a topic is missing.
    """
    wanted = input_topics(settings)
    if settings.topics.create:
        ensure_topics(settings.kafka, wanted)
    elif missing := missing_topics(settings.kafka, wanted):
        raise BrokerUnavailableError(
            f"Kafka at {settings.kafka.bootstrap_servers} has no topic {', '.join(missing)}; create it, "
            "or set topics.create"
        )
