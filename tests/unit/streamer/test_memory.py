"""Freed memory stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from pathlib import Path
import numpy as np
from streamer.memory import keep_freed_memory

def rss_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

if sys.argv[1] == "kept":
    assert keep_freed_memory(1024**3)
before = rss_mb()
blocks = [np.ones(2**20) for _ in range(32)]  # 8 MiB each
full = rss_mb() - before
del blocks
print(full, rss_mb() - before)
"""


@pytest.mark.parametrize("how", ["kept", "given back"])
def test_freed_blocks_stay_where_that_was_asked_for(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)

    full, left = map(int, done.stdout.split())
    assert 240 < full < 300
    assert (left > 240) == (how == "kept")
