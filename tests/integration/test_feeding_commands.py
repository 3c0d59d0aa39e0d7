"""What `streamer simulate` and `streamer replay` refuse before a record is sent: it would be read by nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import runner
from streamer_harness import make_settings

from streamer.config import DataConfig, KafkaConfig, RedisConfig, SensorConfig
from streamer.errors import ConfigError
from streamer.plant.regimes import SENSORS
from streamer.sources import SourceConfig

NOWHERE = KafkaConfig(bootstrap_servers="127.0.0.1:1", request_timeout_ms=1_000)


def test_a_plant_without_the_sensors_of_the_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(NOWHERE, RedisConfig(), "x")
    with pytest.raises(
        ConfigError, match=r"data.sensors level, speed would never say anything; .* has casting_"
    ):
        runner(settings, tmp_path, capsys)("simulate")


def test_a_topic_that_no_source_reads_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataConfig(sensors=tuple(SensorConfig(name=name) for name in SENSORS))
    settings = make_settings(NOWHERE, RedisConfig(), "x").model_copy(
        update={"data": data, "sources": (SourceConfig(topic="historian"),)}
    )
    with pytest.raises(ConfigError, match=r"topics.readings readings-x, which no source reads; .* historian"):
        runner(settings, tmp_path, capsys)("simulate")
