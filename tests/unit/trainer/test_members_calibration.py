"""Scores become probabilities, and rank as they did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from trainer.errors import ArtifactError
from trainer.learn.members.calibration import MIN_SLOPE, Calibration, fit_calibration, fit_correction


def _scores(slope, offset, num=4000, seed=0):
    dice = np.random.default_rng(seed)
    score = dice.normal(size=num)
    return score, dice.random(num) < 1 / (1 + np.exp(-(slope * score + offset)))


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (2.0, -3.0), (0.3, -2.0)])
def test_it_finds_what_the_labels_were_drawn_by(slope, offset):
    score, y = _scores(slope, offset)
    found = fit_calibration(score, y)
    assert (found.slope, found.offset) == pytest.approx((slope, offset), abs=0.2)
    assert found(score).mean() == pytest.approx(y.mean(), abs=0.002)


def test_it_is_the_regression_of_a_library():
    score, y = _scores(2.0, -3.0)
    peer = LogisticRegression(C=np.inf).fit(score[:, None], y)
    found = fit_calibration(score, y)
    assert (found.slope, found.offset) == pytest.approx((peer.coef_[0, 0], peer.intercept_[0]), abs=0.02)


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({defect for _, defect in rows}) == 2
    )
)
def test_the_ranking_stays_and_probabilities_are_some(rows):
    score, y = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    found = fit_calibration(score, y)
    assert found.slope >= MIN_SLOPE
    prob = found(score)
    assert ((prob >= 0) & (prob <= 1)).all()
    order = np.argsort(score, kind="stable")
    assert (np.diff(prob[order]) >= 0).all()


def test_classes_that_can_be_told_apart_promise_no_certainty():
    score = np.array([-1.0] * 30 + [1.0] * 10)
    prob = fit_calibration(score, score > 0)(score)
    assert prob[-1] == pytest.approx(11 / 12, abs=0.01)
    assert prob[0] == pytest.approx(1 / 32, abs=0.01)


def test_a_score_that_ranks_backwards_gives_the_rate_to_all():
    score, y = _scores(-2.0, -1.0)
    prob = fit_calibration(score, y)(score)
    assert prob == pytest.approx(y.mean(), abs=0.01)
    assert np.argmax(prob) == np.argmax(score)


def test_it_goes_through_a_file():
    found = Calibration(2.5, -1.25)
    assert Calibration.from_tensor(found.tensor()) == found


@pytest.mark.parametrize(
    "tensor",
    [
        None,
        np.zeros(3),
        np.array([0.0, 1.0]),
        np.array([-1.0, 0.0]),
        np.array([1.0, np.inf]),
        np.array([1e308, 0.0]),
        np.array([1.0, -1e308]),
        np.array([np.nan, 0.0]),
        np.ones(2, np.float32),
    ],
)
def test_a_file_of_something_else_is_refused(tensor):
    with pytest.raises(ArtifactError, match="calibration"):
        Calibration.from_tensor(tensor)


def test_many_groups_correct_what_is_too_sure():
    score, y = _scores(1.0, -1.0)
    found = fit_correction(3 * score + 1, y, num_groups=len(y))
    assert found.slope == pytest.approx(1 / 3, abs=0.07)
    assert found(3 * score + 1).mean() == pytest.approx(y.mean(), abs=0.01)


def test_few_groups_leave_it_nearly_as_it_is():
    score, y = _scores(1.0, -1.0)
    found = fit_correction(3 * score + 1, y, num_groups=5)
    assert found.slope > 0.85
    assert abs(found.offset) < 0.6


def test_what_is_right_stays():
    score, y = _scores(2.0, -3.0)
    found = fit_correction(2 * score - 3, y, num_groups=len(y))
    assert (found.slope, found.offset) == pytest.approx((1, 0), abs=0.12)


def test_a_correction_never_turns_the_ranking_round():
    score, y = _scores(-5.0, 0.0)
    assert fit_correction(score, y, num_groups=len(y)).slope >= MIN_SLOPE
