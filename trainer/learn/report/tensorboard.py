"""Files for TensorBoard, written after each epoch; needs the extra `tensorboard`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from trainer.disk import map_disk_errors
from trainer.errors import TrainingSetupError
from trainer.learn.report.training_metrics import TIMING_FIELDS, EpochResult


def require_tensorboard() -> None:
    """Tells early what would be missing later.

    Raises:
        TrainingSetupError: TensorBoard is not installed.
    """
    _writer_class()


class TensorBoardFiles:
    """The epochs of a run as TensorBoard shows them: a curve for each figure, by epoch.

    Args:
        folder: One a run; None: nothing is written.

    Raises:
        TrainingSetupError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._writer = folder, None
        if folder is not None:
            require_tensorboard()

    def begin(self, epoch: int, *, anew: bool) -> None:
        """Opens a file for this epoch and those after it.

        Args:
            anew: Remove what an earlier run left; otherwise TensorBoard forgets this epoch and what followed it.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        if self._folder is None:
            return
        with map_disk_errors("writing", self._folder):
            for file in self._folder.glob("events.out.tfevents.*") if anew else ():
                file.unlink()
            self._writer = _writer_class()(self._folder, purge_step=epoch)

    def add(self, result: EpochResult) -> None:
        """Writes an epoch through to the file.

        Raises:
            DiskUnavailableError: The folder cannot be written.
        """
        if self._writer is None:
            return
        with map_disk_errors("writing", self._folder or Path()):
            for tag, value in _scalars(result).items():
                self._writer.add_scalar(tag, value, result.epoch)
            _add_histogram(self._writer, result)
            self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            # Each epoch is through to the file; a failure to write one was told, and would be told here once more.
            with suppress(OSError):
                self._writer.close()


def _scalars(result: EpochResult) -> dict[str, float]:
    names = [field.name for field in fields(result) if field.name not in {"epoch", "val_histogram"}]
    return {_tag(name): float(getattr(result, name)) for name in names}


def _tag(name: str) -> str:
    """TensorBoard puts tags with the same first part into one group."""
    if name in TIMING_FIELDS:
        return f"machine/{name}"
    if name.startswith("val_"):
        return f"validation/{name.removeprefix('val_')}"
    return f"training/{name.removeprefix('train_')}"


def _add_histogram(writer: Any, result: EpochResult) -> None:
    counts, num_bins = np.array(result.val_histogram), len(result.val_histogram)
    middles = (np.arange(num_bins) + 0.5) / num_bins
    writer.add_histogram_raw(
        *("validation/probability", 0.0, 1.0, int(counts.sum())),
        *(float(counts @ middles), float(counts @ middles**2)),
        ((np.arange(num_bins) + 1) / num_bins).tolist(),
        counts.tolist(),
        result.epoch,
    )


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise TrainingSetupError(
            f"TensorBoard is not installed ({exc}): pip install 'castloop[tensorboard]', or leave tensorboard_dir out"
        ) from exc
    return SummaryWriter
