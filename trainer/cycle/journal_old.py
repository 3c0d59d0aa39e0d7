"""The cycle in progress and the last one, on disk: a killed cycle goes on where it was.

<registry>/<model_name>/cycles/
  last.json             number, end and news base of the last finished cycle
  current/cycle.json    the cycle in progress with its frozen manifest
  current/run/          checkpoints and metrics of its training
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from trainer import disk
from trainer.data.config import DatasetConfig
from trainer.data.dataset import DatasetManifest
from trainer.errors import RegistryError
from trainer.triggers import Trigger

ModelT = TypeVar("ModelT", bound=BaseModel)


class LastCycle(BaseModel):
    """The last finished cycle; number 0 before the first.

    Attributes:
        arrival: Label decisions after this number are news.
    """

    model_config = ConfigDict(frozen=True)

    number: int = 0
    arrival: int = 0
    finished_at: AwareDatetime | None = None


class CurrentCycle(BaseModel):
    """The cycle in progress: what it was started for, and on what.

    Attributes:
        config: How the data set is split; a configuration changed in mid-cycle does not move the parts.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    trigger: Trigger
    started_at: AwareDatetime
    manifest: DatasetManifest
    config: DatasetConfig


class CycleJournal:
    """Reads and writes both.

    Raises:
        RegistryError: From every method: the folder cannot be written, or a file is torn.
    """

    def __init__(self, folder: Path) -> None:
        self._last = folder / "cycles" / "last.json"
        self._current = folder / "cycles" / "current"

    @property
    def run_dir(self) -> Path:
        """Where the training of the current cycle keeps its state."""
        return self._current / "run"

    def last(self) -> LastCycle:
        """The last finished cycle."""
        return self._read(self._last, LastCycle) or LastCycle()

    def current(self) -> CurrentCycle | None:
        """The cycle in progress, None between two."""
        return self._read(self._current / "cycle.json", CurrentCycle)

    def begin(
        self, trigger: Trigger, manifest: DatasetManifest, config: DatasetConfig, now: datetime
    ) -> CurrentCycle:
        """Starts a cycle on a frozen data set."""
        number = self.last().number + 1
        cycle = CurrentCycle(number=number, trigger=trigger, started_at=now, manifest=manifest, config=config)
        self.abandon()
        disk.make_folder(self.run_dir)
        disk.write_file(self._current / "cycle.json", cycle.model_dump_json().encode())
        return cycle

    def finish(self, cycle: CurrentCycle, now: datetime) -> None:
        """Ends a cycle, whatever it decided."""
        last = LastCycle(number=cycle.number, arrival=cycle.manifest.arrival, finished_at=now)
        disk.make_folder(self._last.parent)
        disk.write_file(self._last, last.model_dump_json().encode())
        self.abandon()

    def abandon(self) -> None:
        """Drops the cycle in progress, if there is one; its news stay news."""
        if self._current.exists():
            disk.remove_folder(self._current)

    def _read(self, path: Path, model: type[ModelT]) -> ModelT | None:
        if not path.exists():
            return None
        try:
            return model.model_validate(disk.read_json(path))
        except ValidationError as exc:
            raise RegistryError(f"{path}: {exc}") from exc
