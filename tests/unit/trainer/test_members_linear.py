"""The linear member: units do not matter, nothing is clipped, what says nothing counts nothing."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.errors import ArtifactError
from trainer.learn.members import linear
from trainer.learn.members.linear import LinearModel


def fit_linear(stats, y, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    return linear.fit_linear(stats, y, weight, np.arange(len(y)) * 5 // len(y))[0]


def _rows(seed=0, num=200):
    dice = np.random.default_rng(seed)
    stats = dice.normal(size=(num, 4))
    return stats, dice.random(num) < 1 / (1 + np.exp(-2 * stats[:, 1]))


def test_units_and_levels_do_not_matter():
    stats, y = _rows()
    moved = stats * [1e-6, 1e3, 1.0, 10.0] + [1.0, 1e6, -5.0, 0.0]
    np.testing.assert_allclose(
        fit_linear(moved, y).logits(moved), fit_linear(stats, y).logits(stats), rtol=1e-4, atol=1e-4
    )


def test_a_line_goes_on_beyond_what_was_seen():
    stats, y = _rows()
    model = fit_linear(stats, y)
    far = np.zeros((2, 4))
    far[:, 1] = 50, 100
    logits = model.logits(far)
    assert model.intercept < logits[0] < logits[1]


def test_far_beyond_what_was_seen_a_line_gets_no_louder_than_a_logarithm():
    stats, y = _rows()
    model = fit_linear(stats, y)
    far = np.zeros((2, 4))
    far[:, 1] = 1e4, 1e5
    logits = model.logits(far)
    assert logits[1] - logits[0] == pytest.approx(2 * np.log(10), rel=1e-3)
    assert logits[1] < 30


def test_near_the_boundary_log_odds_are_what_they_are():
    np.testing.assert_allclose(linear.damped(np.array([-0.3, 0.0, 0.3])), [-0.3, 0.0, 0.3], rtol=4e-3)


def test_windows_that_count_nothing_change_nothing():
    stats, y = _rows()
    weight = np.ones(200)
    weight[::4] = 0
    others, labels = stats.copy(), y.copy()
    others[::4], labels[::4] = 7.0, True
    np.testing.assert_allclose(
        fit_linear(others, labels, weight).logits(stats),
        fit_linear(stats, y, weight).logits(stats),
        rtol=1e-9,
    )


def test_a_statistic_without_a_value_reads_as_its_centre():
    stats, y = _rows()
    model = fit_linear(stats, y)
    gap = stats.copy()
    gap[:, 1] = np.nan
    centre = stats.copy()
    centre[:, 1] = model.center_S[1]
    np.testing.assert_allclose(model.logits(gap), model.logits(centre))


@pytest.mark.parametrize("rest", [0.0, 1e8, np.nan])
def test_what_stands_still_or_is_missing_gets_no_weight(rest):
    stats, y = _rows()
    stats[:, 2] = rest
    model = fit_linear(stats, y)
    assert model.weight_S[2] == 0
    assert np.isfinite(model.logits(stats)).all()


def test_rounding_of_a_high_level_is_no_signal():
    stats, y = _rows()
    stats[:, 2] = 1e6 * (1 + 1e-9 * y)
    assert fit_linear(stats, y).weight_S[2] == 0


def test_values_as_large_as_a_sensor_can_say_stay_finite():
    stats, y = _rows()
    stats[:, 1] *= 3e38
    model = fit_linear(stats, y)
    logits = model.logits(np.where(np.eye(4, dtype=bool), 3e38, stats[:4]))
    assert model.weight_S[1] != 0
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("labels", [np.zeros(20, bool), np.ones(20, bool)])
def test_one_class_gives_the_rate_it_has(labels):
    model = fit_linear(np.random.default_rng(0).normal(size=(20, 3)), labels)
    assert not model.weight_S.any()
    assert (model.logits(np.zeros((1, 3))) > 0) == labels[0]


def test_two_windows_are_enough_to_fit_something():
    model = fit_linear(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([False, True]))
    assert np.isfinite(model.logits(np.array([[0.5, 1.0]]))).all()


def test_a_file_gives_the_same_model():
    stats, y = _rows()
    model = fit_linear(stats, y)
    read = LinearModel.from_tensors(model.tensors(), 4)
    np.testing.assert_array_equal(read.logits(stats), model.logits(stats))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight_S": np.zeros(3)}, r"weight_S: expected float64 \[4\], got float64 \[3\]"),
        ({"center_S": np.zeros(4, np.float32)}, "center_S: expected float64"),
        ({"gain_S": np.array([1.0, np.nan, 1, 1])}, "gain_S is not finite"),
        ({"weight_S": np.full(4, 1e308)}, "weights add up to infinity"),
        ({"intercept": None}, "intercept: expected .* got nothing"),
    ],
)
def test_a_file_of_something_else_is_refused(change, says):
    tensors = fit_linear(*_rows()).tensors() | change
    with pytest.raises(ArtifactError, match=says):
        LinearModel.from_tensors({name: each for name, each in tensors.items() if each is not None}, 4)
