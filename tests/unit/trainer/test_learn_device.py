from __future__ import annotations

import subprocess
import sys

KEEPS = """
import torch
from trainer.learn.report import memory
from trainer.learn.device import prepare_thread
prepare_thread(1)
before = memory.rss_mb()
blocks = [torch.ones(2**21) for _ in range(32)]  # 8 MiB each
full = memory.rss_mb()
del blocks
print(round(full - before), round(memory.rss_mb() - before))
"""


def test_freed_memory_stays_for_the_next_step():
    done = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, text=True, check=True)

    full, kept = map(int, done.stdout.split())
    assert 240 < full < 300
    assert kept > 240
