"""Training state on disk."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from trainer.errors import CheckpointError

LAST = "last.pt"
BEST = "best.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a state so that after a crash the path holds the old file or the new one, never a part.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot write the checkpoint: {exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state, tensors on the CPU; only data is loaded, never code.

    Raises:
        CheckpointError: The file is missing, torn or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {exc}") from exc
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    return state


def check_fits(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compares what a checkpoint was made with to what is configured now.

    Raises:
        CheckpointError: They differ; the message names the fields.
    """
    keys = sorted(found.keys() | expected.keys())
    differing = [
        f"{key}: {found.get(key)!r} in the file, {expected.get(key)!r} now"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
    if differing:
        raise CheckpointError(f"{path}: made with another configuration: {'; '.join(differing)}")


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
