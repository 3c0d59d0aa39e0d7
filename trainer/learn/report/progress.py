"""A progress bar on a terminal."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from trainer.learn.report.training_metrics import EpochResult


class ProgressBar:
    """One line that says how far the training is; silent where stderr is no terminal.

    Args:
        shown: None: when stderr is a terminal.
        max_epochs: The last epoch there can be.
        shown_here: False: another process of the group shows it.
    """

    def __init__(self, shown: bool | None, max_epochs: int, *, shown_here: bool) -> None:
        is_shown = sys.stderr.isatty() if shown is None else shown
        columns = (TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[last]}"))
        self._bar = Progress(
            *columns,
            console=Console(stderr=True),
            disable=not (is_shown and shown_here),
            transient=True,
        )
        self._max_epochs, self._epoch = max_epochs, 0
        self._task = self._bar.add_task("training", last="")

    def begin_epoch(self, epoch: int) -> None:
        """Shows a new epoch."""
        self._epoch = epoch
        self.advance(0)

    def advance(self, num_batches: int) -> None:
        """Shows how many batches of the epoch are done."""
        text = f"epoch {self._epoch} of at most {self._max_epochs}, batch {num_batches}"
        self._bar.update(self._task, description=text)

    def end_epoch(self, result: EpochResult) -> None:
        """Shows what the epoch came to."""
        last = f"val loss {result.val_loss:.4f}, AUC-ROC {result.val_auc_roc:.4f}, {result.sequences_per_s:,.0f}/s"
        self._bar.update(self._task, last=last)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
