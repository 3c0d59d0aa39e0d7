"""`streamer breaker`: partitions that stand still because most of their records fail, and letting them go on."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, read_settings
from streamer.config import StreamerSettings
from streamer.errors import CastingError, ConfigError
from streamer.records import Partition
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.stops import StopStore

app = typer.Typer(help="Partitions that stand still because most of their records fail.")

_PARTITION = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,9})")


@app.command("list")
def list_stops(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> int:
    """Lists stopped partitions; ends with 1 if there is one."""
    with _store(read_settings(config)) as store:
        stops = store.load_all()
    if as_json:
        rows = [
            {"topic": partition.topic, "partition": partition.partition} | asdict(stop)
            for partition, stop in stops.items()
        ]
        typer.echo(json.dumps({"stopped": rows}))
    elif not stops:
        typer.echo("no partition is stopped")
    else:
        table = Table(box=None, pad_edge=False)
        for name in ("partition", "stopped at (UTC)", "goes on at offset", "why"):
            table.add_column(name, no_wrap=name != "why")
        for partition, stop in stops.items():
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(stop.at_ms / 1000))
            table.add_row(*map(Text, (str(partition), at, f"{stop.offset:,}", str(stop))))
        console = Console() if sys.stdout.isatty() else Console(width=160)
        console.print(table)
    return 1 if stops else 0


@app.command()
def resume(
    partitions: Annotated[
        list[str] | None, typer.Argument(help="Such as casting.readings/2.", metavar="[PARTITION]...")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    everything: Annotated[bool, typer.Option("--all", help="Every stopped partition.")] = False,
) -> None:
    """Lets stopped partitions go on at the first record that was not taken."""
    settings = read_settings(config)
    if bool(partitions) == everything:
        raise ConfigError("name partitions, or --all: one of the two")
    named = [_parse(each) for each in partitions or []]
    with _store(settings) as store:
        stops = store.load_all()
        unknown = [str(partition) for partition in named if partition not in stops]
        if unknown:
            raise CastingError(f"not stopped: {', '.join(unknown)}")
        for partition in named or stops:
            store.remove(partition)
            typer.echo(f"{partition} goes on at offset {stops[partition].offset}")


def _parse(text: str) -> Partition:
    if match := _PARTITION.fullmatch(text):
        return Partition(match[1], int(match[2]))
    raise ConfigError(f"{text!r} is no partition; expected topic/number: casting.readings/2")


@contextmanager
def _store(settings: StreamerSettings) -> Iterator[StopStore]:
    client = connect(settings.redis)
    try:
        yield StopStore(client, Keys(settings.redis.namespace))
    finally:
        client.close()
