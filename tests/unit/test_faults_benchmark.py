"""The benchmark on kinds of faults makes what it says, the same for everybody, and fails when a check does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import faults
from trainer.learn.scores.baselines import score_baselines

FAST = """
architecture: {preset: lightweight, hidden_size: 4, stem_stride: 10}
training: {max_epochs: 1}
"""


@pytest.mark.parametrize("kind", faults.KINDS)
def test_each_kind_has_windows_of_both_classes_in_each_part(kind):
    for part in faults.parts_of(kind, seed=0):
        assert set(part.y_N.tolist()) == {False, True}
        assert part.x_NTF.shape[:2] == part.mask_NT.shape
        assert np.isfinite(part.x_NTF[part.mask_NT]).any()


def test_a_seed_makes_the_same_windows_and_another_seed_others():
    first, same, other = (faults.parts_of("missing_values", seed)[0] for seed in (1, 1, 2))

    assert np.array_equal(first.x_NTF, same.x_NTF, equal_nan=True)
    assert not np.array_equal(first.y_N, other.y_N)


@pytest.mark.parametrize(("kind", "is_seen"), [("level", True), ("lag", False), ("coincidence", False)])
def test_statistics_tell_a_level_and_no_sequence(kind, is_seen):
    scores = score_baselines(*faults.parts_of(kind, seed=0))

    assert (scores["logistic_regression"].auc_roc > 0.75) == is_seen
    assert (scores["logistic_regression"].auc_roc < 0.6) == (not is_seen)


def test_a_model_that_is_behind_fails_and_all_figures_are_told(tmp_path, capsys):
    config = tmp_path / "model.yaml"
    config.write_text(FAST)

    code = faults.main(["--only", "little_data", "--seeds", "0", "--config", str(config), "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert set(told["kinds"]["little_data"]) == {"model", "logistic_regression", "hist_gradient_boosting"}
    assert not all(told["checks"].values())
    assert "little_data" in faults.table(told)


def test_a_seed_below_zero_is_refused(capsys):
    with pytest.raises(SystemExit):
        faults.main(["--seeds", "-1"])

    assert "not a whole number from 0" in capsys.readouterr().err


def test_a_fault_of_the_configuration_is_told_in_one_line(tmp_path, capsys):
    config = tmp_path / "model.yaml"
    config.write_text("architecture: {hidden_size: none}")

    assert faults.main(["--only", "level", "--config", str(config)]) == 1
    assert "hidden_size" in capsys.readouterr().err
