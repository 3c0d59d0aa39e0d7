"""`streamer run` and `streamer status`."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streamer import process
from streamer.app import run_streamer
from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, read_settings
from streamer.config import StreamerSettings
from streamer.kafka import end_offsets, hold_records
from streamer.process import StopRequest
from streamer.stopping import resume_command
from streamer.store.connection import connect
from streamer.store.content import content_hash
from streamer.store.keys import Keys
from streamer.store.namespace import check_namespace
from streamer.store.positions import PositionStore
from streamer.store.reading import WindowReader
from streamer.store.stops import StopStore
from streamer.store.summary import summarise


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    reset: Annotated[
        bool, typer.Option("--reset", help="Read the topics from their beginning, whatever was committed.")
    ] = False,
) -> int:
    """Runs one member of the consumer group until SIGTERM or Ctrl-C."""
    settings = read_settings(config)
    stop = StopRequest()
    stop.install()
    with suppress(process.StoppedError):
        run_streamer(settings, stop, reset=reset)
    return stop.exit_code()


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    with_hash: Annotated[
        bool, typer.Option("--hash", help="Digest over all sealed windows and their labels; reads all rows.")
    ] = False,
) -> None:
    """Counts what the namespace holds, how far the group is behind, and which partitions are stopped."""
    settings = read_settings(config)
    report = _status(settings)
    if with_hash:
        report["content_hash"] = _content_hash(settings)
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table(show_header=False, box=None)
    stopped, digest = report.pop("stopped"), report.pop("content_hash", None)
    for name, value in report.items():
        table.add_row(name.replace("_", " "), _words(value))
    Console().print(table)
    if digest:  # in one piece: it is there to be compared
        Console().print(f" content hash {digest}", highlight=False, soft_wrap=True)
    for partition, stop in stopped.items():
        line = f"{partition} is stopped at offset {stop['offset']:,}: {stop['why']}; mend that, then {stop['resume']}"
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


def _content_hash(settings: StreamerSettings) -> str:
    client = connect(settings.redis)
    try:
        keys = Keys(settings.redis.namespace)
        check_namespace(client, keys, settings.data)
        return content_hash(WindowReader(client, keys, settings.data, settings.windows))
    finally:
        client.close()


def _words(value: int | str | dict[str, int]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(f"{key} {number:,}" for key, number in value.items()) or "none"


def _status(settings: StreamerSettings) -> dict[str, Any]:
    client = connect(settings.redis)
    keys = Keys(settings.redis.namespace)
    topics = settings.topics
    try:
        summary = summarise(client, keys, settings.windows.name)
        positions = PositionStore(client, keys).load_all()
        stops = StopStore(client, keys).load_all()
    finally:
        client.close()
    ends = end_offsets(settings.kafka, (*settings.reading_topics, topics.labels, topics.dead_letters))
    offsets = {
        partition: positions[partition].offset if partition in positions else 0
        for partition in sorted(ends)
        if partition.topic != topics.dead_letters
    }
    behind = hold_records(settings.kafka, offsets, ends)
    lag = {str(each): ends[each] - offset if each in behind else 0 for each, offset in offsets.items()}
    return {
        "readings": summary.readings,
        "steps": summary.steps,
        "casts": summary.casts,
        "evicted_casts": summary.evicted_casts,
        "pending_labels": summary.pending_labels,
        "sealed_windows": summary.sealed_windows,
        "labelled_windows": summary.labelled_windows,
        "unlabelled_windows": summary.unlabelled_windows,
        "defective_windows": summary.defective_windows,
        "dead_letters": sum(end for partition, end in ends.items() if partition.topic == topics.dead_letters),
        "lag": sum(lag.values()),
        "lag_by_partition": lag,
        "stopped": {
            str(partition): {"offset": stop.offset, "why": str(stop), "resume": resume_command(partition)}
            for partition, stop in stops.items()
        },
    }
