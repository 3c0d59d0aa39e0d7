"""The memory in use."""

from __future__ import annotations

import resource
from pathlib import Path

import torch


def rss_mb() -> float:
    """Resident memory of this process, MiB; where /proc is missing the most it ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gpu_mb(device: torch.device) -> float:
    """Most memory that tensors took on a CUDA device, MiB; 0 on others."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
