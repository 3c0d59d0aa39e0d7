"""Events go out when their time has come, by a clock that the test holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamer.plant import feeder
from streamer.plant.events import PlantEvent
from streamer.plant.feeder import FeedProgress, feed, to_topics

START = 1_767_225_600_000


class Clock:
    """Time that passes only while someone sleeps, or when a send takes long."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


def reading(at_s: float, rows: int = 1) -> PlantEvent:
    return PlantEvent(START + round(at_s * 1000), "readings", b"C1", b"{}", rows)


def label(at_s: float) -> PlantEvent:
    return PlantEvent(START + round(at_s * 1000), "labels", b"C1", b"{}", 0)


def sent_times(events: Sequence[PlantEvent], speed: float, send_takes_s: float = 0.0) -> list[float]:
    clock, times = Clock(), []

    def send(event: PlantEvent) -> None:
        times.append(round(clock.now_s - 100.0, 6))
        clock.now_s += send_takes_s

    feed(events, send, speed=speed, clock=clock, sleep=clock.sleep)
    return times


@pytest.mark.parametrize(
    ("speed", "expected"),
    [(1, [0, 10, 60]), (10, [0, 1, 6]), (0.5, [0, 20, 120]), (0, [0, 0, 0]), (float("inf"), [0, 0, 0])],
)
def test_recorded_gaps_are_divided_by_the_speed(speed: float, expected: list[float]) -> None:
    assert sent_times([reading(0), reading(10), reading(60)], speed) == expected


def test_a_slow_send_is_caught_up_not_added() -> None:
    #  due  0  1  2  10
    #  sent 0  3  6  10   each send takes 3 s
    assert sent_times([reading(0), reading(1), reading(2), reading(10)], 1, send_takes_s=3) == [0, 3, 6, 10]


@pytest.mark.parametrize("speed", [-1, float("nan")])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        feed([], lambda _: None, speed=speed)


def test_progress_counts_records_readings_and_labels_and_ends_with_all() -> None:
    clock, told = Clock(), list[FeedProgress]()
    events = [reading(0, rows=10), reading(1), label(2), reading(2, rows=0)]
    done = feed(events, lambda _: None, speed=1, on_progress=told.append, clock=clock, sleep=clock.sleep)
    assert done == FeedProgress(records=4, readings=11, labels=1, sent_at=START + 2000)
    assert told[-1] == done
    assert [progress.records for progress in told] == [2, 3, 4]


def test_progress_is_told_ten_times_a_second_at_most() -> None:
    clock, told = Clock(), list[FeedProgress]()
    events = [reading(index * 0.01) for index in range(101)]
    feed(events, lambda _: None, speed=1, on_progress=told.append, clock=clock, sleep=clock.sleep)
    assert 8 <= len(told) <= 11


def test_a_stop_is_answered_while_waiting() -> None:
    clock, sent = Clock(), list[PlantEvent]()
    done = feed(
        [reading(0), reading(3600)],
        sent.append,
        speed=1,
        stop=lambda: clock.now_s > 101,
        clock=clock,
        sleep=clock.sleep,
    )
    assert done.stopped
    assert len(sent) == done.records == 1
    assert clock.now_s < 101 + 2 * feeder.NAP_S


def test_a_stop_is_answered_at_full_speed() -> None:
    sent: list[PlantEvent] = []
    done = feed((reading(at) for at in range(10)), sent.append, speed=0, stop=lambda: len(sent) == 3)
    assert done.stopped
    assert len(sent) == 3


def test_what_send_raises_ends_the_feed() -> None:
    def send(event: PlantEvent) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        feed([reading(0)], send, speed=0)


class Collector:
    """Keeps what it is asked to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes, Sequence[tuple[str, bytes]]]] = []
        self.flushed_at: list[int] = []

    def send(self, topic: str, value: bytes, *, key: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        self.sent.append((topic, value, key, headers))

    def flush(self) -> None:
        self.flushed_at.append(len(self.sent))


def test_records_go_to_their_topic_with_their_recorded_time() -> None:
    collector = Collector()
    feed([reading(0), label(1)], to_topics(collector, "r", "l"), speed=0)
    assert collector.sent == [
        ("r", b"{}", b"C1", [("sent-at", b"1767225600000")]),
        ("l", b"{}", b"C1", [("sent-at", b"1767225601000")]),
    ]


def test_what_is_queued_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "FLUSH_RECORDS", 4)
    collector = Collector()
    feed([reading(at) for at in range(10)], to_topics(collector, "r", "l"), speed=0)
    assert collector.flushed_at == [4, 8]
