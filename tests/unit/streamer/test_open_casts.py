"""A partition with casts without end is told, once, and as long as it lasts."""

from __future__ import annotations

from structlog.testing import capture_logs

from streamer.metrics import StreamerMetrics
from streamer.open_casts import OpenCasts
from streamer.records import Partition

ONE, OTHER = Partition("readings", 0), Partition("readings", 1)


def told(metrics: StreamerMetrics, partition: Partition) -> float | None:
    labels = {"topic": partition.topic, "partition": str(partition.partition)}
    return metrics.registry.get_sample_value("casting_streamer_many_open_casts", labels)


def test_a_number_above_the_limit_is_told_as_long_as_it_lasts_and_logged_once() -> None:
    metrics = StreamerMetrics()
    casts = OpenCasts(10, metrics)
    with capture_logs() as logs:
        for number, expected in ((10, None), (11, 1), (9, None), (30, 1)):
            casts.observe({ONE: number, OTHER: 3})
            assert (told(metrics, ONE), told(metrics, OTHER)) == (expected, None)
            assert metrics.registry.get_sample_value("casting_streamer_open_casts") == number + 3
    assert [(entry["event"], entry["partition"], entry["open_casts"]) for entry in logs] == [
        ("many open casts", "readings/0", 11)
    ]


def test_it_is_logged_again_after_it_was_over() -> None:
    casts = OpenCasts(10, StreamerMetrics())
    with capture_logs() as logs:
        for number in (11, 6, 11, 5, 11):
            casts.observe({ONE: number})
    assert len(logs) == 2


def test_a_partition_that_went_to_another_member_is_told_by_that_one() -> None:
    metrics = StreamerMetrics()
    casts = OpenCasts(10, metrics)
    with capture_logs() as logs:
        casts.observe({ONE: 11})
        casts.observe({})
        assert told(metrics, ONE) is None
        casts.observe({ONE: 11})
    assert len(logs) == 2
