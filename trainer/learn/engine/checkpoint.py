"""Training state on disk: written whole, checked by digest, and never alone.

A file is `MAGIC`, the SHA-256 of what follows, and what `torch.save` made of the state.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
from pathlib import Path
from typing import Any

import structlog
import torch

from trainer.disk import map_disk_errors, rename_synced, write_synced
from trainer.errors import CheckpointError, DiskUnavailableError
from trainer.learn.config import CheckpointConfig

log = structlog.get_logger()

LAST = "last.pt"
PREVIOUS = "previous.pt"
MAGIC = b"castloop-state-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_BEST_NAME = re.compile(r"best-(\d{5})\.pt")


class ModelCheckpoint:
    """The checkpoints of one run in one folder: the last two complete states, and the weights of the best epochs.

    After a crash at any moment at least one complete state can be read, if one had been saved before.

    Args:
        folder: Of the run; made if it is missing.
        config: How often and how many.
        writes: False: for the ranks of a group that only read.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, *, writes: bool = True) -> None:
        self._folder = folder
        self._config = config
        self._writes = writes
        self._last_is_torn = False
        with map_disk_errors("making the folder of the run", folder):
            folder.mkdir(parents=True, exist_ok=True)

    def begin_anew(self) -> None:
        """Removes what another run left: a state that would be resumed from, and weights that are not this run's.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        if not self._writes:
            return
        for path in (self._folder / PREVIOUS, self._folder / LAST, *self.best()):
            _remove(path)

    def is_due_after_epoch(self, epoch: int) -> bool:
        """Whether the complete state is to be saved behind this epoch."""
        return epoch % self._config.every_epochs == 0

    def is_due_after_step(self, step: int) -> bool:
        """Whether it is to be saved behind this optimizer step, counted over the run."""
        return self._config.every_steps is not None and step % self._config.every_steps == 0

    def save_last(self, state: dict[str, Any]) -> None:
        """Saves a complete state; the one before is kept beside it.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        if not self._writes:
            return
        path = self._folder / LAST
        temporary = _write_aside(path, state)
        with map_disk_errors("writing the checkpoint", path):
            # A torn one would take the place of the only state that can be read.
            if path.exists() and not self._last_is_torn:
                path.replace(self._folder / PREVIOUS)
            rename_synced(temporary, path)
            self._last_is_torn = False

    def load_last(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest complete state that can be read, and its file; None if none was ever saved.

        Raises:
            CheckpointError: There are files, and none is whole; the message names each.
            DiskUnavailableError: None could be read, and one of them may be whole.
        """
        faults: list[Exception] = []
        for path in (self._folder / LAST, self._folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                return path, load_checkpoint(path)
            except (CheckpointError, DiskUnavailableError) as exc:
                log.warning("checkpoint cannot be read", error=str(exc))
                faults.append(exc)
                self._last_is_torn |= path.name == LAST
        if faults:
            # What the disk does not give today may be whole: it is not begun anew for that.
            may_be_whole = any(isinstance(fault, DiskUnavailableError) for fault in faults)
            kind = DiskUnavailableError if may_be_whole else CheckpointError
            raise kind("; ".join(map(str, faults)))
        return None

    def save_best(self, epoch: int, state: dict[str, Any]) -> None:
        """Saves the weights of an epoch that was the best so far, and removes the oldest beyond `keep_best`.

        Those of a later epoch were saved before the run was resumed from an earlier state; they go as well.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        if not self._writes:
            return
        newest = self._folder / f"best-{epoch:05d}.pt"
        save_checkpoint(newest, state)
        kept = [path for path in self.best() if path <= newest][-self._config.keep_best :]
        for path in self.best():
            if path not in kept:
                _remove(path)

    def best(self) -> list[Path]:
        """Files of the best epochs, the best one last."""
        return sorted(path for path in self._folder.iterdir() if _BEST_NAME.fullmatch(path.name))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a state so that after a crash the path holds the old file or the new one, never a part.

    Raises:
        DiskUnavailableError: The folder cannot be written.
    """
    temporary = _write_aside(path, state)
    with map_disk_errors("writing the checkpoint", path):
        rename_synced(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state, tensors on the CPU; only data is loaded, never code.

    Raises:
        CheckpointError: The file is missing, torn or no checkpoint.
        DiskUnavailableError: It cannot be read.
    """
    with map_disk_errors("reading the checkpoint", path):
        try:
            data = path.read_bytes()
        except FileNotFoundError as exc:
            raise CheckpointError(f"{path}: cannot read the checkpoint: {exc}") from exc
    if not data.startswith(MAGIC):
        raise CheckpointError(f"{path}: not a checkpoint of this version")
    digest, payload = data[len(MAGIC) :][:_DIGEST_BYTES], data[len(MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(
            f"{path}: torn or damaged: its digest is not that of its {len(payload):,} bytes"
        )
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as exc:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {exc}") from exc
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    return state


def _write_aside(path: Path, state: dict[str, Any]) -> Path:
    """Writes the file under another name in the same folder, safe on disk."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with map_disk_errors("writing the checkpoint", path):
        try:
            write_synced(temporary, MAGIC, hashlib.sha256(payload).digest(), payload)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return temporary


def _remove(path: Path) -> None:
    with map_disk_errors("removing", path):
        path.unlink(missing_ok=True)
