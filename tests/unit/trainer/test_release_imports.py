"""What a scoring service imports needs none of the training libraries."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
for name in ("torch", "sklearn", "scipy"):
    sys.modules[name] = None
from trainer.release import ModelSubscriber, Registry, Publisher, read_artifact
"""


def test_the_subscriber_needs_neither_torch_nor_scikit_learn() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
