"""One optimizer step: the gradients of all slices added up in order, clipped, checked, applied.

Shapes: N windows, S slices, P parameters that move, B values of batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from trainer.errors import TrainingDivergedError, TrainingSetupError
from trainer.learn.config import TrainingConfig
from trainer.learn.engine.batch import Batch
from trainer.learn.engine.distributed import Group
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.engine.precision import Precision
from trainer.learn.engine.workers import Workers, batch_counters, moving_buffers
from trainer.learn.model.network import SteelDefectLSTM

log = structlog.get_logger()

MAX_SLICES = 1024
# What the sum of a step holds beside gradients: loss, norm before and after clipping, clipped steps.
LOSS, NORM, CLIPPED_NORM, NUM_CLIPPED = range(4)


@dataclass(frozen=True, slots=True)
class SliceKey:
    """Which slice it is; its dropout depends on that and on nothing else."""

    seed: int
    epoch: int
    batch: int
    place: int

    def generator(self, device: torch.device) -> torch.Generator:
        """The generator of its dropout masks."""
        words = np.random.SeedSequence([self.seed, self.epoch, self.batch, self.place])
        return torch.Generator(device).manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))


class Stepper:
    """Moves the weights of a model, batch by batch.

    Attributes:
        num_slices: Parts that a batch is computed in; doubled when a GPU runs out of memory.
        totals: Of the epoch, by the indices `LOSS` and following; on the device, so that no step waits for it.

    Args:
        workers: Replicas of the model.
        sync: Look at each step whether it diverged. On a CUDA device that would wait for it: there a step that is
            not finite changes nothing, nor does any after it, and `check` says so later.
    """

    def __init__(
        self,
        model: SteelDefectLSTM,
        workers: Workers,
        *,
        loss: DefectLoss,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        config: TrainingConfig,
        num_slices: int,
        group: Group,
        device: torch.device,
        sync: bool,
    ) -> None:
        self.num_slices = num_slices
        self._model, self._workers, self._loss = model, workers, loss
        self._optimizer, self._precision, self._config = optimizer, precision, config
        self._group, self._device, self._sync = group, device, sync
        self._parameters = [p for each in optimizer.param_groups for p in each["params"]]
        self._names = _names_of(model, self._parameters)
        self._moving, self._counters = moving_buffers(model), batch_counters(model)
        self._gradient_P = _flat_gradient(self._parameters)
        self._diverged = torch.zeros((), dtype=torch.bool, device=device)
        self.totals = self._no_totals()

    def begin_epoch(self, totals: Sequence[float] = ()) -> None:
        """Counts anew, or goes on from what was counted."""
        self.totals = self._no_totals()
        if totals:
            self.totals += torch.tensor(totals, dtype=self.totals.dtype, device=self._device)

    def step(self, batches: Sequence[Batch], epoch: int, first_batch: int, num_workers: int) -> None:
        """Moves the weights once by the mean loss over the windows of these batches.

        Args:
            first_batch: Place of the first of them in the epoch.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; the weights did not move.
        """
        num_windows = sum(map(len, batches))
        on_device = [batch.to(self._device) for batch in batches]
        counted = [counter + 1 for counter in self._counters]
        # The model is a replica itself: computing moves its statistics, also where the step then comes to nothing.
        moving_B = _flat(self._moving, self._device)
        while True:
            try:
                rows_SP = self._gradients(on_device, epoch, first_batch, num_workers, moving_B)
                break
            except torch.OutOfMemoryError:
                self._halve_slices(num_windows)
        for counter, value in zip(self._counters, counted, strict=True):
            counter.copy_(value)
        self._apply(_sum_in_order(rows_SP), num_windows, moving_B)

    def check(self) -> None:
        """Looks whether a step has diverged.

        Raises:
            TrainingDivergedError: One has; the weights are those before it.
        """
        if bool(self._diverged) or self._precision.is_lost:
            raise TrainingDivergedError(
                "loss or gradient is not finite: lower the learning rate or look at the data"
            )

    def _gradients(
        self, batches: Sequence[Batch], epoch: int, first_batch: int, num_workers: int, moving_B: Tensor
    ) -> Tensor:
        """A row for each slice of the group: its loss, its gradient, how far it moves the batch statistics."""
        mine, num_windows = self._group.share(self.num_slices), sum(map(len, batches))
        tasks: list[Callable[[SteelDefectLSTM], Tensor]] = []
        width = 1 + len(self._gradient_P) + len(moving_B)
        for place, batch in enumerate(batches):
            slices = batch.slices(self.num_slices)
            for n in mine:
                key = SliceKey(self._config.seed, epoch, first_batch + place, n)
                # A batch smaller than the number of slices leaves some of them empty.
                tasks.append(
                    self._task(slices[n], key, moving_B, num_windows)
                    if n < len(slices)
                    else lambda _: torch.zeros(width, device=self._device)
                )
        rows_SP = torch.stack(self._workers.run(tasks, num_workers))
        if self._group.size == 1:
            return rows_SP
        # By batch first, by slice second, as one process would have them.
        by_rank = self._group.gather(rows_SP).view(self._group.size, len(batches), len(mine), width)
        return by_rank.transpose(0, 1).reshape(-1, width)

    def _task(
        self, part: Batch, key: SliceKey, moving_B: Tensor, num_windows: int
    ) -> Callable[[SteelDefectLSTM], Tensor]:
        def compute(replica: SteelDefectLSTM) -> Tensor:
            moving = moving_buffers(replica)
            _write_flat(moving, moving_B)
            replica.set_generator(key.generator(self._device))
            named = dict(replica.named_parameters())
            parameters = [named[name] for name in self._names]
            with self._precision.autocast():
                logits_N = replica(part.x_NTF, part.mask_NT)
            loss = self._loss(logits_N, part.y_N, part.weight_N).sum() / num_windows
            gradients = torch.autograd.grad(self._precision.scaled(loss), parameters, allow_unused=True)
            flat = [_filled(g, p).reshape(-1) for g, p in zip(gradients, parameters, strict=True)]
            share = len(part) / num_windows
            return torch.cat([loss.detach().view(1), *flat, (_flat(moving, self._device) - moving_B) * share])

        return compute

    def _apply(self, row_P: Tensor, num_windows: int, moving_B: Tensor) -> None:
        loss, gradient_P = row_P[0], row_P[1 : 1 + len(self._gradient_P)]
        self._gradient_P.copy_(gradient_P)
        self._diverged |= ~torch.isfinite(loss)  # before the scale of fp16 comes off, which has to know
        norm = self._precision.unscale(self._gradient_P, self._optimizer, self._diverged)
        limit = self._config.grad_clip_norm
        scale = torch.clamp(limit / (norm + 1e-6), max=1.0)
        self._gradient_P.mul_(scale)
        is_finite = torch.isfinite(loss) & (torch.isfinite(norm) | self._precision.may_overflow)
        self._diverged |= ~is_finite
        if self._moving:
            moved_B = moving_B + row_P[1 + len(self._gradient_P) :]
            _write_flat(self._moving, torch.where(self._diverged, moving_B, moved_B))
        if self._sync and not bool(is_finite):
            raise TrainingDivergedError(
                f"the loss is {loss.item():g} and the norm of its gradient {norm.item():g}: "
                "lower the learning rate or look at the data"
            )
        self._precision.step(self._optimizer, self._diverged)
        # A step left out because fp16 overflowed has no norm to count.
        norm = torch.nan_to_num(norm, nan=0.0, posinf=0.0)
        seen = torch.nan_to_num(torch.stack([loss * num_windows, norm, norm * scale, (norm > limit).float()]))
        self.totals += seen.to(self.totals.dtype)

    def _halve_slices(self, num_windows: int) -> None:
        if self._group.size > 1:
            raise TrainingSetupError(
                "a process of the group is out of memory: raise training.num_slices, or lower training.batch_size"
            )
        if self.num_slices >= min(MAX_SLICES, num_windows):
            raise TrainingSetupError(
                f"the device has no memory for a single window of {num_windows}: lower hidden_size"
            )
        self.num_slices *= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory", mend="a batch is computed in smaller parts", num_slices=self.num_slices)

    def _no_totals(self) -> Tensor:
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        return torch.zeros(4, dtype=dtype, device=self._device)


def _sum_in_order(rows_SP: Tensor) -> Tensor:
    """Adds rows from the first to the last: a reduction of torch's own may add them in another order."""
    total_P = rows_SP[0].clone()
    for row_P in rows_SP[1:]:
        total_P += row_P
    return total_P


def _flat_gradient(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One vector whose parts are the gradients of the parameters."""
    flat_P = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    begin = 0
    for p in parameters:
        p.grad = flat_P[begin : begin + p.numel()].view_as(p)
        begin += p.numel()
    return flat_P


def _names_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in parameters]


def _filled(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def _flat(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.cat([torch.empty(0, device=device), *(each.reshape(-1) for each in tensors)])


def _write_flat(tensors: Sequence[Tensor], flat_P: Tensor) -> None:
    begin = 0
    for each in tensors:
        each.copy_(flat_P[begin : begin + each.numel()].view_as(each))
        begin += each.numel()
