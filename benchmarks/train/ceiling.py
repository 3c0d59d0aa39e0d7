"""What one core can do, in a process of its own: `python -m benchmarks.train.ceiling`"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

# Larger than the caches of a core favour; smaller says more about calls than about multiplying.
SIZE = 1024
SECONDS = 1.0
# What fits the fastest cache, so that memory does not hide what a multiplication costs.
SMALL_SIZE = 64
SUBNORMAL = 1e-39


def gflops(size: int = SIZE, seconds: float = SECONDS) -> float:
    """GFLOP/s of the fastest float32 matrix multiplication within so many seconds, on one thread."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / _fastest(lambda out: torch.mm(a, b, out=out), size, seconds) / 1e9


def subnormal_cost(size: int = SMALL_SIZE, seconds: float = SECONDS / 10) -> float:
    """How many times longer a matrix multiplication takes that reads and writes subnormal numbers."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    small = SUBNORMAL / size * torch.rand(size, size)
    normal_s = _fastest(lambda out: torch.mm(a, b, out=out), size, seconds)
    return _fastest(lambda out: torch.mm(small, b, out=out), size, seconds) / normal_s


def _fastest(multiply: Callable[[torch.Tensor], object], size: int, seconds: float) -> float:
    torch.set_num_threads(1)
    out = torch.empty(size, size)
    fastest, deadline = float("inf"), time.perf_counter() + seconds
    while (started := time.perf_counter()) < deadline:
        multiply(out)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


if __name__ == "__main__":
    print(json.dumps({"gflops": gflops(), "subnormal_cost": subnormal_cost()}))
