"""Command line of the streamer. Results on stdout, logs and progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamer import process
from streamer.app import have_topics, run_streamer
from streamer.config import StreamerSettings
from streamer.errors import ConfigError
from streamer.feeding import feed_kafka
from streamer.kafka import end_offsets
from streamer.logs import configure_logging
from streamer.plant.events import PlantEvent
from streamer.plant.recording import Recording
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.process import StopRequest
from streamer.settings import load_settings
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore
from streamer.store.summary import summarise

app = typer.Typer(
    help="Collects casting sensor streams from Kafka into windowed, labelled data sets in Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", help="YAML file.", metavar="FILE", show_default=True)
]
DEFAULT_CONFIG = Path("configs/streamer.yaml")
SpeedOption = Annotated[
    float, typer.Option(min=0, help="Times real time; 0: as fast as the broker takes it.", metavar="X")
]


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    reset: Annotated[
        bool, typer.Option("--reset", help="Read the topics from their beginning, whatever was committed.")
    ] = False,
) -> int:
    """Runs one member of the consumer group until SIGTERM or Ctrl-C."""
    settings = _settings(config)
    stop = StopRequest()
    stop.install()
    with suppress(process.StoppedError):
        run_streamer(settings, stop, reset=reset)
    return stop.exit_code()


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Counts what the namespace holds, and how far the group is behind."""
    report = _status(_settings(config))
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table(show_header=False, box=None)
    for name, value in report.items():
        table.add_row(name.replace("_", " "), _words(value))
    Console().print(table)


@app.command()
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
    settings = _settings(config)
    plant = SimulatorConfig(
        seed=seed,
        num_casts=casts,
        min_steps=min_steps,
        max_steps=max_steps,
        strands=strands,
        regime_changes=tuple(regime_change),
        period_ms=settings.data.period_ms,
    )
    return _feed(settings, Simulator(plant).events(), speed, None)


@app.command()
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
    settings = _settings(config)
    source = Recording.open(recording)
    if source.sensors != settings.data.sensor_names:
        raise ConfigError(
            f"{config}: data.sensors are {', '.join(settings.data.sensor_names)}; "
            f"the recording {recording} has {', '.join(source.sensors)}"
        )
    events = source.events(chunk_rows=chunk_rows, hold_back_labels=hold_back_labels)
    return _feed(settings, events, speed, source.num_readings)


def _feed(settings: StreamerSettings, events: Iterator[PlantEvent], speed: float, total: int | None) -> int:
    stop = StopRequest()
    stop.install()
    have_topics(settings)
    sent = feed_kafka(settings, events, speed=speed, total_readings=total, stop=stop)
    typer.echo(json.dumps({"records": sent.records, "readings": sent.readings, "labels": sent.labels}))
    return stop.exit_code()


def _words(value: int | dict[str, int]) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(f"{key} {number:,}" for key, number in value.items()) or "none"


def _settings(path: Path) -> StreamerSettings:
    settings = load_settings(StreamerSettings, path)
    configure_logging(settings.logging)
    return settings


def _status(settings: StreamerSettings) -> dict[str, int | dict[str, int]]:
    client = connect(settings.redis)
    keys = Keys(settings.redis.namespace)
    topics = settings.topics
    try:
        summary = summarise(client, keys, settings.windows.name)
        positions = PositionStore(client, keys).load_all()
    finally:
        client.close()
    ends = end_offsets(settings.kafka, (topics.readings, topics.labels, topics.dead_letters))
    lag = {
        str(partition): end - (positions[partition].offset if partition in positions else 0)
        for partition, end in sorted(ends.items())
        if partition.topic != topics.dead_letters
    }
    return {
        "readings": summary.readings,
        "steps": summary.steps,
        "casts": summary.casts,
        "sealed_windows": summary.sealed_windows,
        "labelled_windows": summary.labelled_windows,
        "defective_windows": summary.defective_windows,
        "dead_letters": sum(end for partition, end in ends.items() if partition.topic == topics.dead_letters),
        "lag": sum(lag.values()),
        "lag_by_partition": lag,
    }


def main() -> None:
    """Entry point."""
    process.main(app)
