"""What the command line says before it reaches a server."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from odd_names import ODD_NAMES

from streamer.config import SensorConfig, WindowsConfig
from trainer.cli import _print_facts, _shown
from trainer.release import DatasetInfo, Manifest, Registry, RegistryConfig, write_artifact

TIME = ["2026-11-22", "10:00"]
SCORES = {"auc_roc": 0.9, "auc_pr": 0.7}
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


def test_a_long_path_is_folded_and_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = "/var/lib/castloop/" + "registry" * 10

    _print_facts({"version": 3, "folder": folder})

    assert folder in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_in_a_table_is_text_and_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    _print_facts({"decision": "failed", "reasons": [f"sensors: {name} here", "\x1b[2Jx"]})
    shown = capsys.readouterr().out
    assert f"sensors: {name} here; \\x1b[2Jx" in shown


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


def registered(folder: Path, gap: float | None, scores: dict[str, float] = SCORES) -> None:
    """A registry whose champion has these scores."""
    manifest = Manifest(
        model_name="defect-lstm",
        version=1,
        created_at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        architecture={},
        sensors=(SensorConfig(name="mold_level", unit="mm"),),
        period_ms=1000,
        window=WindowsConfig(),
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=150_000, num_defects=20_000),
        scores=scores,
        baselines={} if gap is None else {"logistic_regression": {"auc_roc": 0.9 - gap, "auc_pr": 0.8}},
    )
    with Registry(RegistryConfig(path=folder)) as registry:
        registry.register(write_artifact({"w": np.zeros(2, np.float32)}, manifest))
        registry.promote(1)


@pytest.mark.parametrize(
    ("gap", "shown", "said"),
    [
        (0.04, "+0.040", ""),
        (
            -0.034,
            "-0.034",
            "warning: the champion ranks 0.034 AUC-ROC behind logistic_regression; see 'The model is behind a "
            "baseline' in docs/operations.md\n",
        ),
        (None, "-", ""),
    ],
)
def test_models_says_how_far_each_is_ahead_in_80_columns_and_warns_of_a_champion_behind(
    tmp_path: Path, gap: float | None, shown: str, said: str
) -> None:
    (tmp_path / "trainer.yaml").write_text(f"registry:\n  path: {tmp_path / 'registry'}\n")
    (tmp_path / "model_config.yaml").write_text("{}")
    registered(tmp_path / "registry", gap)
    done = trainer("models", "-c", str(tmp_path / "trainer.yaml"))
    assert (done.returncode, done.stderr) == (0, said)
    head, row = done.stdout.splitlines()
    assert dict(zip(head.split()[:8], row.split()[:8], strict=True))["ahead"] == shown
    assert row.split() == ["1", "-", "champion", "150000", "20000", "0.900", "0.700", shown, *TIME]
    assert len(row) <= 80
    done = trainer("models", "--json", "-c", str(tmp_path / "trainer.yaml"))
    (model,) = json.loads(done.stdout)
    assert model["baseline_gap"] == pytest.approx(gap)
    assert (bool(model["baselines"]), done.stderr) == (gap is not None, said)


def test_models_shows_a_dash_for_scores_that_a_model_lacks(tmp_path: Path) -> None:
    (tmp_path / "trainer.yaml").write_text(f"registry:\n  path: {tmp_path / 'registry'}\n")
    (tmp_path / "model_config.yaml").write_text("{}")
    registered(tmp_path / "registry", 0.1, scores={})
    done = trainer("models", "-c", str(tmp_path / "trainer.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[5:8] == ["-", "-", "-"]
    done = trainer("models", "--json", "-c", str(tmp_path / "trainer.yaml"))
    (model,) = json.loads(done.stdout)
    assert (model["auc_roc"], model["auc_pr"], model["baseline_gap"]) == (None, None, None)


def test_nested_scores_are_shown_in_a_line() -> None:
    scores = {"logistic_regression": {"auc_roc": 0.91234, "f1": 0.5}, "hist_gradient_boosting": {"f1": 0.25}}
    assert _shown(scores) == "logistic_regression: auc_roc 0.9123, f1 0.5; hist_gradient_boosting: f1 0.25"
    assert (_shown({"auc_roc": 0.91234}), _shown(["a", "b"]), _shown(None)) == (
        "auc_roc 0.9123",
        "a; b",
        "None",
    )
