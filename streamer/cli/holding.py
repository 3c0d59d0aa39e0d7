"""`streamer holds`: who keeps casts from retention."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, read_settings
from streamer.errors import ConfigError
from streamer.store.connection import connect
from streamer.store.holds import CastHolds
from streamer.store.keys import Keys


def holds(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    release: Annotated[
        str | None, typer.Option("--release", help="Let the casts of this holder go.", metavar="HOLDER")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the data sets and replay buffers that keep casts from retention, the oldest first."""
    settings = read_settings(config)
    client = connect(settings.redis)
    try:
        held = CastHolds(client, Keys(settings.redis.namespace))
        holders = held.holders()
        if release is not None:
            if release not in holders:
                raise ConfigError(
                    f"nobody called {release} holds casts; holders: {', '.join(holders) or 'none'}"
                )
            held.release(release)
            holders = held.holders()
    finally:
        client.close()
    if as_json:
        typer.echo(json.dumps(holders))
        return
    table = Table(Column("holder", overflow="fold"), "casts", box=None)
    for holder, num_casts in holders.items():
        table.add_row(holder, f"{num_casts:,}")
    Console().print(table)
