"""What happened in each epoch, and its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from trainer.disk import map_disk_errors

StopReason = Literal["early_stopping", "max_epochs", "stopped"]
METRICS = "metrics.csv"
TIMINGS = "timings.csv"
# metrics.csv repeats for a seed; what the machine adds stands in timings.csv.
TIMING_FIELDS = (
    *("seconds", "sequences_per_s", "batch_ms_median", "batch_ms_p95", "rss_mb", "gpu_mb", "num_workers"),
)


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch.

    Attributes:
        learning_rate: Of the first parameter group (the LSTM, unless it is frozen), behind the last step of the
            epoch and before the scheduler looks at it.
        grad_norm: Mean over the steps, before clipping.
        grad_norm_clipped: The same, after clipping.
        num_clipped: Steps whose gradient was clipped.
        val_f1: And the scores beside it: at a probability of 0.5.
        val_histogram: Windows by their probability, in ten bins of 0.1.
        is_best: Whether the monitored figure improved.
        seconds: Training part and validation.
        sequences_per_s: Windows through the training part a second.
        batch_ms_median: Milliseconds of an optimizer step, as the host sees them.
        rss_mb: Resident memory of the process at the end of the epoch, MiB.
        gpu_mb: Most memory that tensors took on a CUDA device so far, MiB; 0 without one.
        num_workers: Threads that computed slices at the end of the epoch.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_auc_roc: float
    val_auc_pr: float
    val_f1: float
    val_precision: float
    val_recall: float
    val_accuracy: float
    val_brier: float
    val_ece: float
    val_f1_good: float
    val_precision_good: float
    val_recall_good: float
    val_histogram: tuple[int, ...]
    learning_rate: float
    grad_norm: float
    grad_norm_clipped: float
    num_clipped: int
    is_best: bool
    seconds: float
    sequences_per_s: float
    batch_ms_median: float
    batch_ms_p95: float
    rss_mb: float
    gpu_mb: float
    num_workers: int


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished or stopped training; the model holds the weights of ``best_epoch``.

    Attributes:
        best_epoch: None: stopped within the first epoch, the model is as it came.
        best_value: The monitored figure in that epoch.
        pos_weight: What a defective window counted in the loss.
        inexact: Why a resumed training need not end with the bits of one that was never stopped; empty: it does.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int | None
    best_value: float | None
    stop_reason: StopReason
    pos_weight: float
    seconds: float
    inexact: tuple[str, ...] = ()


class TrainingMetrics:
    """The epochs of a run, in memory and, given a folder, in ``metrics.csv`` and ``timings.csv``.

    The files are written anew with each epoch, so that a resumed run leaves no row of the epochs it repeats.
    """

    def __init__(self, folder: Path | None, epochs: Sequence[EpochResult] = ()) -> None:
        self.folder = folder
        self.epochs = list(epochs)

    def add(self, result: EpochResult) -> None:
        """Notes an epoch.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        self.epochs.append(result)
        self.write()

    def write(self) -> None:
        """Writes the files.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        if self.folder is None:
            return
        names = [field.name for field in fields(EpochResult)]
        self._write_file(self.folder / METRICS, [name for name in names if name not in TIMING_FIELDS])
        self._write_file(self.folder / TIMINGS, ["epoch", *TIMING_FIELDS])

    def _write_file(self, path: Path, names: list[str]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(getattr(epoch, name)) for name in names] for epoch in self.epochs)
        temporary = path.with_name(f".{path.name}")
        with map_disk_errors("writing", path):
            temporary.write_text(text.getvalue(), encoding="utf-8")
            temporary.replace(path)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(int(value)) if isinstance(value, int) else repr(value)
