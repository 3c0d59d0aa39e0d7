"""The model as a whole: its members, what they count, its file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from defect_models import network_alone

from trainer.errors import ArtifactError, NotEnoughDataError
from trainer.learn.config import ArchitectureConfig, ModelSettings
from trainer.learn.ensemble.defect_model import DefectModel, model_bytes
from trainer.learn.ensemble.fitting import HEADER_BYTES, LSTM_TRUST, fit_ensemble, folds_in_time
from trainer.learn.members.labelled import LabelledPart, ranks_through
from trainer.learn.members.part_statistics import PartStatistics
from trainer.learn.model.network import build_model
from trainer.learn.scores.evaluate import evaluate, network_logits

SMALL = {"num_layers": 1, "hidden_size": 4, "head_hidden_dims": ()}
STEPS, SENSORS = 20, 3


def _part(num=240, seed=0, rate=0.25):
    """One of two sensors is high, and not both: trees see it, a line does not."""
    dice = np.random.default_rng(seed)
    high, other = dice.random((2, num)) < 0.5
    x = dice.normal(size=(num, STEPS, SENSORS)).astype(np.float32)
    x[high, :, 0] += 2
    x[other, :, 1] += 2
    return LabelledPart(x, np.ones(x.shape[:2], bool), (high ^ other) & (dice.random(num) < 2 * rate))


def _level(num=240, seed=0):
    """A sensor lies higher."""
    dice = np.random.default_rng(seed)
    y = dice.random(num) < 0.25
    x = dice.normal(size=(num, STEPS, SENSORS)).astype(np.float32)
    x[y, :, 0] += 0.7
    return LabelledPart(x, np.ones(x.shape[:2], bool), y)


def _network(architecture, part):
    network = build_model(architecture, SENSORS, seed=0)
    network.fit_normalisation(torch.tensor(part.x_NTF))
    return network.eval()


def _fit(train, validation, **architecture):
    settings = ModelSettings(architecture=ArchitectureConfig(**SMALL, **architecture))
    statistics = PartStatistics.chosen(train)
    network = _network(settings.architecture, train)
    return fit_ensemble(
        network, (train, validation), settings=settings, statistics=statistics
    ).model, settings


def _scores(model, part):
    prob = model.probabilities(part.x_NTF, part.mask_NT)
    return evaluate(part.labels, prob, 0.5)


def test_an_untrained_network_counts_nothing_where_trees_know():
    model, _ = _fit(_part(seed=1), _part(seed=2))
    assert model.combination.weights["trees"] >= 0.7
    assert _scores(model, _part(seed=3)).auc_roc > 0.7


@pytest.mark.parametrize(("num_casts", "weight"), [(240, LSTM_TRUST), (9, 0.0)])
def test_a_network_that_alone_knows_counts_half_and_by_few_casts_nothing(num_casts, weight):
    settings = ModelSettings(architecture=ArchitectureConfig(**SMALL))
    train, validation = _level(seed=1), _level(seed=2)
    network = _network(settings.architecture, train)
    logits = network_logits(network, validation.x_NTF, validation.mask_NT)
    labels = logits > np.quantile(logits, 0.75)
    parts = (
        replace(train, order_N=np.arange(240)),
        replace(validation, y_N=labels, order_N=240 + np.arange(240) * num_casts // 240),
    )
    fitted = fit_ensemble(network, parts, settings=settings, statistics=PartStatistics.chosen(train))
    assert 0.8 * weight <= fitted.model.combination.weights["lstm"] <= weight


@pytest.mark.parametrize("parts", [_part, _level])
def test_a_score_is_a_probability(parts):
    model, _ = _fit(parts(seed=1), parts(seed=2))
    test = parts(2000, seed=3)
    prob = model.probabilities(test.x_NTF, test.mask_NT)
    assert prob.mean() == pytest.approx(test.y_N.mean(), abs=0.05)
    assert _scores(model, test).ece < 0.1


@pytest.mark.parametrize(
    ("switched_off", "left"),
    [
        ({"tree_path": False}, ("lstm", "linear")),
        ({"linear_path": False}, ("lstm", "trees")),
        ({"linear_path": False, "tree_path": False}, ("lstm",)),
    ],
)
def test_members_can_be_switched_off(switched_off, left):
    model, _ = _fit(_level(seed=1), _level(seed=2), **switched_off)
    assert model.members == tuple(model.combination.shares) == left
    assert sum(model.combination.weights.values()) == pytest.approx(1)


def test_a_member_that_counts_nothing_is_not_asked(monkeypatch):
    model, _ = _fit(_part(seed=1), _part(seed=2))
    shares = {"lstm": 0.0, "linear": 0.0, "trees": 1.0}
    only_trees = DefectModel(
        model.network,
        model.statistics,
        None,
        model.trees,
        type(model.combination)(
            {
                name: type(share)(share.calibration, shares[name])
                for name, share in model.combination.shares.items()
            }
        ),
        model.calibration,
    )
    monkeypatch.setattr(type(model.network), "forward", None)
    part = _part(50, seed=4)
    assert np.isfinite(only_trees.probabilities(part.x_NTF, part.mask_NT)).all()


def test_a_network_alone_needs_no_statistics(monkeypatch):
    part = _level(30)
    model = network_alone(_network(ArchitectureConfig(**SMALL), part))
    monkeypatch.setattr(type(model.statistics), "__call__", None)
    with torch.inference_mode():
        expected = torch.sigmoid(model.network(torch.tensor(part.x_NTF)).double()).numpy()
    np.testing.assert_allclose(model.probabilities(part.x_NTF, part.mask_NT), expected, rtol=1e-9)


def test_its_file_scores_the_same_to_the_bit():
    model, settings = _fit(_part(seed=1), _part(seed=2))
    read = DefectModel.from_tensors(model.tensors(), settings.architecture, SENSORS)
    part = _part(100, seed=5)
    part.x_NTF[::3, 4:9, 1] = np.nan
    np.testing.assert_array_equal(
        read.probabilities(part.x_NTF, part.mask_NT), model.probabilities(part.x_NTF, part.mask_NT)
    )


def test_the_same_parts_give_the_same_bits():
    one, other = (_fit(_part(seed=1), _part(seed=2))[0].tensors() for _ in range(2))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_windows_of_a_part_are_scored_as_a_copy_of_them():
    model, _ = _fit(_part(seed=1), _part(seed=2))
    part, index = _part(60, seed=5), np.array([7, 3, 50])
    np.testing.assert_allclose(
        model.probabilities(part.x_NTF, part.mask_NT, index_N=index),
        model.probabilities(part.x_NTF[index], part.mask_NT[index]),
        rtol=1e-6,
    )


def test_a_refit_learns_what_only_the_new_part_shows_and_the_network_counts_as_before():
    train, validation = _level(seed=1), _level(seed=2)
    model, settings = _fit(train, validation)
    statistics = PartStatistics(model.statistics)
    new = _part(400, seed=6)
    weight = model.combination.weights["lstm"]
    parts = (train, validation, new)
    refit = fit_ensemble(
        model.network, parts, settings=settings, statistics=statistics, lstm_weight=weight
    ).model
    assert refit.combination.weights["lstm"] == weight
    assert _scores(refit, new).auc_roc > _scores(model, new).auc_roc + 0.1


def test_trees_without_room_in_the_file_leave_the_line_to_count():
    train, validation = _level(seed=1), _level(seed=2)
    settings = ModelSettings(architecture=ArchitectureConfig(**SMALL))
    network = _network(settings.architecture, train)
    tight = settings.training.model_copy(update={"max_model_bytes": model_bytes(network) + HEADER_BYTES})
    few = [
        replace(part, order_N=number + np.arange(240) // 60) for number, part in ((0, train), (4, validation))
    ]
    fitted = fit_ensemble(
        network,
        few,
        settings=settings.model_copy(update={"training": tight}),
        statistics=PartStatistics.chosen(train),
    )
    assert fitted.model.trees.num_trees == 0
    assert fitted.model.combination.weights["linear"] == 1


def test_windows_without_a_group_are_one_each_over_all_parts():
    part = _level(3)
    assert ranks_through([part, part]).tolist() == [0, 1, 2, 3, 4, 5]
    grouped = replace(part, order_N=np.array([7, 7, 9]))
    assert ranks_through([grouped.at(np.array([0, 2])), grouped.at(np.array([1]))]).tolist() == [7, 9, 7]


def test_validation_of_one_class_is_refused():
    validation = _level(seed=2)
    one = LabelledPart(validation.x_NTF, validation.mask_NT, np.zeros(len(validation.y_N), bool))
    with pytest.raises(NotEnoughDataError, match="weights of members need both classes"):
        _fit(_level(seed=1), one)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"combination.trees": None}, "combination.trees: expected"),
        ({"combination.trees": np.array([1.0, 0.0, -0.5])}, "are not shares of 1"),
        ({"combination.lstm": np.array([0.0, 0.0, 1.0])}, "calibration: slope"),
        ({"calibration": None}, "calibration"),
        ({"statistics.pairs": np.array([[0.0, 9.0]])}, "are not two of 3 sensors"),
        ({"statistics.pairs": np.array([[0.0, 1.5]])}, "are not places of sensors"),
        ({"statistics.pairs": np.zeros((2, 3))}, "expected float64"),
        ({"statistics.differences": np.array([[0.0, 1.0, np.nan]])}, "statistics.differences"),
        ({"linear.weight_S": None}, "linear model: weight_S"),
        ({"lstm.input_normalisation.center_C": None}, "do not fit the architecture"),
    ],
)
def test_a_file_of_something_else_is_refused(change, says):
    model, settings = _fit(_level(seed=1), _level(seed=2))
    tensors = model.tensors()
    assert change.keys() <= tensors.keys()
    changed = {name: each for name, each in (tensors | change).items() if each is not None}
    with pytest.raises(ArtifactError, match=says):
        DefectModel.from_tensors(changed, settings.architecture, SENSORS)


def _all_missing(part):
    part.x_NTF[:, :, 1] = np.nan


def _constant(part):
    part.x_NTF[:, :, 1] = 150.0


def _infinite(part):
    part.x_NTF[::2, 3:6] = np.inf
    part.x_NTF[1::2, 3:6] = -np.inf


@pytest.mark.parametrize("spoil", [_all_missing, _constant, _infinite])
def test_bad_sensors_leave_a_model_that_scores(spoil):
    train, validation, test = _level(seed=1), _level(seed=2), _level(100, seed=3)
    for part in (train, validation, test):
        spoil(part)
    model, _ = _fit(train, validation)
    assert np.isfinite(model.probabilities(test.x_NTF, test.mask_NT)).all()
    assert _scores(model, test).auc_roc > 0.7


def test_values_far_beyond_what_was_seen_give_probabilities():
    model, _ = _fit(_level(seed=1), _level(seed=2))
    far = _level(20, seed=3)
    far.x_NTF[:10] *= 1e30
    prob = model.probabilities(far.x_NTF, far.mask_NT)
    assert ((prob >= 0) & (prob <= 1)).all()


def test_two_hundred_sensors_are_fitted_and_scored():
    dice = np.random.default_rng(0)
    y = dice.random(80) < 0.3
    x = dice.normal(size=(80, 10, 200)).astype(np.float32)
    x[y, :, 17] += 3
    part = LabelledPart(x, np.ones((80, 10), bool), y)
    settings = ModelSettings(architecture=ArchitectureConfig(**SMALL))
    network = build_model(settings.architecture, 200, seed=0)
    network.fit_normalisation(torch.tensor(x))
    train, validation = part.at(np.arange(50)), part.at(np.arange(50, 80))
    statistics = PartStatistics.chosen(train)
    model = fit_ensemble(network.eval(), (train, validation), settings=settings, statistics=statistics).model
    assert evaluate(y, model.probabilities(x, part.mask_NT), 0.5).auc_roc > 0.9


@pytest.mark.parametrize(
    ("ranks", "folds"),
    [
        (np.arange(10), np.arange(10) // 2),
        (np.repeat(np.arange(5), 3), np.repeat(np.arange(5), 3)),
        (np.array([7, 7, 7, 2]), np.array([1, 1, 1, 0])),
    ],
)
def test_folds_are_stretches_of_time_with_whole_groups(ranks, folds):
    np.testing.assert_array_equal(folds_in_time(ranks, np.arange(len(ranks)) % 2 == 0), folds)


def test_the_windows_outside_of_a_fold_have_defects_though_all_come_late():
    y = np.arange(100) >= 80
    folds = folds_in_time(np.arange(100), y)
    assert all(y[folds != fold].any() for fold in range(5))


def test_defects_of_one_group_alone_can_be_fitted_to():
    train, validation = _level(seed=1), _level(seed=2)
    whole = LabelledPart(
        np.concatenate([train.x_NTF, validation.x_NTF]),
        np.concatenate([train.mask_NT, validation.mask_NT]),
        np.concatenate([train.y_N, validation.y_N]),
        order_N=np.where(np.concatenate([train.y_N, validation.y_N]), 500, np.arange(480)),
    )
    settings = ModelSettings(architecture=ArchitectureConfig(**SMALL))
    parts = whole.at(np.arange(240)), whole.at(np.arange(240, 480))
    network = _network(settings.architecture, train)
    fitted = fit_ensemble(network, parts, settings=settings, statistics=PartStatistics.chosen(parts[0]))
    assert np.isfinite(fitted.model.probabilities(train.x_NTF, train.mask_NT)).all()
