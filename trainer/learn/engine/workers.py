"""Threads that compute the slices of a batch side by side, each on a replica of the model.

Torch lets go of Python's lock while it computes, so threads share the cores as processes would, without starting
any and without copying weights: replicas read the same memory. What a slice gives depends on the slice alone,
so results are the same to the bit whoever computes it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Self, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.learn.device import prepare_thread
from trainer.learn.model.network import SteelDefectLSTM

T = TypeVar("T")
Task = Callable[[SteelDefectLSTM], T]

# Steps that one number of workers is tried for, the first of which is not counted: it warms up.
# Smaller: noise decides. Larger: the slower number is kept for longer.
TRIAL_STEPS = 4
# Of the speed that the choice was made at: below it the machine has changed and the choice is made again.
SLOWDOWN = 0.5
# Steps whose median is compared with that speed.
WATCHED_STEPS = 16


class Workers:
    """Replicas of one model, each with a thread of its own but the first, which is the caller's.

    Args:
        model: Whose weights all replicas read.
        number: Of workers.
        num_threads: Within one operation of each.
    """

    def __init__(self, model: SteelDefectLSTM, number: int, *, num_threads: int) -> None:
        prepare_thread(num_threads)
        self._replicas = [model, *(_replica(model) for _ in range(number - 1))]
        self._pools = [
            ThreadPoolExecutor(1, f"slices-{n}", initializer=prepare_thread, initargs=(num_threads,))
            for n in range(1, number)
        ]

    def __len__(self) -> int:
        return len(self._replicas)

    def run(self, tasks: Sequence[Task[T]], number: int | None = None) -> list[T]:
        """Runs tasks, at most `number` at once, and returns what they returned, in their order."""
        busy = min(number or len(self), len(self), max(1, len(tasks)))
        futures = [
            pool.submit(_run_each, replica, tasks[n::busy])
            for n, (pool, replica) in enumerate(
                zip(self._pools[: busy - 1], self._replicas[1:], strict=False), start=1
            )
        ]
        parts = [_run_each(self._replicas[0], tasks[::busy]), *(future.result() for future in futures)]
        results: list[T] = []
        for place in range(len(tasks)):
            results.append(parts[place % busy][place // busy])
        return results

    def train(self, mode: bool) -> None:
        """Sets all replicas to training or evaluation, with the batch statistics of the model."""
        model, *others = self._replicas
        model.train(mode)
        for replica in others:
            replica.train(mode)
            for mine, its in zip(moving_buffers(replica), moving_buffers(model), strict=True):
                mine.copy_(its)

    def close(self) -> None:
        """Ends the threads."""
        for pool in self._pools:
            pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WorkerChoice:
    """How many workers are fastest, found by steps of the training itself.

    One worker and all of them are tried in turn; the faster one stays until the speed halves. Results do not depend
    on it, so nothing is lost by trying.

    Args:
        most: Workers there are.
        tried: False: all of them, always.
    """

    def __init__(self, most: int, *, tried: bool = True) -> None:
        self._candidates = [most, 1] if tried and most > 1 else [most]
        self._trials: dict[int, list[float]] = {}
        self._chosen: int | None = most if len(self._candidates) == 1 else None
        self._chosen_s = 0.0
        self._recent: list[float] = []

    @property
    def number(self) -> int:
        """Workers for the next step."""
        if self._chosen is not None:
            return self._chosen
        return next(n for n in self._candidates if len(self._trials.get(n, ())) < TRIAL_STEPS)

    def step_done(self, seconds_a_window: float) -> None:
        """Notes how long a step took with `number` workers."""
        if len(self._candidates) == 1:
            return
        if self._chosen is None:
            self._trials.setdefault(self.number, []).append(seconds_a_window)
            self._choose_if_tried()
            return
        self._recent.append(seconds_a_window)
        if len(self._recent) == WATCHED_STEPS:
            if median(self._recent) > self._chosen_s / SLOWDOWN:
                self._chosen, self._trials = None, {}
            self._recent = []

    def _choose_if_tried(self) -> None:
        if all(len(self._trials.get(n, ())) >= TRIAL_STEPS for n in self._candidates):
            typical = {n: median(times[1:]) for n, times in self._trials.items()}
            self._chosen = min(typical, key=lambda n: typical[n])
            self._chosen_s = typical[self._chosen]


def moving_buffers(model: nn.Module) -> list[Tensor]:
    """What batch normalisation learns by looking: means and variances, which each slice moves on its own."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    moving = [each for norm in norms for each in (norm.running_mean, norm.running_var)]
    return [each for each in moving if each is not None]


def batch_counters(model: nn.Module) -> list[Tensor]:
    """How often each batch normalisation has looked; slices of one step look several times."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]


def _run_each(replica: SteelDefectLSTM, tasks: Sequence[Task[T]]) -> list[T]:
    return [task(replica) for task in tasks]


def _replica(model: SteelDefectLSTM) -> SteelDefectLSTM:
    """A copy whose weights lie in the memory of the model's; what moves while slices are computed is its own."""
    replica = copy.deepcopy(model)
    for mine, its in zip(replica.parameters(), model.parameters(), strict=True):
        mine.data = its.data
    own = {id(each) for each in moving_buffers(model) + batch_counters(model)}
    for name, buffer in model.named_buffers():
        if id(buffer) not in own:
            owner, _, leaf = name.rpartition(".")
            setattr(replica.get_submodule(owner), leaf, buffer)
    return replica
