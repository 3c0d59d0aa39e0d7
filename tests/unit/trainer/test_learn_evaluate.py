from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.evaluate import best_threshold, evaluate, predict
from trainer.learn.model import build_model


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

    assert scores.precision == precision_score(y, called, zero_division=0.0)
    assert scores.recall == recall_score(y, called)
    assert scores.f1 == pytest.approx(f1_score(y, called))
    assert scores.brier == pytest.approx(brier_score_loss(y, prob))
    assert (scores.num_windows, scores.num_defects) == (300, y.sum())
    assert scores.base_rate == pytest.approx(y.mean())


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
