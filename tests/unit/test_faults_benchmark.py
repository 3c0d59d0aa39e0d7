"""The benchmark on kinds of faults makes what it says, the same for everybody, and fails when a check does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import fault_kinds, fault_shifts, faults
from trainer.learn.scores.baselines import score_baselines

FAST = """
architecture: {preset: lightweight, hidden_size: 4, stem_stride: 10}
training: {max_epochs: 1}
"""
# One number a window that tells defective ones, whatever else changes.
TELLING = {
    "set_points": lambda x_NTF: (x_NTF[:, :, 0] - x_NTF[:, :, 1]).mean(axis=1),
    "replaced_sensor": lambda x_NTF: x_NTF[:, :, 2].std(axis=1),
    "seasonal_drift": lambda x_NTF: (x_NTF[:, :, 1] - x_NTF[:, :, 0]).mean(axis=1),
    "defect_clusters": lambda x_NTF: x_NTF[:, :, 0].mean(axis=1),
    "wrong_labels": lambda x_NTF: x_NTF[:, :, 2].mean(axis=1),
}


@pytest.mark.parametrize("kind", faults.KINDS)
def test_each_kind_has_windows_of_both_classes_in_each_part(kind):
    for part in faults.parts_of(kind, seed=0):
        assert set(part.y_N.tolist()) == {False, True}
        assert part.x_NTF.shape[:2] == part.mask_NT.shape
        assert np.isfinite(part.x_NTF[part.mask_NT]).any()


@pytest.mark.parametrize("kind", faults.KINDS)
def test_a_seed_makes_the_same_windows_and_another_seed_others(kind):
    first, same, other = (faults.parts_of(kind, seed)[0] for seed in (1, 1, 2))

    assert np.array_equal(first.x_NTF, same.x_NTF, equal_nan=True)
    assert np.array_equal(first.y_N, same.y_N)
    assert not np.array_equal(first.y_N, other.y_N)


@pytest.mark.parametrize(("kind", "telling"), TELLING.items())
def test_what_tells_goes_on_telling_where_the_plant_has_changed(kind, telling):
    ranked = []
    for seed in (100, 101, 102):
        x_NTF, y_N = faults.KINDS[kind](np.random.default_rng(seed))
        test = fault_shifts.part_slices(len(y_N))[2]
        ranked.append(roc_auc_score(y_N[test], telling(x_NTF[test])))

    assert 0.86 < np.mean(ranked) < 0.95


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_one_product_is_new_in_the_test_part(seed):
    train, validation, test = (set(part.x_NTF[:, 0, 1]) for part in faults.parts_of("set_points", seed))

    assert len(train) == fault_shifts.NUM_PRODUCTS - 1
    assert validation <= train
    assert len(test - train) == 1


def test_a_sensor_is_replaced_after_the_training_part():
    train, validation, test = (part.x_NTF[:, :, 2] for part in faults.parts_of("replaced_sensor", seed=100))
    mean_N = np.concatenate([validation, test]).mean(axis=1)

    assert abs(mean_N[-80:].mean() - train.mean()) > 3 * train.std()
    assert abs(mean_N[:120].mean() - train.mean()) < 0.1 * train.std()


def test_seasons_do_not_come_back_within_a_record():
    x_NTF, _ = fault_shifts.seasonal_drift(np.random.default_rng(100))
    level_NF = x_NTF.mean(axis=1)
    train, _, test = fault_shifts.part_slices(len(level_NF))
    distance_NN = np.linalg.norm(level_NF[test][:, None] - level_NF[train], axis=2)

    # A window of the training part has its neighbours within one unit.
    assert np.median(distance_NN.min(axis=1)) > 2


def test_defects_come_in_clusters_and_parts_have_more_or_fewer():
    train, validation, test = (part.y_N for part in faults.parts_of("defect_clusters", seed=100))
    is_followed = train[1:][train[:-1]]

    assert validation.mean() + 0.05 < train.mean() < test.mean() - 0.1
    assert is_followed.mean() > 2 * train.mean()


def test_labels_are_wrong_in_the_first_two_parts_alone():
    _, told_N = fault_shifts.wrong_labels(np.random.default_rng(100))
    _, true_N = fault_kinds.level(np.random.default_rng(100))
    wrong = [(told_N != true_N)[part].mean() for part in fault_shifts.part_slices(len(true_N))]

    assert wrong[:2] == pytest.approx([0.05, 0.05], abs=0.035)
    assert wrong[2] == 0


@pytest.mark.parametrize("kind", ["level", "lag", "stuck_sensor"])
def test_statistics_tell_a_level_how_sensors_move_together_and_what_stands_still(kind):
    scores = score_baselines(*faults.parts_of(kind, seed=0))

    assert scores["logistic_regression"].scores.auc_roc > 0.75


def test_a_model_that_is_behind_fails_and_all_figures_are_told(tmp_path, capsys):
    config = tmp_path / "model.yaml"
    config.write_text(FAST)

    code = faults.main(["--only", "little_data", "--seeds", "0", "--config", str(config), "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert set(told["kinds"]["little_data"]) == {"model", "logistic_regression", "hist_gradient_boosting"}
    assert not all(told["checks"].values())
    assert "little_data" in faults.table(told)


def test_a_kind_is_held_against_the_better_baseline():
    means = {"model": 0.9, "logistic_regression": 0.915, "hist_gradient_boosting": 0.5}
    near, behind = means, means | {"hist_gradient_boosting": 0.93}
    text = "the model is at most 0.02 behind the better baseline on each kind"

    assert faults.checked({"level": near}, near)[text]
    assert not faults.checked({"level": near, "difference": behind}, near)[text]


def test_a_win_may_lose_a_hundredth_and_no_more():
    kinds = {"rhythm": {"model": 0.886}, "lag": {"model": 0.989}, "level": {"model": 0.5}}

    assert list(faults.kept(kinds).values()) == [True, False]


@pytest.mark.parametrize(("seeds", "is_checked"), [([0, 1, 2], True), ([100, 101, 102], False)])
def test_wins_are_checked_for_the_final_seeds_alone(monkeypatch, capsys, seeds, is_checked):
    means = dict.fromkeys(faults.RANKED, 0.7) | {"model": 0.8}
    monkeypatch.setattr(faults, "measure", lambda *_: means)

    code = faults.main(["--only", "rhythm", "--seeds", *map(str, seeds), "--json"])

    told = json.loads(capsys.readouterr().out)["checks"]
    assert code == int(is_checked)
    assert any(text.startswith("rhythm") for text in told) == is_checked


def test_a_seed_below_zero_is_refused(capsys):
    with pytest.raises(SystemExit):
        faults.main(["--seeds", "-1"])

    assert "not a whole number from 0" in capsys.readouterr().err


def test_a_fault_of_the_configuration_is_told_in_one_line(tmp_path, capsys):
    config = tmp_path / "model.yaml"
    config.write_text("architecture: {hidden_size: none}")

    assert faults.main(["--only", "level", "--config", str(config)]) == 1
    assert "hidden_size" in capsys.readouterr().err
