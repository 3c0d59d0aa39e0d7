"""Sends a plant's events to Kafka, with progress on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.config import StreamerSettings
from streamer.kafka import Producer
from streamer.plant.events import PlantEvent
from streamer.plant.feeder import feed
from streamer.process import StopRequest

log = structlog.get_logger()

# Smaller: more waiting for acknowledgements. Larger: more records in memory.
_Show = Callable[[int], None]

FLUSH_RECORDS = 20_000
PLAIN_INTERVAL_S = 5.0


@dataclass(slots=True)
class Sent:
    """What was sent and acknowledged."""

    records: int = 0
    readings: int = 0
    labels: int = 0


class _Sender:
    def __init__(self, settings: StreamerSettings, producer: Producer, sent: Sent) -> None:
        self._topics = {"readings": settings.topics.readings, "labels": settings.topics.labels}
        self._producer = producer
        self._sent = sent

    def __call__(self, event: PlantEvent) -> None:
        headers = [("sent-at", b"%d" % event.sent_at)]
        self._producer.send(self._topics[event.kind], event.value, key=event.key, headers=headers)
        self._sent.records += 1
        self._sent.readings += event.num_readings
        self._sent.labels += event.kind == "labels"
        if self._producer.num_unflushed() >= FLUSH_RECORDS:
            self._producer.flush()


def feed_kafka(
    settings: StreamerSettings,
    events: Iterable[PlantEvent],
    *,
    speed: float,
    total_readings: int | None,
    stop: StopRequest,
) -> Sent:
    """Sends events in their order, paced by their own time.

    Args:
        speed: Times real time; 0 for as fast as the broker takes them.
        total_readings: For the progress bar, None if unknown.

    Raises:
        BrokerUnavailableError: The broker went away; what was not acknowledged may be missing.
    """
    sent = Sent()
    with Producer(settings.kafka) as producer, _progress(total_readings) as show:
        send = _Sender(settings, producer, sent)

        def send_and_show(event: PlantEvent) -> None:
            send(event)
            show(sent.readings)

        feed(events, send_and_show, speed=speed or math.inf, stop=stop)
        producer.flush()
    return sent


@contextmanager
def _progress(total: int | None) -> Iterator[_Show]:
    if not sys.stderr.isatty():
        yield _plain_lines(total)
        return
    columns = (TextColumn("readings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task("readings", total=total)
        yield lambda readings: bar.update(task, completed=readings)


def _plain_lines(total: int | None) -> _Show:
    next_at = time.monotonic() + PLAIN_INTERVAL_S

    def show(readings: int) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + PLAIN_INTERVAL_S
            log.info("feeding", readings=readings, total=total)

    return show
