"""The shipped files load, and say what the defaults are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.settings import load_settings
from trainer.learn.config import ModelSettings

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_shipped_file_writes_out_every_default():
    shipped = load_settings(ModelSettings, CONFIGS / "model_config.yaml")

    assert shipped == ModelSettings()
    assert shipped.model_fields_set == set(ModelSettings.model_fields)
    for name in ModelSettings.model_fields:
        section = getattr(shipped, name)
        assert section.model_fields_set == set(type(section).model_fields), name


def test_the_example_loads():
    load_settings(ModelSettings, CONFIGS / "examples" / "hydraulic_rig" / "model_config.yaml")


def test_sections_are_exactly_these():
    assert list(ModelSettings.model_fields) == [
        "architecture",
        "training",
        "optimizer",
        "scheduler",
        "early_stopping",
        "checkpoint",
        "loss",
        "data_processing",
    ]


def test_faults_name_file_line_and_key(tmp_path):
    path = tmp_path / "model_config.yaml"
    path.write_text("training:\n  patience: 3\nearly_stopping:\n  monitor: val_f2\n  patience: 0\n")

    with pytest.raises(ConfigError) as caught:
        load_settings(ModelSettings, path)

    message = str(caught.value)
    assert f"{path}:2: training.patience: " in message
    assert f"{path}:4: early_stopping.monitor: " in message
    assert f"{path}:5: early_stopping.patience: " in message


def test_the_environment_overrides_a_key(monkeypatch):
    monkeypatch.setenv("CASTING_TRAINING__MAX_EPOCHS", "7")

    assert load_settings(ModelSettings, CONFIGS / "model_config.yaml").training.max_epochs == 7


def test_the_configuration_is_read_without_torch():
    code = "import sys, trainer.learn.config; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
