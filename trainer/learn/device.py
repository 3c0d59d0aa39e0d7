"""Where and how tensors are computed."""

from __future__ import annotations

import torch

from streamer.memory import keep_freed_memory

# What one step allocates and frees, many times over. Smaller: steps wait for the system; a step of two workers took
# 43 ms instead of 27 ms.
KEPT_BYTES = 1024**3


def find_device() -> torch.device:
    """CUDA, else Apple's MPS, else CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def prepare_thread(num_threads: int) -> None:
    """Sets up the calling thread for CPU work; call it in every thread that trains or scores, first of all.

    Back-propagating hundreds of steps makes subnormal floats, on which a batch takes many times longer. The
    flush is a flag of the thread, and workers started before it go on computing subnormals.
    """
    keep_freed_memory(KEPT_BYTES)
    torch.set_flush_denormal(True)
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)
