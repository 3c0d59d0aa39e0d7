"""Fixtures of the whole suite: a real broker and a real Redis, started once a worker on free ports.

`CASTING_TEST_KAFKA=host:port` and `CASTING_TEST_REDIS=redis://...` make it use running servers instead.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator

import pytest

from streamer.config import KafkaConfig, RedisConfig
from streamer.embedded import EmbeddedBroker, EmbeddedRedis


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests of a GPU out where there is none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing and not _has_gpu():
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415 - the streamer's tests do without

    with warnings.catch_warnings(action="ignore"):  # of a driver that is too old: there is no GPU for us then
        return torch.cuda.is_available()


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaConfig]:
    """How to reach a running broker."""
    if servers := os.environ.get("CASTING_TEST_KAFKA"):
        yield KafkaConfig(bootstrap_servers=servers)
        return
    with EmbeddedBroker() as broker:
        yield KafkaConfig(bootstrap_servers=broker.bootstrap_servers)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Address of a running Redis."""
    if url := os.environ.get("CASTING_TEST_REDIS"):
        yield url
        return
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def unique() -> str:
    """A word that no other test uses: for topics, groups and namespaces."""
    return uuid.uuid4().hex[:12]


@pytest.fixture
def redis(redis_url: str, unique: str) -> RedisConfig:
    """A namespace of its own for each test."""
    return RedisConfig(url=redis_url, namespace=f"t{unique}")


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    """A Redis of its own, which a test may kill."""
    with EmbeddedRedis() as server:
        yield server
