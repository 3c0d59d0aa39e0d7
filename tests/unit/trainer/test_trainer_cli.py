"""What the command line says before it reaches a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HELP = """
import sys
from trainer.cli import app
for command in ([], ["run"], ["once"], ["models"], ["watch"]):
    app([*command, "--help"], standalone_mode=False)
loaded = {"torch", "sklearn", "scipy"} & set(sys.modules)
sys.exit(f"imported for a help text: {loaded}" if loaded else 0)
"""


def trainer(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from trainer.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def test_help_of_every_command_imports_nothing_that_takes_seconds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("run", "once", "models", "watch"):
        assert command in done.stdout
    assert done.stdout.count("--config") == 4


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        (
            "trainer.yaml",
            "registry:\n  path: r\n  kep: 3\n",
            "trainer.yaml:3: registry.kep: no such key; did you mean keep?",
        ),
        ("trainer.yaml", "dataset:\n  train_share: 0.9\n", "trainer.yaml:1: dataset: train_share + valid"),
        (
            "model_config.yaml",
            "training:\n  seed: 1\n  max_epochs: 0\n",
            "model_config.yaml:3: training.max_",
        ),
        (
            "model_config.yaml",
            "optimizer:\n  learning_rat: 1\n",
            "model_config.yaml:2: optimizer.learning_rat",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "models"])
def test_a_fault_in_either_file_is_told_with_its_line(
    tmp_path: Path, name: str, text: str, fault: str, command: str
) -> None:
    for file in ("trainer.yaml", "model_config.yaml"):
        (tmp_path / file).write_text(text if file == name else "{}")
    done = trainer(command, "-c", str(tmp_path / "trainer.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/{fault}")


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "trainer.yaml").write_text("model:\n  config: models/lstm.yaml\n")
    done = trainer("once", "-c", str(tmp_path / "trainer.yaml"))
    assert done.returncode == 2
    assert f"{tmp_path}/models/lstm.yaml" in done.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    done = trainer("train")
    assert done.returncode == 2
    assert "train" in done.stderr


def test_an_empty_registry_lists_nothing(tmp_path: Path) -> None:
    (tmp_path / "trainer.yaml").write_text(f"registry:\n  path: {tmp_path / 'registry'}\n")
    (tmp_path / "model_config.yaml").write_text("{}")
    done = trainer("models", "--json", "-c", str(tmp_path / "trainer.yaml"))
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    done = trainer("models", "-c", str(tmp_path / "trainer.yaml"))
    assert (done.returncode, done.stdout) == (0, f"no model yet in {tmp_path}/registry/defect-lstm\n")
    assert not (tmp_path / "registry").exists()
