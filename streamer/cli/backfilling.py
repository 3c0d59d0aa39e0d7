"""`streamer backfill`: a stretch of the topics once more, into a namespace of its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from streamer.backfill import run_backfill
from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, read_settings
from streamer.codec import parse_time
from streamer.config import RedisConfig, StreamerSettings
from streamer.errors import ConfigError
from streamer.process import StopRequest
from streamer.stretch import Stretch

TIME = "2026-11-22T14:00:00Z, or epoch milliseconds"


def backfill(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    begin: Annotated[str, typer.Option("--from", help=f"Log time: {TIME}.", metavar="T")],
    end: Annotated[str, typer.Option("--to", help="The same; the end is left out.", metavar="T")],
    namespace: Annotated[str, typer.Option(help="A fresh one, or that of the same backfill.", metavar="N")],
    close_open: Annotated[
        bool, typer.Option("--close-open", help="Nothing more will come: casts open at the end are over.")
    ] = False,
) -> int:
    """Reads the casts that began in a stretch of log time into a fresh namespace, with all of their labels.

    The live group, its offsets and its dead letters are left as they are.
    """
    settings = _into(read_settings(config), namespace)
    stretch = Stretch(_time("--from", begin), _time("--to", end))
    if stretch.begin_ms >= stretch.end_ms:
        raise ConfigError(f"--from {begin} does not lie before --to {end}")
    stop = StopRequest()
    stop.install()
    result = run_backfill(settings, stretch, stop, close_open=close_open)
    report = {
        "namespace": namespace,
        "complete": result.is_complete,
        "casts": result.num_casts,
        "open_casts": result.num_open_casts,
        "records": result.num_records,
        "sealed_windows": result.num_sealed_windows,
        "dead_letters": dict(sorted(result.dead_letters.items())),
    }
    typer.echo(json.dumps(report))
    return stop.exit_code()


def _into(settings: StreamerSettings, namespace: str) -> StreamerSettings:
    if namespace == settings.redis.namespace:
        raise ConfigError(f"--namespace {namespace} is the one that is read live; name another")
    try:
        redis = RedisConfig(**{**settings.redis.model_dump(), "namespace": namespace})
    except ValidationError as exc:
        raise ConfigError(f"--namespace {namespace}: {exc.errors()[0]['msg']}") from exc
    return settings.model_copy(update={"redis": redis})


def _time(option: str, text: str) -> int:
    moment = parse_time(int(text) if text.isdecimal() else text)
    if moment is None:
        example = datetime(2026, 11, 22, 14, tzinfo=UTC).isoformat()
        raise ConfigError(
            f"{option} {text}: expected a time with its zone, such as {example}, or epoch milliseconds"
        )
    return moment
