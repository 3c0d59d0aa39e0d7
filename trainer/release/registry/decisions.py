"""The decisions about one model on disk: the outbox, the log and the pointer to the champion.

A decision is taken when its file is in the outbox: one rename. Log and pointer follow; `recover` completes
what a kill left undone. So each decision is there with its `ce_id`, or it never was.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer import disk
from trainer.errors import RegistryError
from trainer.release.registry.event import ModelEvent

# Of the log, which is for people: the file before it is kept beside it, what is older goes.
MAX_LOG_BYTES = 4 * 1024 * 1024


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = Field(ge=1)
    seq: int = Field(ge=1)


class Decisions:
    """What happened, what is not yet published, and which version serves.

    It does not lock: the registry does. Reading is safe beside one writer.

    Args:
        folder: Of one model.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outbox = folder / "outbox"
        self._log = folder / "events.jsonl"
        self._former_log = folder / "events.1.jsonl"
        self._champion = folder / "champion.json"

    def events(self) -> list[ModelEvent]:
        """What the log still holds, the oldest first; it is read whole, so nothing that runs again and again asks."""
        found = []
        for path in (self._former_log, self._log):
            for number, line in enumerate(disk.read_lines(path), start=1):
                where = f"{path}:{number}"
                found.append(_event(disk.parse_json(line, where), where))
        return found

    def outbox(self) -> list[ModelEvent]:
        """What is not yet confirmed as published, in order."""
        found = [(path, disk.read_json_if_there(path)) for path in self._outbox_files()]
        return [_event(fields, str(path)) for path, fields in found if fields is not None]

    def champion_version(self) -> int | None:
        """The version that serves, None before the first promotion."""
        pointer = self._read_pointer()
        return None if pointer is None else pointer.version

    def next_seq(self) -> int:
        """The number of the next event."""
        # The pointer as well: somebody may have removed the log, and an older number would not move it.
        pointer = self._read_pointer()
        told = [int(path.stem) for path in self._outbox_files()]
        return max([self._last_logged(), pointer.seq if pointer else 0, *told]) + 1

    def put(self, event: ModelEvent) -> None:
        """Puts an event into the outbox: from here on it has happened."""
        disk.write_file(self._outbox_file(event), event.model_dump_json().encode())

    def apply(self, event: ModelEvent) -> None:
        """Brings log and pointer up to an event of the outbox; doing it twice changes nothing."""
        if event.seq > self._last_logged():
            self._append(event.model_dump_json())
        pointer = self._read_pointer()
        if event.kind == "promoted" and event.version and (pointer is None or event.seq > pointer.seq):
            moved = _Pointer(version=event.version, seq=event.seq)
            disk.write_file(self._champion, moved.model_dump_json().encode())

    def drop(self, event: ModelEvent) -> None:
        """Takes an event out of the outbox."""
        disk.remove_file(self._outbox_file(event))

    def recover(self, versions: Container[int]) -> None:
        """Completes what a kill left undone.

        Args:
            versions: Those whose files are complete; an event of another one never happened.
        """
        for folder in (self._folder, self._outbox):
            disk.make_folder(folder)
            disk.remove_temporary(folder)
        for event in self.outbox():
            is_complete = event.version is None or event.version in versions
            if is_complete:
                self.apply(event)
            if not is_complete or event.is_published:
                self.drop(event)

    def _append(self, line: str) -> None:
        if disk.size_bytes(self._log) > MAX_LOG_BYTES:
            with disk.map_disk_errors("renaming", self._log):
                disk.rename_synced(self._log, self._former_log)
        disk.append_line(self._log, line)

    def _last_logged(self) -> int:
        for path in (self._log, self._former_log):
            if line := disk.last_line(path):
                return _event(disk.parse_json(line, str(path)), str(path)).seq
        return 0

    def _read_pointer(self) -> _Pointer | None:
        fields = disk.read_json_if_there(self._champion)
        if fields is None:
            return None
        try:
            return _Pointer.model_validate(fields)
        except ValidationError as exc:
            raise RegistryError(f"{self._champion}: it names no version: {exc}") from exc

    def _outbox_files(self) -> list[Path]:
        with disk.map_disk_errors("reading", self._outbox):
            return sorted(self._outbox.glob("[0-9]*.json"))

    def _outbox_file(self, event: ModelEvent) -> Path:
        return self._outbox / f"{event.seq:010d}.json"


def _event(fields: dict[str, Any], where: str) -> ModelEvent:
    try:
        return ModelEvent.model_validate(fields)
    except ValidationError as exc:
        raise RegistryError(f"{where}: not an event: {exc}") from exc
