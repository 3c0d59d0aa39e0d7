"""Runs commands of the streamer in this process, against the servers of a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer.main
import yaml

import streamer.cli
from streamer.config import StreamerSettings

Run = Callable[..., tuple[int, str]]


def write_config(settings: StreamerSettings, path: Path) -> Path:
    """A YAML file that says what the settings say."""
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return path


def runner(settings: StreamerSettings, folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that takes arguments and returns exit code and stdout; errors of ours are raised."""
    config = write_config(settings, folder / "streamer.yaml")
    app = typer.main.get_command(streamer.cli.app)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = app.main([*arguments, "-c", str(config)], standalone_mode=False)
        finally:
            structlog.reset_defaults()
        return (code if isinstance(code, int) else 0), capsys.readouterr().out

    return run


def as_json(said: tuple[int, str]) -> Any:
    """What a command said with --json."""
    return json.loads(said[1])
