"""What happened in each epoch, and its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import CheckpointError

METRICS = "metrics.csv"
TIMINGS = "timings.csv"
# metrics.csv repeats for a seed; what the machine adds stands in timings.csv.
TIMING_FIELDS = ("seconds", "sequences_per_s")


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch.

    Attributes:
        learning_rate: During the epoch.
        grad_norm: Mean over the steps, before clipping.
        num_clipped: Steps whose gradient was clipped.
        is_best: Whether the monitored figure improved.
        seconds: Training part and validation.
        sequences_per_s: Windows through the training part a second.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_auc_roc: float
    val_auc_pr: float
    learning_rate: float
    grad_norm: float
    num_clipped: int
    is_best: bool
    seconds: float
    sequences_per_s: float


class TrainingMetrics:
    """The epochs of a run, in memory and, given a folder, in ``metrics.csv`` and ``timings.csv``.

    The files are written anew with each epoch, so that a resumed run leaves no row of the epochs it repeats.
    """

    def __init__(self, folder: Path | None, epochs: Sequence[EpochResult] = ()) -> None:
        self._folder = folder
        self.epochs = list(epochs)

    def add(self, result: EpochResult) -> None:
        """Notes an epoch.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self.epochs.append(result)
        if self._folder is None:
            return
        names = list(EpochResult.__dataclass_fields__)
        self._write(METRICS, [name for name in names if name not in TIMING_FIELDS])
        self._write(TIMINGS, ["epoch", *TIMING_FIELDS])

    def _write(self, name: str, fields: list[str]) -> None:
        assert self._folder is not None  # noqa: S101 - for the type checker: add() returned otherwise
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([_cell(getattr(epoch, field)) for field in fields] for epoch in self.epochs)
        temporary = self._folder / f".{name}"
        try:
            temporary.write_text(text.getvalue(), encoding="utf-8")
            temporary.replace(self._folder / name)
        except OSError as exc:
            raise CheckpointError(f"{self._folder / name}: cannot write it: {exc}") from exc


def _cell(value: float | int | bool) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)
