"""A power cut: Redis dies, and the end of its append-only file never reached the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from streamer.embedded import EmbeddedRedis


def sizes(server: EmbeddedRedis) -> dict[Path, int]:
    """Bytes of the files that grow with each write; exact while `appendfsync` is `always`."""
    return {file: file.stat().st_size for file in server._folder.rglob("*.incr.aof")}


def power_cut(server: EmbeddedRedis, kept: Mapping[Path, int]) -> None:
    """Redis dies, loses what it wrote since its files had these sizes, and is back before anybody sends a command."""
    server.kill()
    for file, size in kept.items():
        with file.open("r+b") as cut:
            cut.truncate(size)
    server.start()
