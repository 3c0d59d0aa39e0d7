"""Fixtures of the trainer's tests: a plant in Redis, and a configuration with topics of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plants import Plant
from trainers import settings

from streamer.config import KafkaConfig, RedisConfig
from streamer.kafka import ensure_topics
from trainer.config import TrainerSettings
from trainer.release import release_topics


@pytest.fixture
def plant(redis: RedisConfig) -> Iterator[Plant]:
    """Written to by the test, read by its trainer."""
    plant = Plant(redis)
    yield plant
    plant.close()


@pytest.fixture
def config(redis: RedisConfig, kafka: KafkaConfig, unique: str, tmp_path: Path) -> TrainerSettings:
    """Of a trainer that learns what `plants.casts` makes; its topics are there."""
    config = settings(redis, tmp_path / "registry", kafka, unique)
    ensure_topics(kafka, release_topics(config.topics))
    return config
