"""The state of the cycles on disk: a trainer that is killed goes on where it was.

<registry>/<model_name>/cycle/
  state.json                     the one record: the cycle in progress or the last one, and what is news
  <number>/dataset.json          the frozen manifest of the cycle in progress
  <number>/run/                  checkpoints and metrics of its training
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from trainer import disk
from trainer.cycle.state import FORMAT, Cycle, State
from trainer.data.dataset import DatasetManifest
from trainer.errors import DiskUnavailableError, RegistryError

log = structlog.get_logger()


class CycleJournal:
    """Reads and writes the state.

    What it has written is on disk before the call returns. While the disk takes nothing, `note` keeps a state in
    memory, and it is written with the next one.

    Args:
        folder: Of one model in the registry.

    Raises:
        RegistryError: From every method: a file is torn, or a newer version wrote it.
        DiskUnavailableError: From every method that writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cycle"
        self._file = self._folder / "state.json"
        self._former = folder / "cycles"
        self._state: State | None = None

    @property
    def state(self) -> State:
        """As it was last written."""
        if self._state is None:
            fields = disk.read_json_if_there(self._file)
            self._state = self._from_former_version() if fields is None else self._parsed(fields)
        return self._state

    def write(self, state: State) -> None:
        """Writes the state: readers see the old one or the new one."""
        disk.make_folder(self._folder)
        disk.write_file(self._file, state.model_dump_json().encode())
        self._state = state

    def note(self, state: State) -> None:
        """Writes the state if the disk takes it, else with the next one."""
        self._state = state
        try:
            self.write(state)
        except DiskUnavailableError as exc:
            log.warning("state kept in memory", error=str(exc))

    def freeze(self, cycle: Cycle, manifest: DatasetManifest) -> None:
        """Keeps the frozen manifest of a cycle."""
        folder = self._folder_of(cycle)
        disk.make_folder(folder)
        disk.write_file(folder / "dataset.json", manifest.model_dump_json().encode())

    def manifest(self, cycle: Cycle) -> DatasetManifest:
        """The frozen manifest of a cycle.

        Raises:
            RegistryError: It is missing or torn.
        """
        path = self._folder_of(cycle) / "dataset.json"
        try:
            return DatasetManifest.model_validate(disk.read_json(path))
        except ValidationError as exc:
            raise RegistryError(f"{path}: {exc}") from exc

    def run_dir(self, cycle: Cycle) -> Path:
        """Where the training of a cycle keeps its state."""
        return self._folder_of(cycle) / "run"

    def progress(self, cycle: Cycle) -> str:
        """Which checkpoint a training would go on from, as a text that differs when it is another one."""
        folder = self.run_dir(cycle)
        with disk.map_disk_errors("reading", folder):
            written = [path.stat().st_mtime_ns for path in folder.glob("*/last.pt")]
        return str(max(written)) if written else ""

    def begin_training_anew(self, cycle: Cycle) -> None:
        """Removes the checkpoints of a cycle."""
        if self.run_dir(cycle).exists():
            disk.remove_folder(self.run_dir(cycle))

    def clear(self) -> None:
        """Removes the folders of all cycles but the one in progress."""
        kept = self.state.in_progress
        with disk.map_disk_errors("clearing", self._folder):
            folders = [path for path in self._folder.glob("[0-9]*") if path.is_dir()]
        for path in folders:
            if kept is None or path.name != str(kept.number):
                disk.remove_folder(path)
        if self._folder.exists():
            disk.remove_temporary(self._folder)
        if self._former.exists() and self._file.exists():
            disk.remove_folder(self._former)

    def _folder_of(self, cycle: Cycle) -> Path:
        return self._folder / str(cycle.number)

    def _parsed(self, fields: dict[str, Any]) -> State:
        found = fields.get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise RegistryError(
                f"{self._file}: format {found}, this version knows up to {FORMAT}: a newer castloop wrote it; update "
                "this one"
            )
        try:
            return State.model_validate(fields)
        except ValidationError as exc:
            raise RegistryError(f"{self._file}: {exc}") from exc

    def _from_former_version(self) -> State:
        """What an older castloop has left: its last cycle counts, one in progress is begun anew."""
        path = self._former / "last.json"
        last = disk.read_json_if_there(path) or {}
        try:
            number, arrival = int(last.get("number", 0)), int(last.get("arrival", 0))
            ended = last.get("finished_at")
            decided_at = None if ended is None else datetime.fromisoformat(ended)
        except (TypeError, ValueError) as exc:
            raise RegistryError(f"{path}: {exc}") from exc
        in_progress = (self._former / "current").exists()
        return State(
            last_number=number + in_progress, arrival=arrival, arrival_before=arrival, decided_at=decided_at
        )
