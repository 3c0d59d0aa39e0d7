"""The shipped files load, and say what the defaults are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.settings import load_settings
from trainer.learn.config import ModelSettings, OptimizerConfig

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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture.preset", "[standard]"),
        ("architecture.preset", "plain"),
        ("optimizer.name", "sgd"),
        ("optimizer.learning_rate", "0"),
        ("optimizer.head_learning_rate", "-1.0e-3"),
        ("optimizer.betas", "[0.9, 1.0]"),
        ("optimizer.eps", "0"),
        ("optimizer.weight_decay", "-1.0e-4"),
        ("scheduler.name", "cosine"),
        ("scheduler.warmup_steps", "-1"),
        ("scheduler.min_lr", "-1"),
        ("scheduler.plateau_factor", "1.0"),
        ("scheduler.plateau_patience", "-1"),
        ("scheduler.cosine_epochs", "0"),
        ("scheduler.cosine_factor", "1.5"),
        ("scheduler.step_factor", "0"),
        ("scheduler.exponential_factor", ".nan"),
        ("early_stopping.monitor", "val_mse"),
        ("early_stopping.patience", "0"),
        ("early_stopping.min_delta", "-0.1"),
        ("loss.pos_weight", "-1"),
        ("loss.pos_weight", "0"),
        ("loss.pos_weight", "sometimes"),
        ("loss.weight_multiplier", "-3"),
        ("loss.focal_gamma", "-1"),
        ("loss.label_smoothing", "0.5"),
        ("loss.label_smoothing", "-0.1"),
        ("loss.recency_half_life_days", "0"),
    ],
)
def test_a_value_that_trains_nothing_is_refused_at_its_line(tmp_path, key, value):
    path, (section, name) = tmp_path / "model_config.yaml", key.split(".")
    path.write_text(f"training:\n  seed: 1\n{section}:\n  {name}: {value}\n")

    with pytest.raises(ConfigError) as caught:
        load_settings(ModelSettings, path)

    assert f"{path}:4: {key}" in str(caught.value)


def test_an_unknown_scheduler_names_those_there_are(tmp_path):
    path = tmp_path / "model_config.yaml"
    path.write_text("scheduler:\n  name: cosine\n")

    with pytest.raises(ConfigError, match=r":2: scheduler\.name: .*'plateau', 'cosine_warm_restarts'"):
        load_settings(ModelSettings, path)


def test_a_cosine_that_would_rise_is_refused(tmp_path):
    path = tmp_path / "model_config.yaml"
    text = "scheduler:\n  name: {}\n  min_lr: 1.0e-3\noptimizer:\n  head_learning_rate: 1.0e-4\n"
    path.write_text(text.format("cosine_warm_restarts"))

    with pytest.raises(ConfigError, match=r":3: scheduler\.min_lr: lies above a learning rate of 0\.0001"):
        load_settings(ModelSettings, path)

    path.write_text(text.format("plateau"))
    load_settings(ModelSettings, path)


def test_a_type_of_layer_has_its_own_rate_or_the_common_one():
    rates = OptimizerConfig(learning_rate=0.1, head_learning_rate=0.2).group_rates

    assert rates == {"recurrent": 0.1, "head": 0.2, "normalisation": 0.1}


def test_the_environment_overrides_a_key(monkeypatch):
    monkeypatch.setenv("CASTING_TRAINING__MAX_EPOCHS", "7")

    assert load_settings(ModelSettings, CONFIGS / "model_config.yaml").training.max_epochs == 7


def test_the_configuration_is_read_without_torch():
    code = "import sys, trainer.learn.config; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
