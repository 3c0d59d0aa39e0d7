"""Baselines: simple, deterministic, and not put off by what sensors leave out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.members.labelled import LabelledPart
from trainer.learn.scores import baselines
from trainer.learn.scores.baselines import fit_baselines, score_baselines
from trainer.learn.scores.evaluate import evaluate

NAMES = ["logistic_regression", "hist_gradient_boosting"]


def _windows(num=120, seed=0, num_steps=20, num_sensors=3):
    """Windows whose first sensor swings wider when they are defective."""
    rng = np.random.default_rng(seed)
    y = (np.arange(num) % 3 == 0).astype(np.int8)
    x = rng.normal(size=(num, num_steps, num_sensors)).astype(np.float32)
    x[:, :, 0] = 150 + x[:, :, 0] * (1 + 3 * y[:, None])
    return x, np.ones((num, num_steps), np.bool_), y


def _auc_roc(baseline, x, mask, y):
    return evaluate(y, baseline.predict(x, mask), 0.5).auc_roc


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_what_shows_in_the_statistics_of_windows_it_has_not_seen(name):
    fitted = fit_baselines(*_windows())

    assert list(fitted) == NAMES
    assert _auc_roc(fitted[name], *_windows(seed=1)) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_slope_on_a_high_level_is_found(name):
    # In float32 the squares of such a level leave nothing of what it varies by.
    x, mask, y = _windows(300)
    x[:, :, 0] = 1e5 + np.linspace(-0.5, 0.5, x.shape[1]) * np.where(y, 1, -1)[:, None]

    assert _auc_roc(fit_baselines(x[:200], mask[:200], y[:200])[name], x[200:], mask[200:], y[200:]) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_the_same_windows_and_seed_give_the_same_scores(name):
    # Enough windows for the boosting to set some aside by its seed.
    x, mask, y = _windows(10_050, num_steps=3, num_sensors=1)

    first, again = (fit_baselines(x, mask, y, seed=3)[name].predict(x, mask) for _ in range(2))

    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_masked_steps_changes_nothing(name):
    x, mask, y = _windows()
    mask[:, 15:] = False
    other = x.copy()
    other[:, 15:] = 1e9

    fitted, same = fit_baselines(x, mask, y)[name], fit_baselines(other, mask, y)[name]

    np.testing.assert_array_equal(fitted.predict(x, mask), same.predict(other, mask))
    short = fitted.predict(x[:, :15], mask[:, :15])
    np.testing.assert_allclose(fitted.predict(x, mask), short, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_sensor_never_seen_in_training_is_ignored_when_it_comes_to_life(name):
    x, mask, y = _windows()
    x[:, :, 1] = np.nan
    alive = x.copy()
    alive[:, :, 1] = 7.0

    fitted = fit_baselines(x, mask, y)[name]

    np.testing.assert_array_equal(fitted.predict(alive, mask), fitted.predict(x, mask))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_gaps_and_a_window_without_any_value_are_scored(name, missing):
    x, mask, y = _windows()
    x[::4, :, 0] = missing
    x[5] = missing
    mask[6] = False

    prob = fit_baselines(x, mask, y)[name].predict(x, mask)

    assert ((prob >= 0) & (prob <= 1)).all()


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(label):
    x, mask, y = _windows()

    with pytest.raises(NotEnoughDataError, match=f"got {120 * label} defective of 120 windows"):
        fit_baselines(x, mask, np.full_like(y, label))


@pytest.mark.parametrize("labels", [(0, 2), (-1, 1), (0.5, 1.0), (0.0, np.nan)])
def test_a_label_that_is_neither_0_nor_1_is_refused(labels):
    x, mask, y = _windows()

    with pytest.raises(ModelInputError, match="a label is neither 0 nor 1"):
        fit_baselines(x, mask, np.where(y, *labels))


@pytest.mark.parametrize("rare", [0, 1])
def test_one_window_of_a_class_is_enough_however_many_there_are_of_the_other(rare):
    # So many that the boosting would set some of each class aside.
    x, mask, _ = _windows(10_050, num_steps=2, num_sensors=1)
    y = np.full(len(x), 1 - rare)
    y[7] = rare

    fitted = fit_baselines(x, mask, y)

    assert all(np.isfinite(each.predict(x[:9], mask[:9])).all() for each in fitted.values())


def test_windows_without_a_value_are_refused():
    x, mask, y = _windows()

    with pytest.raises(ModelInputError, match="no valid value in 120 windows"):
        fit_baselines(np.full_like(x, np.nan), mask, y)


def test_shapes_that_do_not_fit_are_refused():
    x, mask, y = _windows()
    fitted = fit_baselines(x, mask, y)["logistic_regression"]

    for arrays in (
        *((x[0], mask, y), (x, mask[:, 1:], y), (x[:, :0], mask[:, :0], y), (x, mask, y[1:])),
        (x, mask.astype(np.int8), y),
    ):
        with pytest.raises(ModelInputError, match="expected"):
            fit_baselines(*arrays)
    with pytest.raises(ModelInputError, match="expected 3 sensors, got 2"):
        fitted.predict(x[:, :, :2], mask)
    assert fitted.predict(x[:0], mask[:0]).shape == (0,)


def test_a_regression_that_has_not_settled_says_nothing(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_ITERATIONS", 1)
    x, mask, y = _windows()

    with pytest.warns(ConvergenceWarning) as outside:
        baselines._classifiers(0)["logistic_regression"].fit(x[:, :, 0], y)
    assert outside
    assert fit_baselines(x, mask, y)


def test_scores_are_those_of_the_third_part_at_a_threshold_of_the_second():
    train, validation = LabelledPart(*_windows()), LabelledPart(*_windows(seed=1))
    x, mask, y = _windows(seed=2)

    scores = score_baselines(train, validation, LabelledPart(x, mask, y))
    turned = score_baselines(train, validation, LabelledPart(x, mask, 1 - y))

    assert all(scores[name].scores.auc_roc > 0.95 and scores[name].scores.f1 > 0.9 for name in NAMES)
    # A threshold chosen on the third part would call every window defective, which makes an F1 of 0.8.
    assert all(turned[name].scores.auc_roc < 0.05 and turned[name].scores.f1 < 0.2 for name in NAMES)


def test_parts_that_are_places_score_as_copies_of_them_do():
    x, mask, y = _windows(300)
    places = np.split(np.random.default_rng(3).permutation(300), [150, 220])

    of_places = score_baselines(*(LabelledPart(x, mask, y, each) for each in places))
    of_copies = score_baselines(*(LabelledPart(x[each], mask[each], y[each]) for each in places))
    for name in NAMES:
        assert of_places[name].scores == of_copies[name].scores
        np.testing.assert_array_equal(of_places[name].prob_N, of_copies[name].prob_N)


def test_what_only_the_second_part_shows_is_learned():
    x, mask, y = _windows()
    shuffled = LabelledPart(x, mask, np.random.default_rng(0).permutation(y))
    shows = LabelledPart(*_windows(1200, seed=1))

    scores = score_baselines(shuffled, shows, LabelledPart(*_windows(seed=2)))
    assert all(scores[name].scores.auc_roc > 0.9 for name in NAMES)
