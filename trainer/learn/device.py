"""Where and how tensors are computed."""

from __future__ import annotations

import ctypes
import functools

import torch

# Of glibc's mallopt. Blocks up to the first size come from memory freed before; so much of it stays with the process.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BLOCK_BYTES = 32 * 1024**2
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
    _keep_freed_memory()
    torch.set_flush_denormal(True)
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)


@functools.cache
def _keep_freed_memory() -> bool:
    """Has the process keep freed memory for its next step; False where the C library is not glibc.

    Each step of a training allocates and frees the same tens of megabytes. By default glibc gives them back to the
    system, which fills them with zeros page by page when they are asked for again: a step of two workers took 43 ms
    instead of 27 ms.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
