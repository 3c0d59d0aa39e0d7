"""Files and names that outlast a power cut once they are there."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, *parts: bytes | memoryview) -> None:
    """Writes a file; a crash on the way leaves a part of it."""
    with path.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def rename_synced(path: Path, target: Path) -> None:
    """Gives a file or a folder another name in the same folder, in place of a file that bore it."""
    path.replace(target)
    sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Makes renames and removals in a folder last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
