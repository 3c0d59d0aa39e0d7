"""The lasso: solutions are optimal, and the penalty is the one that predicts best."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.learn.members.lasso import LassoPath, fit_lasso


def _task(num=300, columns=30, seed=0, *, strength=1.0):
    """Two columns tell the label, a third nearly repeats the first, the others are noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, columns))
    x[:, 2] = x[:, 0] + 0.1 * x[:, 2]
    y = strength * (x[:, 0] - x[:, 1]) + rng.logistic(size=num) > 0.7
    return (x - x.mean(axis=0)) / x.std(axis=0), y


def _fit(x, y, weight):
    found = fit_lasso(x, y, weight, np.arange(len(x)) * 5 // len(x))
    return found.weight_S, found.intercept


def _gradient(x, y, weight, weights, intercept):
    error = weight / weight.sum() * (1 / (1 + np.exp(-(x @ weights + intercept))) - y)
    return x.T @ error, error.sum()


@pytest.mark.parametrize("penalty", [0.1, 0.03, 0.003])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("common", [0.0, 3.0])
def test_a_solution_is_optimal(penalty, is_weighted, common):
    x, y = _task()
    x = x + common * np.random.default_rng(1).normal(size=(300, 1))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    weight = np.linspace(0.2, 3, 300) if is_weighted else np.ones(300)
    path = LassoPath(np.column_stack([np.ones(300), x]), y.astype(float), weight)

    for each in (0.2, penalty):
        solution = path.at(each)

    gradient, of_intercept = _gradient(x, y, weight, solution[1:], solution[0])
    kept = solution[1:] != 0
    off = 2e-3 * penalty
    assert of_intercept == pytest.approx(0, abs=off)
    np.testing.assert_allclose(gradient[kept], -penalty * np.sign(solution[1:][kept]), atol=off)
    assert np.abs(gradient[~kept]).max() <= penalty + off
    assert kept.sum() < 30
    assert kept.any() or (penalty, common) == (0.1, 3.0)


def test_what_tells_nothing_is_left_out():
    x, y = _task(strength=2.0)

    weights, _ = _fit(x, y, np.ones(300))

    assert weights[0] + weights[2] > 0.5
    assert weights[1] < -0.5
    assert np.abs(np.delete(weights, [0, 1, 2])).max() < 0.3
    assert (weights == 0).sum() > 8


def test_where_nothing_tells_nothing_is_kept():
    x, _ = _task()
    y = np.random.default_rng(5).random(300) < 0.3

    weights, intercept = _fit(x, y, np.ones(300))

    assert np.abs(weights).max() < 0.15
    assert intercept == pytest.approx(np.log(y.mean() / (1 - y.mean())), abs=0.1)


def test_windows_that_count_nothing_change_nothing():
    (x, y), (other, _) = _task(), _task(seed=9)
    weight = np.tile([1.0, 1.0, 0.0], 100)
    changed = np.where(weight[:, None] > 0, x, other)
    labels = np.where(weight > 0, y, ~y)

    first, second = _fit(x, y, weight), _fit(changed, labels, weight)

    np.testing.assert_allclose(first[0], second[0], atol=1e-12)
    assert np.abs(first[0]).max() > 0.3


@pytest.mark.parametrize("num_defects", [1, 2])
def test_very_few_windows_give_finite_weights(num_defects):
    x, _ = _task(num=8)

    weights, intercept = _fit(x, np.arange(8) < num_defects, np.ones(8))

    assert np.isfinite(weights).all()
    assert np.isfinite(intercept)


def test_columns_that_are_all_zero_are_left_out():
    weights, intercept = _fit(np.zeros((20, 3)), np.arange(20) < 5, np.ones(20))

    assert not weights.any()
    assert intercept == pytest.approx(np.log(5 / 15))
