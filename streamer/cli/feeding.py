"""`streamer simulate` and `streamer replay`: a plant that sends its casts to Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from streamer.app import have_topics
from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, read_settings
from streamer.config import StreamerSettings
from streamer.errors import ConfigError
from streamer.feeding import feed_kafka
from streamer.plant.events import PlantEvent
from streamer.plant.recording import Recording
from streamer.plant.regimes import SENSORS
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.process import StopRequest
from streamer.sensors import listed

SpeedOption = Annotated[
    float, typer.Option(min=0, help="Times real time; 0: as fast as the broker takes it.", metavar="X")
]


def simulate(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    casts: Annotated[int, typer.Option(min=1, help="How many casts.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    speed: SpeedOption = 60.0,
    min_steps: Annotated[int, typer.Option(min=60, help="Shortest cast, in readings.")] = 900,
    max_steps: Annotated[int, typer.Option(min=60, help="Longest cast, in readings.")] = 1500,
    strands: Annotated[int, typer.Option(min=1, max=64, help="Casts at once.")] = 4,
    regime_change: Annotated[
        list[float],
        typer.Option(min=0.01, max=0.99, help="Where the plant changes, as a share of the casts."),
    ] = [0.5],  # noqa: B006 - typer copies it
) -> int:
    """Feeds casts of a simulated plant into Kafka: drift, late readings and delayed labels included."""
    settings = read_settings(config)
    if silent := sorted(set(settings.data.sensor_names) - set(SENSORS)):
        raise ConfigError(
            f"{config}: data.sensors {listed(silent)} would never say anything; "
            f"the simulated plant has {listed(SENSORS)}"
        )
    plant = SimulatorConfig(
        seed=seed,
        num_casts=casts,
        min_steps=min_steps,
        max_steps=max_steps,
        strands=strands,
        regime_changes=tuple(regime_change),
        period_ms=settings.data.period_ms,
    )
    return _feed(config, settings, Simulator(plant).events(), speed, None)


def replay(
    *,
    recording: Annotated[Path, typer.Argument(help="Folder with readings.csv[.gz] and labels.csv.")],
    config: ConfigOption = DEFAULT_CONFIG,
    speed: SpeedOption = 60.0,
    hold_back_labels: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of the last casts whose labels are not sent.", metavar="SHARE"
        ),
    ] = 0.0,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows a message; 1: wide readings.")] = 1,
) -> int:
    """Feeds a recording into Kafka in time order: readings, ends of casts, and labels at their own time."""
    settings = read_settings(config)
    source = Recording.open(recording)
    if source.sensors != settings.data.sensor_names:
        raise ConfigError(
            f"{config}: data.sensors are {listed(settings.data.sensor_names)}; "
            f"the recording {recording} has {listed(source.sensors)}"
        )
    events = source.events(chunk_rows=chunk_rows, hold_back_labels=hold_back_labels)
    return _feed(config, settings, events, speed, source.num_readings)


def _feed(
    config: Path, settings: StreamerSettings, events: Iterator[PlantEvent], speed: float, total: int | None
) -> int:
    if settings.topics.readings not in settings.reading_topics:
        raise ConfigError(
            f"{config}: readings would go to topics.readings {settings.topics.readings}, which no source reads; "
            f"sources read {', '.join(settings.reading_topics)}"
        )
    stop = StopRequest()
    stop.install()
    have_topics(settings)
    sent = feed_kafka(settings, events, speed=speed, total_readings=total, stop=stop)
    typer.echo(json.dumps({"records": sent.records, "readings": sent.readings, "labels": sent.labels}))
    return stop.exit_code()
