"""Redis goes away in the middle, with and without what it had acknowledged: nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from power_cuts import power_cut, sizes
from streamer_harness import Member, Plant, contents, make_settings, member, reader

from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.embedded import EmbeddedRedis


@pytest.fixture
def settings(kafka: KafkaConfig, server: EmbeddedRedis, unique: str) -> StreamerSettings:
    return make_settings(kafka, RedisConfig(url=server.url, namespace="n", timeout_s=1), unique)


@pytest.fixture
def one(settings: StreamerSettings) -> Iterator[Member]:
    with member(settings) as one:
        one.run_until(one.assigned)
        yield one


def expect_cast(one: Member, num_steps: int) -> None:
    held = contents(one.client, one.settings)
    assert held["casts"]["{A}"]["steps:placed"] == b"%d" % num_steps
    assert held["casts"]["{A}"]["records:late"] is None
    windows = reader(one.client, one.settings)
    assert len(windows.sealed()) == len(windows.labelled()) == num_steps // 5
    values = [x_TF[:, 0].tolist() for x_TF in windows.rows(windows.sealed())]
    assert [value for window in values for value in window] == list(range(num_steps))


def test_a_dead_redis_pauses_the_stream_and_loses_nothing(
    one: Member, server: EmbeddedRedis, settings: StreamerSettings
) -> None:
    plant = Plant(settings)
    one.client.config_set(
        "appendfsync", "always"
    )  # killed, it may lose what it put off while its disk was slow
    plant.feed([*(plant.reading("A", step) for step in range(7)), plant.label("A", False, 5)])
    one.consume(8)
    server.kill()
    # A quiet member notices as well.
    one.run_until(lambda: one.health.why_not_ready() is not None)
    plant.feed([*(plant.reading("A", step) for step in range(7, 15)), plant.end("A", 14)])
    died = time.monotonic()
    one.run_until(lambda: time.monotonic() > died + 1)
    assert one.health.why_not_live() is None
    assert len(one.consumer.assignment()) == 4
    assert one.metrics.registry.get_sample_value("casting_streamer_outages_total", {"server": "redis"}) == 1
    server.start()
    one.consume(17)
    one.let_time_pass(4)
    assert one.health.why_not_ready() is None
    expect_cast(one, 15)


@pytest.mark.parametrize("quiet", [False, True], ids=["records follow", "nothing follows"])
def test_what_redis_lost_in_a_power_cut_is_read_again(
    one: Member, server: EmbeddedRedis, settings: StreamerSettings, quiet: bool
) -> None:
    plant = Plant(settings)
    one.client.config_set("appendfsync", "always")  # so that the size of its file says what it holds
    plant.feed(plant.reading("A", step) for step in range(7))
    one.consume(7)
    kept = sizes(server)
    plant.feed(
        [
            *(plant.reading("A", step) for step in range(7, 15)),
            plant.end("A", 14),
            plant.label("A", False, 15),
        ]
    )
    one.consume(17)
    # Acknowledged, committed to Kafka, and gone: the end of the append-only file never reached the disk.
    power_cut(server, kept)
    assert one.num_consumed() == 7
    if not quiet:
        plant.feed([plant.reading("B", 0), plant.reading("B", 1)])
    one.consume(17 if quiet else 19)
    one.let_time_pass(4)
    expect_cast(one, 15)


@contextmanager
def damaged(one: Member) -> Iterator[None]:
    """Answers of the broker arrive with one bit turned, as from a broken disk."""
    fetcher = one.consumer._consumer._fetcher
    arrived = fetcher._handle_fetch_response

    def turn(node: Any, fetch_offsets: Any, sent: Any, response: Any) -> None:
        for part in (part for answer in response.responses for part in answer.partitions):
            if part.records:
                turned = bytearray(part.records)
                turned[-1] ^= 1
                part.records = bytes(turned)
        arrived(node, fetch_offsets, sent, response)

    fetcher._handle_fetch_response = turn
    yield
    fetcher._handle_fetch_response = arrived


def test_what_fails_again_and_again_is_tried_less_and_less(one: Member, settings: StreamerSettings) -> None:
    """Loading goes well each time, and what comes after it does not."""
    plant = Plant(settings)
    plant.feed(plant.reading("A", step) for step in range(7))
    one.consume(7)
    outages = partial(
        one.metrics.registry.get_sample_value, "casting_streamer_outages_total", {"server": "kafka"}
    )
    load, loaded = one.positions.load, []
    one.positions.load = lambda partition: loaded.append(partition) or load(partition)  # type: ignore[func-returns-value,method-assign]  # counted
    for number in (1, 2):
        with damaged(one):
            plant.feed([plant.reading("A", 6 + number)])
            began = time.monotonic()
            one.run_until(lambda: time.monotonic() > began + 2.5)  # noqa: B023 - runs within the turn
            assert one.health.why_not_ready() is not None
        assert outages() == number
        assert len(loaded) <= number * 4 * 5
        one.consume(7 + number)
        one.run_until(one.assigned)
