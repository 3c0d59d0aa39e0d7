"""What the commands share: options, settings, and words for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamer.config import StreamerSettings
from streamer.logs import configure_logging
from streamer.settings import load_settings

ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", help="YAML file.", metavar="FILE", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
DEFAULT_CONFIG = Path("configs/streamer.yaml")


def read_settings(path: Path) -> StreamerSettings:
    """Reads the configuration and sets up logging by it.

    Raises:
        ConfigError: With every fault of the file.
    """
    settings = load_settings(StreamerSettings, path)
    configure_logging(settings.logging)
    return settings
