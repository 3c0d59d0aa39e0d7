"""Trains the defect model; usable on its own, without Kafka or Redis.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainer.errors import CheckpointError
from trainer.learn.config import ModelSettings
from trainer.learn.device import find_device, prepare_thread
from trainer.learn.engine.checkpoint import load_checkpoint, save_checkpoint
from trainer.learn.engine.compatibility import check_architecture
from trainer.learn.engine.feed import feed_of
from trainer.learn.engine.loader import BatchLoader
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.engine.random_state import left_as_it_was, seed_epoch
from trainer.learn.engine.run import Run
from trainer.learn.engine.validation_pass import Validation, validate
from trainer.learn.engine.workers import Workers
from trainer.learn.model.network import SteelDefectLSTM
from trainer.learn.report.training_metrics import EpochResult, TrainingResult

__all__ = ["LSTMTrainer", "TrainingResult"]


class LSTMTrainer:
    """Trains a model: from scratch, or further when its weights were loaded.

    The result depends on the configuration, the data and the starting weights alone, and on a CPU to the bit: not on
    the number of workers, for the same ``num_slices`` not on that of processes, nor on interruptions.

    Normalisation of a model that was trained before is kept (``finetune_normalisation``): its weights are worth
    something for the numbers they learned from, and refitting shifts all of them at once. By ``auto`` it is fitted
    anew where it hides a sensor: one that has moved so far that its values clip, or that was dead and came to life.

    Args:
        model: Moved to the device.
        settings: Of the whole configuration file.
        device: None: CUDA, MPS or CPU, whatever there is.
    """

    def __init__(
        self, model: SteelDefectLSTM, settings: ModelSettings, device: torch.device | None = None
    ) -> None:
        prepare_thread(settings.training.num_threads)
        self._settings = settings
        self._device = device or find_device()
        self._model = model.to(self._device)
        self._run: Run | None = None
        self._loaded: tuple[Path, dict[str, Any]] | None = None

    def train(
        self,
        train_loader: BatchLoader,
        val_loader: BatchLoader,
        start_epoch: int = 0,
        *,
        run_dir: Path | None = None,
        tensorboard_dir: Path | None = None,
        on_epoch: Callable[[EpochResult], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        resume: bool = False,
        progress: bool | None = None,
    ) -> TrainingResult:
        """Trains until early stopping, the last epoch, or a request to stop.

        In a process that `torchrun` has started, inside `distributed.joined()`, all processes train one model: each
        reads the same loaders and computes its share of every batch; the first one writes.

        Args:
            train_loader: The training part: a `WindowLoader`, or any loader of torch that hands out what
                `batch.Batch.of` reads.
            val_loader: The validation part: scheduler and early stopping look at it.
            start_epoch: Epochs that count as done before.
            run_dir: Gets ``metrics.csv``, ``timings.csv`` and checkpoints; None: nothing is written.
            tensorboard_dir: Gets the same figures for TensorBoard, which must be installed (extra ``tensorboard``);
                one folder a run.
            on_epoch: Called after each epoch, when its checkpoint is on disk.
            should_stop: Asked after each optimizer step; the complete state is saved before it ends (an iterable
                loader has no positions: its epoch begins anew).
            resume: Go on from the newest checkpoint in ``run_dir``, if there is one: same weights at the end,
                same ``metrics.csv`` as without the interruption. False: begin anew; what an earlier run left in
                ``run_dir`` and ``tensorboard_dir`` is removed.
            progress: Show a bar on stderr; None: when that is a terminal.

        Raises:
            NotEnoughDataError: A part is empty or has one class only.
            ModelInputError: Batches do not fit the model.
            TrainingSetupError: The configuration cannot train here, or TensorBoard is not installed.
            TrainingDivergedError: Loss or gradient is not finite.
            CheckpointError: What a folder holds cannot be resumed from.
            DiskUnavailableError: A folder cannot be written.
        """
        prepare_thread(self._settings.training.num_threads)
        with left_as_it_was(), _thawed_after(self._model):
            # Classes are counted and normalisation is fitted on what the loaders hand out first.
            seed_epoch(self._settings.training.seed, 0)
            self._run = Run(
                self._model,
                self._settings,
                self._device,
                train_feed=feed_of(train_loader, "training"),
                val_feed=feed_of(val_loader, "validation"),
                run_dir=run_dir,
                tensorboard_dir=tensorboard_dir,
                start_epoch=start_epoch,
            )
            loaded, self._loaded = self._loaded, None
            return self._run.train(
                on_epoch or (lambda _: None),
                should_stop or (lambda: False),
                loaded=loaded,
                resume=resume,
                progress=progress,
            )

    def validate(self, val_loader: BatchLoader) -> Validation:
        """Scores the model at a probability of 0.5, as each epoch does, but with its linear share.

        Before the first training a defect counts in the loss by the classes of this part.

        Raises:
            NotEnoughDataError: The part is empty or has one class only.
            ModelInputError: Batches do not fit the model.
        """
        feed = feed_of(val_loader, "validation")
        counts = {"num_good": feed.num_good, "num_defects": feed.num_defects}
        loss = self._run.loss if self._run else DefectLoss(self._settings.loss, **counts)
        with Workers(self._model, 1, num_threads=self._settings.training.num_threads) as workers:
            return validate(workers, feed, loss, self._device)

    def save_checkpoint(self, path: Path) -> None:
        """Saves the complete state of the training, in progress or finished.

        Raises:
            CheckpointError: Nothing was trained yet.
            DiskUnavailableError: The folder cannot be written.
        """
        if self._run is None:
            raise CheckpointError(f"{path}: nothing was trained yet: there is no state to save")
        save_checkpoint(path, self._run.state())

    def load_checkpoint(self, path: Path) -> None:
        """Reads a complete state: weights at once, the rest when `train` goes on from there.

        Raises:
            CheckpointError: The file cannot be read, or is of another architecture; differing fields are named.
        """
        state = load_checkpoint(path)
        check_architecture(str(path), state.get("made_with", {}), self._model)
        try:
            self._model.load_state_dict(state["model"])
        except (KeyError, RuntimeError) as exc:
            raise CheckpointError(f"{path}: not a checkpoint of this version: {exc}") from exc
        self._loaded = path, state


@contextmanager
def _thawed_after(model: SteelDefectLSTM) -> Iterator[None]:
    """Lets what this training freezes move in the next one; what its owner has frozen stays so."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
