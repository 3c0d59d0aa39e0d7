"""The training loop.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from trainer.errors import CheckpointError, NotEnoughDataError, TrainingDivergedError
from trainer.learn.checkpoint import BEST, LAST, check_fits, load_checkpoint, save_checkpoint
from trainer.learn.config import ModelSettings
from trainer.learn.device import find_device, prepare_thread
from trainer.learn.early_stopping import EarlyStopping, copy_weights
from trainer.learn.evaluate import Scores, evaluate
from trainer.learn.loader import Batch, BatchLoader, WindowLoader
from trainer.learn.loss import WeightedBCELoss
from trainer.learn.model import SteelDefectLSTM
from trainer.learn.optim import ClippedAdam
from trainer.learn.training_metrics import EpochResult, TrainingMetrics

# Keeps the generators of two seeds apart for as many epochs.
EPOCH_SEED_STRIDE = 1_000_003
StopReason = Literal["early_stopping", "max_epochs", "stopped"]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished or stopped training; the model holds the weights of ``best_epoch``.

    Attributes:
        best_epoch: None: stopped within the first epoch, the model is as it came.
        best_value: The monitored figure in that epoch.
        pos_weight: What a defective window counted in the loss.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int | None
    best_value: float | None
    stop_reason: StopReason
    pos_weight: float
    seconds: float


class LSTMTrainer:
    """Trains a model: from scratch, or further when its weights were loaded.

    On the CPU the result depends on the seed, the data and the starting weights alone.

    Normalisation of a model that was trained before is kept unless ``finetune_normalisation`` is ``refit``: its
    weights are worth something for the numbers they learned from, and refitting shifts all of them at once.
    Refit when inputs have drifted so far that they clip, or when a sensor that was dead came to life.

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

    def train(
        self,
        train_loader: BatchLoader,
        val_loader: BatchLoader,
        *,
        run_dir: Path | None = None,
        on_epoch: Callable[[EpochResult], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        resume: bool = False,
    ) -> TrainingResult:
        """Trains until early stopping, the last epoch, or a request to stop.

        Args:
            train_loader: The training part.
            val_loader: The validation part: scheduler and early stopping look at it.
            run_dir: Gets ``metrics.csv``, ``timings.csv`` and checkpoints; None: nothing is written.
            on_epoch: Called after each epoch, when its checkpoint is on disk.
            should_stop: Asked after each step; an epoch that it interrupts is not counted.
            resume: Go on after the last whole epoch in ``run_dir``, if there is one: same weights at the end,
                same ``metrics.csv`` as without the interruption.

        Raises:
            NotEnoughDataError: A part is empty or has one class only.
            ModelInputError: Batches do not fit the model.
            TrainingDivergedError: Loss or gradient is not finite.
            CheckpointError: ``run_dir`` cannot be written, or what it holds cannot be resumed from.
        """
        prepare_thread(self._settings.training.num_threads)
        run = _Run(
            self._model,
            self._settings,
            self._device,
            train_loader=train_loader,
            val_loader=val_loader,
            run_dir=run_dir,
        )
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            return run.train(on_epoch, should_stop or (lambda: False), resume=resume)


class _Run:
    """One call of `LSTMTrainer.train`."""

    def __init__(
        self,
        model: SteelDefectLSTM,
        settings: ModelSettings,
        device: torch.device,
        *,
        train_loader: BatchLoader,
        val_loader: BatchLoader,
        run_dir: Path | None,
    ) -> None:
        self._model, self._settings, self._device = model, settings, device
        self._train_loader, self._val_loader, self._run_dir = train_loader, val_loader, run_dir
        num_good, num_defects = _class_counts(train_loader, "training")
        self._counts = (num_good, num_defects, *_class_counts(val_loader, "validation"))
        self._loss = WeightedBCELoss(settings.loss, num_good=num_good, num_defects=num_defects)
        self._optimizer = ClippedAdam(
            model, settings.optimizer, settings.scheduler, grad_clip_norm=settings.training.grad_clip_norm
        )
        self._stopping = EarlyStopping(settings.early_stopping)
        self._metrics = TrainingMetrics(run_dir)

    def train(
        self, on_epoch: Callable[[EpochResult], None] | None, should_stop: Callable[[], bool], *, resume: bool
    ) -> TrainingResult:
        started = time.perf_counter()
        weights_at_start = copy_weights(self._model)
        if not (resume and self._load()):
            self._fit_normalisation()
        reason = self._run_epochs(on_epoch, should_stop)
        if not self._stopping.restore(self._model):
            self._model.load_state_dict(weights_at_start)
        self._model.eval()
        return TrainingResult(
            epochs=tuple(self._metrics.epochs),
            best_epoch=self._stopping.best_epoch,
            best_value=self._stopping.best_value,
            stop_reason=reason,
            pos_weight=self._loss.pos_weight,
            seconds=time.perf_counter() - started,
        )

    def _run_epochs(
        self, on_epoch: Callable[[EpochResult], None] | None, should_stop: Callable[[], bool]
    ) -> StopReason:
        for epoch in range(len(self._metrics.epochs) + 1, self._settings.training.max_epochs + 1):
            if self._stopping.should_stop:
                return "early_stopping"
            result = self._run_epoch(epoch, should_stop)
            if result is None:
                return "stopped"
            self._metrics.add(result)
            self._save(result)
            if on_epoch:
                on_epoch(result)
        return "early_stopping" if self._stopping.should_stop else "max_epochs"

    def _run_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> EpochResult | None:
        started = time.perf_counter()
        # Order and dropout depend on seed and epoch alone: an epoch run again after a restart is the same.
        torch.manual_seed(self._settings.training.seed * EPOCH_SEED_STRIDE + epoch)
        if isinstance(self._train_loader, WindowLoader):
            self._train_loader.set_epoch(epoch)
        learning_rate = self._optimizer.learning_rate
        steps = self._train_steps(should_stop)
        if steps is None:
            return None
        trained = time.perf_counter()
        val_loss, scores = self._validate()
        figures = {"val_loss": val_loss, "val_auc_roc": scores.auc_roc, "val_auc_pr": scores.auc_pr}
        monitored = figures[self._settings.early_stopping.monitor]
        self._optimizer.end_epoch(val_loss)
        is_best = self._stopping.update(epoch, monitored, self._model)
        return EpochResult(
            epoch=epoch,
            train_loss=steps.loss_sum / steps.num_windows,
            **figures,
            learning_rate=learning_rate,
            grad_norm=steps.norm_sum / steps.num_steps,
            num_clipped=steps.num_clipped,
            is_best=is_best,
            seconds=time.perf_counter() - started,
            sequences_per_s=steps.num_windows / (trained - started),
        )

    def _train_steps(self, should_stop: Callable[[], bool]) -> _Steps | None:
        self._model.train()
        steps = _Steps()
        for x_NTF, mask_NT, y_N in self._batches(self._train_loader):
            if should_stop():
                return None
            loss = self._loss(self._model(x_NTF, mask_NT), y_N)
            norm = self._optimizer.step(loss)
            steps.num_steps += 1
            steps.num_windows += len(y_N)
            steps.loss_sum += loss.item() * len(y_N)
            steps.norm_sum += norm
            steps.num_clipped += norm > self._settings.training.grad_clip_norm
        return steps

    @torch.no_grad()
    def _validate(self) -> tuple[float, Scores]:
        self._model.eval()
        parts = [
            (self._model(x_NTF, mask_NT), y_N) for x_NTF, mask_NT, y_N in self._batches(self._val_loader)
        ]
        logits_N, y_N = torch.cat([logits for logits, _ in parts]), torch.cat([y for _, y in parts])
        loss = self._loss(logits_N, y_N).item()
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"the validation loss is {loss}: lower the learning rate")
        prob_N = torch.sigmoid(logits_N.double()).cpu().numpy()
        return loss, evaluate(y_N.cpu().numpy(), prob_N, threshold=0.5)

    def _batches(self, loader: BatchLoader) -> Iterator[Batch]:
        for x_NTF, mask_NT, y_N in loader:
            yield x_NTF.to(self._device), mask_NT.to(self._device), y_N.to(self._device)

    def _fit_normalisation(self) -> None:
        config = self._settings.data_processing
        if self._model.is_normalised and config.finetune_normalisation == "keep":
            return
        if isinstance(self._train_loader, WindowLoader):
            x_NTF, mask_NT = self._train_loader.x_NTF, self._train_loader.mask_NT
        else:
            parts = list(self._train_loader)
            x_NTF, mask_NT = torch.cat([x for x, _, _ in parts]), torch.cat([mask for _, mask, _ in parts])
        self._model.fit_normalisation(x_NTF.to(self._device), mask_NT.to(self._device), config)

    def _save(self, result: EpochResult) -> None:
        if self._run_dir is None:
            return
        made_with = self._made_with()
        weights = {"made_with": made_with, "model": self._model.state_dict()}
        if result.is_best:
            save_checkpoint(self._run_dir / BEST, weights)
        state = {
            "optimizer": self._optimizer.state_dict(),
            "early_stopping": self._stopping.state_dict(),
            "epochs": [dataclasses.asdict(epoch) for epoch in self._metrics.epochs],
        }
        save_checkpoint(self._run_dir / LAST, weights | state)

    def _load(self) -> bool:
        if self._run_dir is None or not (self._run_dir / LAST).exists():
            return False
        path = self._run_dir / LAST
        state = load_checkpoint(path)
        try:
            check_fits(path, state["made_with"], self._made_with())
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._stopping.load_state_dict(state["early_stopping"])
            self._metrics = TrainingMetrics(self._run_dir, [EpochResult(**e) for e in state["epochs"]])
        except (KeyError, TypeError) as exc:
            raise CheckpointError(f"{path}: not a checkpoint of this version: {exc}") from exc
        return True

    def _made_with(self) -> dict[str, Any]:
        # What a resumed run must share with the one it goes on with; a later last epoch contradicts nothing.
        sections = self._settings.model_dump(mode="json") | {
            "architecture": self._model.config.model_dump(mode="json")
        }
        fields = {
            f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()
        }
        del fields["training.max_epochs"]
        return fields | {"num_sensors": self._model.num_sensors, "class_counts": list(self._counts)}


@dataclass
class _Steps:
    num_steps: int = 0
    num_windows: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    num_clipped: int = 0


def _class_counts(loader: BatchLoader, part: str) -> tuple[int, int]:
    labels = [y_N for _, _, y_N in loader]
    num_windows = sum(len(y_N) for y_N in labels)
    num_defects = int(sum(float(y_N.sum()) for y_N in labels))
    if num_defects in (0, num_windows):
        raise NotEnoughDataError(
            f"the {part} part needs defective and good windows, "
            f"got {num_defects} defective and {num_windows - num_defects} good"
        )
    return num_windows - num_defects, num_defects
