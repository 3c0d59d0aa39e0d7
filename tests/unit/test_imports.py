"""What can be imported on a machine without torch: a plant's streamer and a scorer's subscriber."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Stands for a machine on which the libraries were never installed.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "sklearn", "scipy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
EVERY_STREAMER_MODULE = """
import importlib, pkgutil, streamer
for module in pkgutil.walk_packages(streamer.__path__, "streamer."):
    importlib.import_module(module.name)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "code",
    [
        EVERY_STREAMER_MODULE,
        "import streamer, trainer.release.client.subscriber",
        "import trainer.release.client.artifact",
        "import trainer.config",
        "import streamer.cli",
        "import trainer.cli",
    ],
)
def test_needs_neither_torch_nor_sklearn_nor_scipy(code: str) -> None:
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_training_needs_torch_so_the_check_can_fail() -> None:
    assert "No module named 'torch'" in run("import trainer.learn.model.network").stderr
