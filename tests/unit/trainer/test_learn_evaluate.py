from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.model.network import build_model
from trainer.learn.scores.evaluate import best_threshold, evaluate, predict, probability_histogram


def _noisy(num=300, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random(num) < 0.2).astype(np.int8)
    return y, np.clip(0.3 + 0.3 * y + rng.normal(0, 0.2, num), 0, 1)


def test_a_perfect_ranking_scores_1_and_a_reversed_one_0():
    y, prob = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])

    assert evaluate(y, prob, 0.5).auc_roc == 1.0
    assert evaluate(y, 1 - prob, 0.5).auc_roc == 0.0


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.7, 1.1])
def test_decisions_are_scored_as_scikit_learn_does(threshold):
    y, prob = _noisy()
    called = prob >= threshold

    scores = evaluate(y, prob, threshold)

    good, defective = zip(*precision_recall_fscore_support(y, called, zero_division=0.0)[:3], strict=True)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx(defective)
    assert (scores.precision_good, scores.recall_good, scores.f1_good) == pytest.approx(good)
    assert scores.accuracy == pytest.approx(accuracy_score(y, called))
    assert scores.auc_roc == roc_auc_score(y, prob)
    assert scores.auc_pr == average_precision_score(y, prob)
    assert scores.brier == pytest.approx(brier_score_loss(y, prob))
    assert (scores.num_windows, scores.num_defects) == (300, y.sum())
    assert scores.base_rate == pytest.approx(y.mean())


@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_that_of_scikit_learns_curve(seed):
    y, prob = _noisy(seed=seed)
    prob = np.round(prob, 2)
    rate, mean = calibration_curve(y, prob, n_bins=10)
    sizes = np.array([size for size in probability_histogram(prob) if size])

    assert evaluate(y, prob, 0.5).ece == pytest.approx(np.average(np.abs(rate - mean), weights=sizes))


def test_probabilities_that_are_true_have_no_calibration_error_and_sure_mistakes_have_all_of_it():
    y = np.array([0, 0, 0, 1, 0, 1, 1, 1])

    assert evaluate(y, np.array([0.25] * 4 + [0.75] * 4), 0.5).ece == 0.0
    assert evaluate(y, 1.0 - y, 0.5).ece == 1.0


def test_the_histogram_counts_every_probability_once():
    prob = np.array([0.0, 0.05, 0.1, 0.11, 0.5, 0.95, 1.0, 1.0])

    assert probability_histogram(prob) == (3, 1, 0, 0, 1, 0, 0, 0, 0, 3)
    assert probability_histogram(prob, num_bins=2) == (5, 3)
    assert probability_histogram(prob[:0], num_bins=3) == (0, 0, 0)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_the_histogram_refuses_what_is_no_probability(bad):
    with pytest.raises(ModelInputError, match="a probability is NaN or outside"):
        probability_histogram(np.array([0.5, bad]))


@pytest.mark.parametrize("y", [[0, 2], [-1, 1], [0.5, 1.0]])
def test_a_label_that_is_neither_0_nor_1_is_refused(y):
    with pytest.raises(ModelInputError, match="a label is neither 0 nor 1"):
        evaluate(np.array(y), np.array([0.1, 0.9]), 0.5)


@pytest.mark.parametrize("y", [np.zeros(4, int), np.ones(4, int), np.zeros(0, int)])
def test_one_class_has_no_score(y):
    with pytest.raises(NotEnoughDataError, match="both classes"):
        evaluate(y, np.full(len(y), 0.5), 0.5)
    with pytest.raises(NotEnoughDataError, match="both classes"):
        best_threshold(y, np.full(len(y), 0.5))


@pytest.mark.parametrize("prob", [[0.1, np.nan], [0.1, 1.2], [0.1]])
def test_what_is_no_probability_is_refused(prob):
    with pytest.raises(ModelInputError):
        evaluate(np.array([0, 1]), np.array(prob), 0.5)


def test_the_best_threshold_beats_every_other():
    y, prob = _noisy(80)
    best = best_threshold(y, prob)

    best_f1 = evaluate(y, prob, best).f1
    assert best_f1 >= max(evaluate(y, prob, t).f1 for t in np.unique(prob))


def test_among_the_best_thresholds_the_highest_is_found_however_their_f1_rounds():
    # One of two defects in four calls, and both in ten: an F1 of one third either way.
    y = np.array([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, *[0] * 6])
    prob = np.array([*[0.9] * 4, *[0.5] * 6, *[0.1] * 6])

    assert best_threshold(y, prob) == 0.9


@settings(deadline=None)  # other tests keep this machine busy
@given(st.integers(0, 10_000))
def test_no_higher_threshold_is_as_good_as_the_best(seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(rng.integers(3, 40)) % 3 == 0)
    prob = rng.random(len(y)).round(2)

    best = best_threshold(y, prob)

    best_f1 = evaluate(y, prob, best).f1
    assert all(evaluate(y, prob, t).f1 < best_f1 for t in np.unique(prob) if t > best)


def test_prediction_does_not_depend_on_the_batch_size_and_leaves_the_mode_as_it_was():
    x = np.random.default_rng(0).normal(size=(11, 9, 2)).astype(np.float32)
    mask = np.ones((11, 9), bool)
    mask[3, 5:] = False
    model = build_model(ArchitectureConfig(hidden_size=8), 2, seed=0).train()

    all_at_once = predict(model, x, mask)

    np.testing.assert_allclose(predict(model, x, mask, batch_size=1), all_at_once, rtol=1e-5)
    assert model.training
    with torch.no_grad():
        np.testing.assert_allclose(
            all_at_once, torch.sigmoid(model.eval()(torch.tensor(x), torch.tensor(mask))), rtol=1e-5
        )
    assert all_at_once.dtype == np.float64
    assert predict(model, x[:0]).shape == (0,)


def test_some_windows_are_predicted_as_a_copy_of_them_is_to_the_bit():
    x = np.random.default_rng(0).normal(size=(40, 9, 2)).astype(np.float32)
    mask, index_N = np.ones((40, 9), bool), np.random.default_rng(1).permutation(40)[:23]
    model = build_model(ArchitectureConfig(hidden_size=8), 2, seed=0)

    prob = predict(model, x, mask, index_N=index_N, batch_size=7)

    assert np.array_equal(prob, predict(model, x[index_N], mask[index_N], batch_size=7))
    assert predict(model, x, mask, index_N=index_N[:0]).shape == (0,)
