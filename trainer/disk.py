"""Writes that a kill or a power cut cannot tear: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.errors import RegistryError

# What bears this prefix was never finished, or is being removed: readers pass over it.
TEMPORARY = ".tmp-"


@contextmanager
def map_disk_errors(action: str, path: Path) -> Iterator[None]:
    """Translates errors of the operating system; the message names what was done to which path."""
    try:
        yield
    except OSError as exc:
        raise RegistryError(f"{path}: {action} failed: {exc.strerror or exc}") from exc


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


def make_folder(path: Path) -> None:
    """Makes a folder and its parents where they are missing."""
    with map_disk_errors("making the folder", path):
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes or replaces a file: readers see the old content or the new one, also after a power cut."""
    with map_disk_errors("writing", path):
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        write_synced(temporary, data)
        rename_synced(temporary, path)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Makes a folder with files in it; it is there with all of them or not at all."""
    with map_disk_errors("writing", path):
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, data in files.items():
            if Path(name).name != name:
                raise RegistryError(f"{path}: {name!r} is not the name of a file")
            write_synced(temporary / name, data)
        sync_folder(temporary)
        rename_synced(temporary, path)


def remove_file(path: Path) -> None:
    """Removes a file for good; a missing one is no error."""
    with map_disk_errors("removing", path):
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder; a kill on the way leaves it under a temporary name."""
    with map_disk_errors("removing", path):
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        shutil.rmtree(temporary, ignore_errors=True)  # what a kill on the way left
        path.rename(temporary)
        shutil.rmtree(temporary)


def remove_temporary(folder: Path) -> None:
    """Removes what an interrupted write or removal left; only the holder of the lock may call it."""
    with map_disk_errors("clearing", folder):
        for path in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def append_line(path: Path, line: str) -> None:
    """Appends one line; a torn line that an earlier kill left at the end is cut off first."""
    with map_disk_errors("appending", path), path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rpartition(b"\n")
        file.truncate(len(whole[0]) + len(whole[1]))
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        sync_folder(path.parent)


def read_lines(path: Path) -> list[str]:
    """Returns the finished lines of a file, none when it is missing; a torn last line is left out."""
    with map_disk_errors("reading", path):
        try:
            return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        except FileNotFoundError:
            return []


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RegistryError: It is missing, torn, or not an object; the message names the file.
    """
    with map_disk_errors("reading", path):
        return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """Parses a JSON object; `where` starts the message of the error."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RegistryError(f"{where}: torn or not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise RegistryError(f"{where}: expected a JSON object, found a {type(value).__name__}")
    return value


def lock_exclusively(path: Path) -> int:
    """Takes the lock, which ends with this process at the latest; returns its descriptor.

    Raises:
        RegistryError: Another process holds it.
    """
    make_folder(path.parent)
    with map_disk_errors("locking", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise RegistryError(
            f"{path.parent}: another trainer (process {holder or 'unknown'}) writes to this registry; "
            "stop it, or give this one a registry.path or registry.model_name of its own"
        ) from exc
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
