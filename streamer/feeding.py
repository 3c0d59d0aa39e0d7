"""Sends a plant's events to Kafka, with progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.config import StreamerSettings
from streamer.kafka import Producer
from streamer.plant.events import PlantEvent
from streamer.plant.feeder import FeedProgress, feed, to_topics
from streamer.process import StopRequest

log = structlog.get_logger()

PLAIN_INTERVAL_S = 5.0


def feed_kafka(
    settings: StreamerSettings,
    events: Iterable[PlantEvent],
    *,
    speed: float,
    total_readings: int | None,
    stop: StopRequest,
) -> FeedProgress:
    """Sends events in their order, paced by their own time, and waits until all are acknowledged.

    Args:
        speed: Times real time; 0 for as fast as the broker takes them.
        total_readings: For the progress bar, None if unknown.

    Raises:
        BrokerUnavailableError: The broker went away; what was not acknowledged may be missing.
    """
    topics = settings.topics
    with Producer(settings.kafka) as producer, _progress(total_readings) as show:
        send = to_topics(producer, topics.readings, topics.labels)
        sent = feed(events, send, speed=speed, on_progress=show, stop=stop)
        producer.flush()
    return sent


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[FeedProgress], None]]:
    if not sys.stderr.isatty():
        yield _plain_lines(total)
        return
    columns = (TextColumn("readings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("readings", total=total)
        yield lambda sent: bar.update(task, completed=sent.readings)


def _plain_lines(total: int | None) -> Callable[[FeedProgress], None]:
    next_at = time.monotonic() + PLAIN_INTERVAL_S

    def show(sent: FeedProgress) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + PLAIN_INTERVAL_S
            log.info("feeding", readings=sent.readings, total=total)

    return show
