"""How much each member counts: never worse than the best of them, and the prior where nothing tells them apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from trainer.learn.members.calibration import Calibration
from trainer.learn.members.combination import (
    MIN_DEFECTIVE_GROUPS,
    Combination,
    Share,
    choose_weights,
    rank_qualities,
)

FEW = {"linear": 0.3, "trees": 0.7}
EVEN = {"lstm": 1 / 3, "linear": 1 / 3, "trees": 1 / 3}


def _labels(num=400, rate=0.2, seed=0):
    return np.random.default_rng(seed).random(num) < rate


def _member(y, skill, seed):
    return skill * y + np.random.default_rng(seed).normal(size=len(y))


def _choose(logits, y, group=None, prior=EVEN):
    group = np.arange(len(y)) if group is None else group
    prior = {name: prior.get(name, 0.0) for name in logits}
    return choose_weights(logits, y, group, prior=prior, few=FEW, tolerance=0.5, seed=0)


def _sum(weights, logits):
    return sum(weight * logits[name] for name, weight in weights.items())


def _quality(score, y):
    return (roc_auc_score(y, score) + average_precision_score(y, score)) / 2


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=3),
    st.integers(0, 10**6),
    st.integers(5 * MIN_DEFECTIVE_GROUPS, 200),
)
def test_it_is_never_worse_than_the_best_member(skills, seed, num):
    y = np.arange(num) % 5 == 0
    logits = {
        name: _member(y, skill, seed + k) for k, (name, skill) in enumerate(zip(EVEN, skills, strict=False))
    }
    chosen = _choose(logits, y)
    weights = list(chosen.values())
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1)
    assert _quality(_sum(chosen, logits), y) >= max(_quality(each, y) for each in logits.values()) - 1e-9


def test_a_member_that_tells_nothing_beside_one_that_does_counts_nothing_or_little():
    y = _labels()
    chosen = _choose({"lstm": _member(y, 0, 1), "linear": _member(y, 0, 2), "trees": _member(y, 5, 3)}, y)
    assert chosen["trees"] >= 0.8


def test_members_that_know_different_things_count_both():
    y = _labels()
    first, second = y.copy(), y.copy()
    first[::2], second[1::2] = False, False  # each sees half of the defects
    logits = {"linear": _member(first, 4, 1), "trees": _member(second, 4, 2)}
    weights = _choose(logits, y)
    assert min(weights.values()) >= 0.3


def test_where_nothing_tells_them_apart_the_prior_counts():
    y = _labels(60)
    score = _member(y, 2, 1)
    chosen = _choose({"lstm": score, "linear": score.copy(), "trees": score.copy()}, y, prior={"trees": 1.0})
    assert chosen == {"lstm": 0, "linear": 0, "trees": 1}


def test_windows_of_one_group_are_one_piece_of_evidence():
    y = np.repeat(_labels(8, 0.5), 50)
    group = np.repeat(np.arange(8), 50)
    dice = np.random.default_rng(5)
    # One group alone makes the difference, with all its windows.
    good = _member(y, 1, 1)
    better = good + 3 * y * (group == np.flatnonzero(y)[0] // 50)
    logits = {"linear": good + 0.01 * dice.normal(size=400), "trees": better}
    by_window = _choose(logits, y, prior={"linear": 1.0})["trees"]
    by_group = _choose(logits, y, group, prior={"linear": 1.0})["trees"]
    assert by_window >= by_group


@pytest.mark.parametrize(("num_defective", "counts"), [(9, False), (10, True)])
def test_few_groups_with_defects_choose_nothing(num_defective, counts):
    group = np.repeat(np.arange(30), 20)
    y = (group < num_defective) & (np.arange(600) % 2 == 0)
    knows, knows_not = y + 0.0, np.random.default_rng(0).normal(size=600) - y
    weights = _choose({"linear": knows, "trees": knows_not}, y, group, prior={"trees": 1.0})
    assert (weights["linear"] > 0.5) == counts
    assert counts or weights == FEW


def test_only_members_that_count_are_asked():
    combination = Combination({"lstm": Share(Calibration(), 0), "trees": Share(Calibration(0.5, -0.5), 1)})
    assert combination.counting == ("trees",)
    np.testing.assert_allclose(combination({"trees": np.array([1.0, 3.0])}), [0, 1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=50), st.data())
def test_qualities_are_those_of_scikit_learn(rows, data):
    score, y = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))), float)
    if not (counts @ y > 0 and counts @ ~y > 0):
        return
    expected = (
        roc_auc_score(y, score, sample_weight=counts)
        + average_precision_score(y, score, sample_weight=counts)
    ) / 2
    assert rank_qualities(score[:, None], y, counts[None])[0, 0] == pytest.approx(expected, abs=1e-9)
