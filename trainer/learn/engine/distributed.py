"""Several processes that train one model: what `torchrun` starts.

Each process computes its share of the slices of a batch, and all add up the gradients of all slices in the same
order. So a group ends with the weights, to the bit, that one process would have ended with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import TrainingSetupError


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that train together; one process is a group as well.

    Attributes:
        rank: Number of this process; the first one writes files.
        size: Of the group.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Group:
        """The group that this process has joined."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def writes(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, number: int) -> range:
        """Which of so many slices this process computes.

        Raises:
            TrainingSetupError: They cannot be shared evenly.
        """
        if number % self.size:
            raise TrainingSetupError(
                f"training.num_slices: {number} slices cannot be shared by {self.size} processes; "
                f"choose a multiple of {self.size}"
            )
        each = number // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, rows_SP: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks; each gives equally many."""
        if self.size == 1:
            return rows_SP
        parts = [torch.empty_like(rows_SP) for _ in range(self.size)]
        dist.all_gather(parts, rows_SP)
        return torch.cat(parts)

    def check_alike(self, described: str, tensors: Iterable[Tensor], device: torch.device) -> None:
        """Compares what the processes begin with: unlike ones would add up gradients of different models.

        Raises:
            TrainingSetupError: They differ; all processes raise it.
        """
        if self.size == 1:
            return
        digest = hashlib.sha256(described.encode())
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        told = self.gather(torch.tensor([list(digest.digest())], dtype=torch.uint8, device=device))
        if bool((told != told[0]).any()):
            raise TrainingSetupError(
                "the processes of the group do not begin alike: each needs the same configuration, first weights, "
                "loaders and run_dir"
            )

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether one of the processes says so; all get the same answer."""
        if self.size == 1:
            return flag
        told = torch.tensor([float(flag)], device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())


def backend_for(num_gpus: int, num_processes: int) -> Literal["nccl", "gloo"]:
    """What the processes of one machine talk by, all of them by the same."""
    return "nccl" if num_gpus >= num_processes else "gloo"


@contextmanager
def joined() -> Iterator[Group]:
    """Joins the group that `torchrun` has started this process for; without torchrun a group of one.

    NCCL where there is a GPU for each process, else gloo.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield Group.current()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", str(local_rank + 1)))
    backend = backend_for(torch.cuda.device_count(), num_local)
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend)
    try:
        yield Group.current()
    finally:
        dist.destroy_process_group()
