"""`streamer index`: a window spec over the rows that are there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import structlog
import typer

from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, read_settings
from streamer.config import WindowsConfig
from streamer.errors import ConfigError
from streamer.process import StopRequest
from streamer.settings import Settings, load_settings
from streamer.store.connection import Client, connect
from streamer.store.index import IndexResult, WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import check_server, claim_namespace, claim_spec, drop_spec
from streamer.store.summary import count_windows

log = structlog.get_logger()


class SpecFile(Settings):
    """A file with one window spec."""

    windows: WindowsConfig


def index(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="YAML file with a section `windows`.", metavar="FILE")
    ] = None,
    drop: Annotated[
        str | None, typer.Option("--drop", help="Stop keeping the spec of this name.", metavar="NAME")
    ] = None,
) -> int:
    """Enters a window spec over all casts that are sealed; running members keep it up to date from then on.

    Broken off and started again, it goes on where it was. A dropped spec stays readable as it is.
    """
    if (spec is None) == (drop is None):
        raise ConfigError("say --spec FILE to add a window spec, or --drop NAME to stop keeping one")
    settings = read_settings(config)
    windows = load_settings(SpecFile, spec).windows if spec else None
    if drop == settings.windows.name:
        raise ConfigError(f"{config} configures windows.name {drop}: its members would keep it on")
    stop = StopRequest()
    stop.install()
    keys = Keys(settings.redis.namespace)
    client = connect(settings.redis)
    try:
        check_server(client)
        claim_namespace(client, keys, settings.data)
        if windows is None:
            dropped = drop_spec(client, keys, str(drop))
            typer.echo(json.dumps({"spec": drop, "dropped": dropped}))
            return 0
        claim_spec(client, keys, windows)
        _enter(WindowIndex(client, keys, settings.data, windows), client, keys, windows.name, stop)
    finally:
        client.close()
    return stop.exit_code()


def _enter(index: WindowIndex, client: Client, keys: Keys, name: str, stop: StopRequest) -> None:
    casts, result = 0, IndexResult()
    for casts, result in index.update_all():
        log.info("indexing", spec=name, casts=casts, new_windows=result.num_sealed)
        if stop():
            break
    sealed, defective, good = count_windows(client, keys, name)
    typer.echo(
        json.dumps(
            {
                "spec": name,
                "casts": casts,
                "evicted_casts": result.num_evicted,
                "new_windows": result.num_sealed,
                "sealed_windows": sealed,
                "labelled_windows": defective + good,
            }
        )
    )
