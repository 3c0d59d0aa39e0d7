"""Writes that a kill or a power cut cannot tear: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trainer.errors import DiskUnavailableError, RegistryError, RegistryLockedError

# What bears this prefix was never finished, or is being removed: readers pass over it.
TEMPORARY = ".tmp-"
# Of one write of a probe: bounds memory.
PROBE_BYTES = 1024 * 1024
# Read at once from the end of a file, to find its last line.
BLOCK_BYTES = 64 * 1024


@contextmanager
def map_disk_errors(action: str, path: Path) -> Iterator[None]:
    """Translates errors of the operating system; the message names what was done to which path.

    Raises:
        DiskUnavailableError: Whatever it was: it may be mended, and the same call succeed, while we wait.
    """
    try:
        yield
    except OSError as exc:
        raise DiskUnavailableError(f"{path}: {action} failed: {exc.strerror or exc}") from exc


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


def require_room(folder: Path, num_bytes: int) -> None:
    """Writes and removes a file of so many bytes: whether they fit is known before hours of work, not after.

    Raises:
        DiskUnavailableError: They do not fit, or the folder cannot be written.
    """
    path = folder / f"{TEMPORARY}room"
    with map_disk_errors(f"making sure of {num_bytes:,} bytes", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write_synced(path, *itertools.repeat(bytes(PROBE_BYTES), -(-num_bytes // PROBE_BYTES)))
        finally:
            path.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Appends one line; a torn line that an earlier kill left at the end is cut off first."""
    with map_disk_errors("appending", path), path.open("a+b") as file:
        file.truncate(_end_of_last_line(file))
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        sync_folder(path.parent)


def last_line(path: Path) -> str | None:
    """Returns the last finished line, however long the file; None if there is none."""
    with map_disk_errors("reading", path):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        with file:
            end = _end_of_last_line(file)
            start = _end_of_last_line(file, max(0, end - 1))
            file.seek(start)
            return file.read(end - start).decode(errors="replace").rstrip("\n") or None


def _end_of_last_line(file: IO[bytes], size: int | None = None) -> int:
    """The place behind the last newline within the first `size` bytes, 0 if there is none."""
    at = file.seek(0, os.SEEK_END) if size is None else size
    while at > 0:
        start = max(0, at - BLOCK_BYTES)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def size_bytes(path: Path) -> int:
    """Size of a file, 0 if it is missing."""
    with map_disk_errors("reading", path):
        return path.stat().st_size if path.exists() else 0


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
    fields = read_json_if_there(path)
    if fields is None:
        raise RegistryError(f"{path}: it is missing")
    return fields


def read_json_if_there(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object, None if there is no such file (any more).

    Raises:
        RegistryError: It is torn, or not an object; the message names the file.
    """
    with map_disk_errors("reading", path):
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return parse_json(text, str(path))


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
        RegistryLockedError: Another process holds it.
        DiskUnavailableError: It cannot be written.
    """
    make_folder(path.parent)
    with map_disk_errors("locking", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise RegistryLockedError(
            f"{path.parent}: another trainer (process {holder or 'unknown'}) writes to this registry; "
            "stop it, or give this one a registry.path or registry.model_name of its own"
        ) from exc
    try:
        with map_disk_errors("locking", path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)  # the lock goes with it: the next try must not meet it
        raise
    return descriptor
