"""Feeds plant events to Kafka at the pace of the plant, or any multiple of it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from streamer.plant.events import PlantEvent

# Larger: a stop is answered later. Smaller: more wake-ups while waiting for the next record.
NAP_S = 0.2
# Smaller: progress costs time at full speed.
PROGRESS_S = 0.1
# Larger: more records are held until they are acknowledged. Smaller: the feed waits for the broker more often.
FLUSH_RECORDS = 20_000


class RecordSender(Protocol):
    """The part of a producer that a feeder needs."""

    def send(self, topic: str, value: bytes, *, key: bytes, headers: Sequence[tuple[str, bytes]]) -> object:
        """Queues one record."""

    def flush(self) -> None:
        """Waits until all that is queued has been acknowledged."""


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """How far a feed has come.

    Attributes:
        records: Records sent to either topic.
        readings: Rows in them.
        labels: Verdicts sent.
        sent_at: Recorded time of the last record, epoch milliseconds; None before the first.
        stopped: Whether it ended because it was told to.
    """

    records: int = 0
    readings: int = 0
    labels: int = 0
    sent_at: int | None = None
    stopped: bool = False


def to_topics(producer: RecordSender, readings: str, labels: str) -> Callable[[PlantEvent], None]:
    """A ``send`` for `feed` that writes to two topics, with the header ``sent-at`` in recorded time.

    It flushes every `FLUSH_RECORDS`; the last flush is the caller's.
    """
    topics = {"readings": readings, "labels": labels}
    numbers = itertools.count(1)

    def send(event: PlantEvent) -> None:
        sent_at = ("sent-at", str(event.sent_at).encode())
        producer.send(topics[event.kind], event.value, key=event.key, headers=[sent_at])
        if next(numbers) % FLUSH_RECORDS == 0:
            producer.flush()

    return send


def feed(
    events: Iterable[PlantEvent],
    send: Callable[[PlantEvent], None],
    *,
    speed: float,
    on_progress: Callable[[FeedProgress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FeedProgress:
    """Sends events in order, each when its time has come; one that is overdue goes out at once.

    Args:
        events: In the order of their ``sent_at``.
        send: Called once an event; what it raises ends the feed.
        speed: Recorded seconds a second; 0 or infinity sends as fast as ``send`` takes them.
        on_progress: Told how far the feed is, ten times a second at most, and once at the end.
        stop: Asked before each event and while waiting; true ends the feed.
        clock: Seconds.
        sleep: Waits some seconds.

    Returns:
        What was sent.

    Raises:
        ValueError: ``speed`` is negative or not a number.
    """
    if not speed >= 0:
        raise ValueError(f"speed is {speed}, expected 0 (as fast as possible) or more")
    pace = _Pace(speed, clock, sleep, stop or _never)
    told_at = clock()
    sent = FeedProgress()
    for event in events:
        if not pace.wait_for(event.sent_at):
            sent = replace(sent, stopped=True)
            break
        send(event)
        sent = _advance(sent, event)
        if on_progress and clock() - told_at >= PROGRESS_S:
            told_at = clock()
            on_progress(sent)
    if on_progress:
        on_progress(sent)
    return sent


def _advance(sent: FeedProgress, event: PlantEvent) -> FeedProgress:
    return FeedProgress(
        records=sent.records + 1,
        readings=sent.readings + event.num_readings,
        labels=sent.labels + (event.kind == "labels"),
        sent_at=event.sent_at,
    )


def _never() -> bool:
    return False


@dataclass(slots=True)
class _Pace:
    """Maps recorded time to the clock, from the first event on."""

    speed: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    stop: Callable[[], bool]
    first_sent_at: int | None = None
    began_s: float = 0.0

    def wait_for(self, sent_at: int) -> bool:
        """Waits until the time of an event has come; False if told to stop before."""
        if self.speed == 0 or math.isinf(self.speed):
            return not self.stop()
        if self.first_sent_at is None:
            self.first_sent_at, self.began_s = sent_at, self.clock()
        due_s = self.began_s + (sent_at - self.first_sent_at) / 1000 / self.speed
        while not self.stop():
            left_s = due_s - self.clock()
            if left_s <= 0:
                return True
            self.sleep(min(left_s, NAP_S))
        return False
