"""The matrix-multiply rate of one core in float32, in a process of its own: `python -m benchmarks.train.ceiling`"""

from __future__ import annotations

import json
import time

import torch

# Larger than the caches of a core favour; smaller says more about calls than about multiplying.
SIZE = 1024
SECONDS = 1.0


def measure(size: int = SIZE, seconds: float = SECONDS) -> float:
    """GFLOP/s of the fastest multiplication within so many seconds, on one thread."""
    torch.set_num_threads(1)
    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    fastest, deadline = float("inf"), time.perf_counter() + seconds
    while (started := time.perf_counter()) < deadline:
        torch.mm(a, b, out=out)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest / 1e9


if __name__ == "__main__":
    print(json.dumps({"gflops": measure()}))
