"""One training: epochs, steps, checkpoints, and the way back into the middle of it.

Each optimizer step, in this order:

    1. the gradients of all slices, added up in order
    2. clip, refuse what is not finite, move the weights
    3. the warm-up of the learning rate
    4. save the complete state, if it is due

and after the last step of an epoch: validation, scheduler, early stopping, files, the complete state, `on_epoch`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch

from trainer.errors import CheckpointError, NotEnoughDataError
from trainer.learn.config import ModelSettings
from trainer.learn.engine.arithmetic import arithmetic
from trainer.learn.engine.batch import Batch
from trainer.learn.engine.checkpoint import ModelCheckpoint
from trainer.learn.engine.compatibility import check_fits, differing_fields, made_with
from trainer.learn.engine.distributed import Group
from trainer.learn.engine.early_stopping import EarlyStopping, copy_weights
from trainer.learn.engine.feed import Feed
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.engine.optim import build_optimizer
from trainer.learn.engine.precision import Precision
from trainer.learn.engine.prefit import fit_at_once
from trainer.learn.engine.random_state import random_state, seed_epoch, set_random_state
from trainer.learn.engine.schedule import Schedule
from trainer.learn.engine.step import CLIPPED_NORM, LOSS, NORM, NUM_CLIPPED, Stepper
from trainer.learn.engine.validation_pass import Validation, validate
from trainer.learn.engine.workers import WorkerChoice, Workers
from trainer.learn.model.network import SteelDefectLSTM
from trainer.learn.report.memory import gpu_mb, rss_mb
from trainer.learn.report.progress import ProgressBar
from trainer.learn.report.tensorboard import TensorBoardFiles
from trainer.learn.report.training_metrics import EpochResult, StopReason, TrainingMetrics, TrainingResult

log = structlog.get_logger()

# Slices of a batch on a CPU: two cores share it, and one core loses an eighth by it.
CPU_SLICES = 2


@dataclass(slots=True)
class Position:
    """Where a training is: behind so many batches of an epoch, behind so many optimizer steps in all."""

    epoch: int
    batch: int = 0
    step: int = 0


@dataclass(slots=True)
class _Tally:
    """What an epoch has done so far; the first two go on after a restart."""

    num_steps: int = 0
    num_windows: int = 0
    windows_here: int = 0
    seconds_here: list[float] = field(default_factory=list)


class Run:
    """One call of `LSTMTrainer.train`.

    Attributes:
        loss: Weighted by the classes of the training part.

    Args:
        start_epoch: Epochs that count as done before.
    """

    def __init__(
        self,
        model: SteelDefectLSTM,
        settings: ModelSettings,
        device: torch.device,
        *,
        train_feed: Feed,
        val_feed: Feed,
        run_dir: Path | None,
        tensorboard_dir: Path | None,
        start_epoch: int,
    ) -> None:
        self._model, self._settings, self._device = model, settings, device
        self._train_feed, self._val_feed, self._run_dir = train_feed, val_feed, run_dir
        self._made_with = made_with(settings, model, train_feed, val_feed)
        for feed in (train_feed, val_feed):
            feed.to(device)
        self._group = Group.current()
        self.loss = DefectLoss(
            settings.loss, num_good=train_feed.num_good, num_defects=train_feed.num_defects
        )
        model.freeze(settings.training.freeze_layers)
        self._optimizer = build_optimizer(model, settings.optimizer)
        self._schedule = Schedule(self._optimizer, settings.scheduler)
        self._precision = Precision(settings.training.amp, device, model.config.hidden_size)
        self._stopping = EarlyStopping(settings.early_stopping)
        self._metrics = TrainingMetrics(run_dir if self._group.writes else None)
        self._tensorboard = TensorBoardFiles(tensorboard_dir if self._group.writes else None)
        self._files = (
            None
            if run_dir is None
            else ModelCheckpoint(run_dir, settings.checkpoint, writes=self._group.writes)
        )
        self._workers = Workers(model, self._most_workers(), num_threads=settings.training.num_threads)
        tried = settings.training.num_workers == "auto"
        self._choice = WorkerChoice(len(self._workers), tried=tried)
        self._stepper = Stepper(
            model,
            self._workers,
            loss=self.loss,
            optimizer=self._optimizer,
            precision=self._precision,
            config=settings.training,
            num_slices=self._first_slices(),
            group=self._group,
            device=device,
            sync=device.type != "cuda",
        )
        self._position = Position(start_epoch + 1)
        self._tally = _Tally()
        self._inexact: list[str] = []
        self._ended: dict[str, Any] | None = None
        # Of the global generators, in the middle of an epoch; set once the batches before it are drawn again.
        self._waiting_random: dict[str, Any] | None = None

    def train(
        self,
        on_epoch: Callable[[EpochResult], None],
        should_stop: Callable[[], bool],
        *,
        loaded: tuple[Path, dict[str, Any]] | None,
        resume: bool,
        progress: bool | None,
    ) -> TrainingResult:
        """Trains to the end, from a state that was loaded, from the newest checkpoint, or from the beginning."""
        started = time.perf_counter()
        weights_at_start = copy_weights(self._model)
        if loaded is None and resume and self._files is not None:
            loaded = self._files.load_last()
        if loaded is None:
            self._begin_anew()
        else:
            self._load(*loaded)
        begun = repr((self._made_with, self._settings.training.max_epochs, self._position))
        self._group.check_alike(begun, self._model.state_dict().values(), self._device)
        bar = ProgressBar(progress, self._settings.training.max_epochs, shown_here=self._group.writes)
        self._tensorboard.begin(self._position.epoch, anew=loaded is None)
        with self._workers, self._tensorboard, bar:
            reason = self._run_epochs(bar, on_epoch, should_stop)
            self._ended = self.state() | {"model": copy_weights(self._model)}
            if not self._stopping.restore(self._model):
                self._model.load_state_dict(weights_at_start)
        self._model.eval()
        self._model.set_generator(None)
        return TrainingResult(
            epochs=tuple(self._metrics.epochs),
            best_epoch=self._stopping.best_epoch,
            best_value=self._stopping.best_value,
            stop_reason=reason,
            pos_weight=self.loss.pos_weight,
            seconds=time.perf_counter() - started,
            inexact=tuple(self._inexact),
        )

    def state(self) -> dict[str, Any]:
        """The complete state, as plain data and tensors; behind the end with the weights of the last step."""
        if self._ended is not None:
            return self._ended
        return {
            "made_with": self._made_with,
            "arithmetic": arithmetic(self._device, self._settings.training.num_threads),
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._precision.state_dict(),
            "early_stopping": self._stopping.state_dict(),
            "epochs": [dataclasses.asdict(epoch) for epoch in self._metrics.epochs],
            "position": dataclasses.asdict(self._position),
            "tally": {"num_steps": self._tally.num_steps, "num_windows": self._tally.num_windows},
            "totals": self._stepper.totals.tolist(),
            "num_slices": self._stepper.num_slices,
            "random": random_state(),
            "inexact": self._inexact,
        }

    # Epochs

    def _run_epochs(
        self, bar: ProgressBar, on_epoch: Callable[[EpochResult], None], should_stop: Callable[[], bool]
    ) -> StopReason:
        while self._position.epoch <= self._settings.training.max_epochs:
            if self._stopping.should_stop:
                return "early_stopping"
            started = time.perf_counter()
            bar.begin_epoch(self._position.epoch)
            if not self._train_steps(bar, should_stop):
                return "stopped"
            trained = time.perf_counter()
            result = self._end_epoch(started, trained)
            bar.end_epoch(result)
            on_epoch(result)
        return "early_stopping" if self._stopping.should_stop else "max_epochs"

    def _train_steps(self, bar: ProgressBar, should_stop: Callable[[], bool]) -> bool:
        """Runs the steps of an epoch, or what is left of them; False: a stop was asked for."""
        self._workers.train(True)
        for batches in self._steps_of_epoch():
            began = time.perf_counter()
            self._stepper.step(batches, self._position.epoch, self._position.batch, self._choice.number)
            self._schedule.end_step()
            num_windows = sum(map(len, batches))
            self._step_done(len(batches), num_windows, time.perf_counter() - began)
            bar.advance(self._position.batch)
            stops = self._group.any(should_stop(), self._device)
            if self._may_save_within_epoch() and (stops or self._is_due_after_step()):
                self._save()
            if stops:
                return False
        self._stepper.check()
        if self._tally.num_steps == 0:
            raise NotEnoughDataError(
                f"the training part handed out no window in epoch {self._position.epoch}"
            )
        return True

    def _steps_of_epoch(self) -> Iterator[list[Batch]]:
        """The batches of each optimizer step, from the position on."""
        epoch, first = self._position.epoch, self._position.batch
        if first == 0:
            self._tally = _Tally()
            self._stepper.begin_epoch()
        seed_epoch(self._settings.training.seed, epoch)
        batches = self._train_feed.batches(epoch, first)
        if self._waiting_random is not None:
            set_random_state(self._waiting_random)
            self._waiting_random = None
        each = self._settings.training.accumulate_batches
        while step := list(itertools.islice(batches, each)):
            yield step

    def _step_done(self, num_batches: int, num_windows: int, seconds: float) -> None:
        self._position.batch += num_batches
        self._position.step += 1
        self._tally.num_steps += 1
        self._tally.num_windows += num_windows
        self._tally.windows_here += num_windows
        self._tally.seconds_here.append(seconds)
        self._choice.step_done(seconds / num_windows)

    def _end_epoch(self, started: float, trained: float) -> EpochResult:
        validation = validate(self._workers, self._val_feed, self.loss, self._device)
        monitored = validation.figures()[self._settings.early_stopping.monitor]
        learning_rates = self._schedule.learning_rates
        self._schedule.end_epoch(validation.loss)
        is_best = self._stopping.update(self._position.epoch, monitored, self._model)
        result = self._result(validation, learning_rates, is_best, started, trained)
        self._metrics.add(result)
        self._tensorboard.add(result)
        self._position = Position(self._position.epoch + 1, 0, self._position.step)
        if self._files is not None:
            if is_best:
                weights = {"made_with": self._made_with, "model": self._model.state_dict()}
                self._files.save_best(result.epoch, weights)
            if self._files.is_due_after_epoch(result.epoch):
                self._save()
        return result

    def _result(
        self,
        validation: Validation,
        learning_rates: dict[str, float],
        is_best: bool,
        started: float,
        trained: float,
    ) -> EpochResult:
        totals, tally = self._stepper.totals.tolist(), self._tally
        batch_ms = [1000 * each for each in tally.seconds_here] or [0.0]
        scores = validation.scores
        return EpochResult(
            epoch=self._position.epoch,
            train_loss=totals[LOSS] / tally.num_windows,
            **validation.figures(),
            val_f1_good=scores.f1_good,
            val_precision_good=scores.precision_good,
            val_recall_good=scores.recall_good,
            val_histogram=validation.histogram,
            learning_rate=next(iter(learning_rates.values())),
            grad_norm=totals[NORM] / tally.num_steps,
            grad_norm_clipped=totals[CLIPPED_NORM] / tally.num_steps,
            num_clipped=int(totals[NUM_CLIPPED]),
            is_best=is_best,
            seconds=time.perf_counter() - started,
            sequences_per_s=tally.windows_here / (trained - started),
            batch_ms_median=statistics.median(batch_ms),
            batch_ms_p95=float(np.quantile(batch_ms, 0.95)),
            rss_mb=rss_mb(),
            gpu_mb=gpu_mb(self._device),
            num_workers=self._choice.number,
        )

    def _begin_anew(self) -> None:
        config = self._settings.data_processing
        fit_at_once(self._model, self._train_feed, config, self._device)
        if self._files is not None:
            self._files.begin_anew()
        self._metrics.write()

    # Checkpoints

    def _may_save_within_epoch(self) -> bool:
        """A loader without positions begins its epoch anew, so only the state before that epoch is of use."""
        return self._files is not None and self._train_feed.is_exact

    def _is_due_after_step(self) -> bool:
        return self._files is not None and self._files.is_due_after_step(self._position.step)

    def _save(self) -> None:
        self._stepper.check()
        if self._files is not None and self._group.writes:
            self._files.save_last(self.state())

    def _load(self, path: Path, state: dict[str, Any]) -> None:
        try:
            check_fits(str(path), state["made_with"], self._made_with)
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
            self._precision.load_state_dict(state["scaler"])
            self._stopping.load_state_dict(state["early_stopping"])
            epochs = [
                EpochResult(**(e | {"val_histogram": tuple(e["val_histogram"])})) for e in state["epochs"]
            ]
            self._position, self._tally = Position(**state["position"]), _Tally(**state["tally"])
            self._stepper.begin_epoch(state["totals"])
            self._stepper.num_slices = state["num_slices"]
            self._waiting_random = state["random"] if self._position.batch else None
            found, before = state["arithmetic"], state["inexact"]
        except (KeyError, TypeError, ValueError, RuntimeError) as exc:
            raise CheckpointError(f"{path}: not a checkpoint of this version: {exc}") from exc
        self._metrics = TrainingMetrics(self._metrics.folder, epochs)
        self._metrics.write()
        self._tell_inexact(found, before)

    def _tell_inexact(self, found: dict[str, Any], before: list[str]) -> None:
        """What made it inexact once is told to the end: the bits do not come back."""
        now = arithmetic(self._device, self._settings.training.num_threads)
        self._inexact = before + differing_fields(found, now)
        if self._device.type != "cpu":
            self._inexact.append("only a CPU adds up in the same order again")
        if not self._train_feed.is_exact:
            self._inexact.append("an iterable loader has no positions: its epoch begins anew")
        self._inexact = list(dict.fromkeys(self._inexact))
        if self._inexact:
            log.warning("resumed, but not to the bit", reasons=self._inexact)

    # Setting up

    def _first_slices(self) -> int:
        configured = self._settings.training.num_slices
        if configured != "auto":
            return configured
        return math.lcm(CPU_SLICES if self._device.type == "cpu" else 1, self._group.size)

    def _most_workers(self) -> int:
        configured = self._settings.training.num_workers
        if configured != "auto":
            return configured
        if self._device.type != "cpu" or self._group.size > 1:
            return 1
        return min(self._first_slices(), len(os.sched_getaffinity(0)))
