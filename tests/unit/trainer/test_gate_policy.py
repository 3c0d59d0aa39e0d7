"""The gate: average precision over resamples, and how often it lets through what it should (not)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.gate.bootstrap import average_precisions, resample_casts
from trainer.gate.config import GateConfig
from trainer.gate.policy import GateDecision, decide

FAST = GateConfig(num_bootstrap=200)
WINDOWS = 4
SENSORS = 20


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine more threads make these small fits ten times slower."""
    with threadpool_limits(1):
        yield


Plant = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]


def plant(rng: np.random.Generator, num_casts: int, shift: float = 2.0, defective: float = 0.15) -> Plant:
    """Casts of four windows; half of the defective ones are so in one window only. Two sensors show it."""
    cast_N = np.repeat(np.arange(num_casts), WINDOWS)
    y_CW = np.zeros((num_casts, WINDOWS), dtype=bool)
    for cast in rng.permutation(num_casts)[: round(defective * num_casts)]:
        y_CW[cast, rng.integers(WINDOWS) if rng.random() < 0.5 else slice(None)] = True
    y_N = y_CW.ravel()
    x_NF = 0.7 * rng.normal(size=(num_casts, SENSORS))[cast_N] + 0.7 * rng.normal(size=(len(y_N), SENSORS))
    x_NF[:, 0] += shift * y_N
    x_NF[:, 1] += 0.5 * shift * y_N
    return x_NF, y_N, cast_N


def shuffled(rng: np.random.Generator, y_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The same verdicts on other casts."""
    return y_N.reshape(-1, WINDOWS)[rng.permutation(len(y_N) // WINDOWS)].ravel()


def fitted(x_NF: npt.NDArray[np.float64], y_N: npt.NDArray[np.bool_]) -> LogisticRegression:
    return LogisticRegression(max_iter=300).fit(x_NF, y_N)


def rate(decisions: list[GateDecision]) -> float:
    return sum(decision.promote for decision in decisions) / len(decisions)


@pytest.mark.parametrize("decimals", [1, 8], ids=["many ties", "no ties"])
def test_the_average_precision_of_a_resample_is_that_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(1)
    _, y_N, cast_N = plant(rng, 60)
    score_N = np.round(rng.normal(size=len(y_N)) + y_N, decimals)
    weights_RC = resample_casts(y_N.reshape(-1, WINDOWS).any(axis=1), 20, rng)
    expected = [average_precision_score(y_N, score_N, sample_weight=w_C[cast_N]) for w_C in weights_RC]
    np.testing.assert_allclose(average_precisions(y_N, score_N, weights_RC, cast_N), expected, rtol=1e-12)


def test_a_long_gate_part_is_computed_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    _, y_N, cast_N = plant(rng, 40)
    score_N = rng.normal(size=len(y_N))
    weights_RC = resample_casts(y_N.reshape(-1, WINDOWS).any(axis=1), 25, rng)
    at_once = average_precisions(y_N, score_N, weights_RC, cast_N)
    monkeypatch.setattr("trainer.gate.bootstrap._MAX_VALUES_AT_ONCE", 3 * len(y_N))
    np.testing.assert_array_equal(average_precisions(y_N, score_N, weights_RC, cast_N), at_once)


def test_each_resample_holds_as_many_defective_and_good_casts_as_the_gate_part() -> None:
    defective_C = np.arange(30) < 10
    weights_RC = resample_casts(defective_C, 200, np.random.default_rng(3))
    assert (weights_RC[:, defective_C].sum(axis=1) == 10).all()
    assert (weights_RC[:, ~defective_C].sum(axis=1) == 20).all()
    assert (weights_RC == 0).any(axis=1).all()


def test_windows_of_a_cast_are_resampled_together() -> None:
    # Twelve windows each that say the same are worth one: the bound is as wide as with one window a cast.
    rng = np.random.default_rng(4)
    y_C = np.arange(40) < 12
    score_C = rng.normal(size=40) + y_C
    once = decide(y_C, np.arange(40), score_C, None, FAST)
    often = decide(np.repeat(y_C, 12), np.repeat(np.arange(40), 12), np.repeat(score_C, 12), None, FAST)
    assert (often.lower, often.median) == pytest.approx((once.lower, once.median))
    assert (often.num_windows, often.num_casts) == (480, 40)


def test_the_same_scores_give_the_same_decision_whatever_the_casts_are_called() -> None:
    rng = np.random.default_rng(5)
    x_NF, y_N, cast_N = plant(rng, 80)
    names_N = np.array([f"C{cast:06d}" for cast in cast_N])
    first = decide(y_N, cast_N, x_NF[:, 0], x_NF[:, 1], FAST)
    assert decide(y_N, names_N, x_NF[:, 0], x_NF[:, 1], FAST) == first
    assert first.comparison == "champion"
    assert first.champion is not None
    assert first.challenger.auc_pr == average_precision_score(y_N, x_NF[:, 0])


def test_a_challenger_equal_to_the_champion_replaces_it() -> None:
    x_NF, y_N, cast_N = plant(np.random.default_rng(6), 80)
    decision = decide(y_N, cast_N, x_NF[:, 0], x_NF[:, 0], FAST)
    assert decision.promote
    assert (decision.median, decision.lower) == (0.0, 0.0)


def test_reasons_give_the_figures_of_each_condition() -> None:
    x_NF, y_N, cast_N = plant(np.random.default_rng(7), 80)
    refused = decide(y_N, cast_N, x_NF[:, 5], x_NF[:, 0], FAST)
    assert not refused.promote
    upper = refused.checks[0].value
    assert upper is not None
    assert refused.reasons == (
        f"upper 90% bound of the AUC-PR difference to the champion is {upper:+.3f}, below +0.000",
        f"median of it is {refused.median:+.3f}, below -0.100",
        f"lower 10% bound of it is {refused.lower:+.3f}, below -0.300",
    )
    first = decide(y_N, cast_N, x_NF[:, 0], None, FAST)
    assert first.promote
    assert first.reasons == (
        f"first model: lower 10% bound of AUC-PR above the base rate is {first.lower:+.3f}, above 0.100",
    )


def test_checks_keep_the_figures_of_each_condition_whole() -> None:
    x_NF, y_N, cast_N = plant(np.random.default_rng(7), 80)
    config = GateConfig(
        num_bootstrap=200,
        min_upper_difference=-1,
        min_median=-0.9,
        min_lower_difference=-0.05,
        min_first_lift=0.2,
    )
    refused = decide(y_N, cast_N, x_NF[:, 5], x_NF[:, 0], config)
    assert refused.checks[0].name == "upper_difference"
    assert [(check.name, check.value, check.bound, check.met) for check in refused.checks[1:]] == [
        ("median_difference", refused.median, -0.9, True),
        ("lower_difference", refused.lower, -0.05, False),
    ]
    assert not refused.promote  # one condition that is not met suffices
    first = decide(y_N, cast_N, x_NF[:, 0], None, config)
    assert [(check.name, check.value, check.bound, check.met) for check in first.checks] == [
        ("first_lift", first.lower, 0.2, True)
    ]
    for decision in (refused, first):
        assert tuple(check.text for check in decision.checks) == decision.reasons


def test_a_constant_first_model_is_refused_even_without_a_margin() -> None:
    _, y_N, cast_N = plant(np.random.default_rng(8), 80)
    config = GateConfig(num_bootstrap=300, min_first_lift=0)
    assert not decide(y_N, cast_N, np.zeros(len(y_N)), None, config).promote


def test_too_few_casts_of_a_kind_say_how_many_are_missing() -> None:
    y_N = np.arange(48) < 7
    with pytest.raises(NotEnoughDataError, match=r"7 of 10 defective casts and 41 of 10 good casts; "):
        decide(y_N, np.arange(48), np.zeros(48), None, FAST)
    with pytest.raises(NotEnoughDataError, match=r"wait for 3 more defective casts$"):
        decide(y_N, np.arange(48), np.zeros(48), None, FAST)
    with pytest.raises(NotEnoughDataError, match=r"wait for 10 more defective casts and 1 more good cast$"):
        decide(np.zeros(36, bool), np.repeat(np.arange(9), 4), np.zeros(36), None, FAST)


def test_ten_of_each_kind_are_enough() -> None:
    y_N = np.arange(20) < 10
    assert decide(y_N, np.arange(20), y_N.astype(float), None, FAST).promote


@pytest.mark.parametrize(
    ("y", "cast", "challenger", "champion", "message"),
    [
        ([0, 1], [1, 2], [0.1, np.nan], None, "challenger: 1 of 2 scores are NaN"),
        ([0, 1], [1, 2], [0.1, 0.2], [0.1, np.inf], "champion: 1 of 2 scores are NaN"),
        ([0, 1], [1, 2], [0.1], None, "expected 2 scores"),
        ([0, 1], [1], [0.1, 0.2], None, "cast of 2 windows"),
        ([0, 2], [1, 2], [0.1, 0.2], None, "one 0 or 1 a window"),
        ([0, np.nan], [1, 2], [0.1, 0.2], None, "one 0 or 1 a window"),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_errors(
    y: list[float], cast: list[int], challenger: list[float], champion: list[float] | None, message: str
) -> None:
    with pytest.raises(ModelInputError, match=message):
        decide(y, cast, challenger, champion, FAST)


def test_a_first_model_trained_on_shuffled_labels_is_refused() -> None:
    """At least 95 % are, with labels shuffled in training only, and in training and gate alike.

    Shuffled in training only, a random ranking of the sensors is left, and some of these are better than
    chance: without the margin a third of them pass.
    """
    training_only, throughout, without_margin = [], [], []
    for seed in range(1000, 1100):
        rng = np.random.default_rng(seed)
        x_NF, y_N, _ = plant(rng, 200)
        gate_NF, gate_N, cast_N = plant(rng, 100)
        fooled = fitted(x_NF, shuffled(rng, y_N)).decision_function(gate_NF)
        training_only.append(decide(gate_N, cast_N, fooled, None, FAST))
        throughout.append(decide(shuffled(rng, gate_N), cast_N, fooled, None, FAST))
        without_margin.append(training_only[-1].lower > 0)
    assert rate(training_only) <= 0.05
    assert rate(throughout) <= 0.05
    assert np.mean(without_margin) > 0.15


def test_a_first_model_that_learned_something_is_promoted() -> None:
    decisions = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x_NF, y_N, _ = plant(rng, 200)
        gate_NF, gate_N, cast_N = plant(rng, 70)
        decisions.append(decide(gate_N, cast_N, fitted(x_NF, y_N).decision_function(gate_NF), None, FAST))
    assert rate(decisions) >= 0.95


def test_against_a_champion_worse_models_are_refused_and_better_ones_promoted() -> None:
    decisions: dict[str, list[GateDecision]] = {"shuffled": [], "worse": [], "again": [], "better": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x_NF, y_N, _ = plant(rng, 60)
        more_NF, more_N, _ = plant(rng, 400)
        gate_NF, gate_N, cast_N = plant(rng, 150)
        champion = fitted(x_NF, y_N).decision_function(gate_NF)
        noise_N = rng.normal(size=len(gate_N), scale=2 * champion.std())
        challengers = {
            "shuffled": fitted(x_NF, shuffled(rng, y_N)).decision_function(gate_NF),
            "worse": champion + noise_N,
            "again": champion + 0.02 * noise_N,
            "better": fitted(more_NF, more_N).decision_function(gate_NF),
        }
        for name, score_N in challengers.items():
            decisions[name].append(decide(gate_N, cast_N, score_N, champion, FAST))
    rates = {name: rate(of_kind) for name, of_kind in decisions.items()}
    assert rates["shuffled"] <= 0.05, rates
    assert rates["worse"] <= 0.05, rates
    assert rates["again"] >= 0.9, rates
    assert rates["better"] >= 0.9, rates


def test_a_thousand_resamples_of_300_casts_take_two_seconds_at_most() -> None:
    x_NF, y_N, cast_N = plant(np.random.default_rng(9), 300)
    start = time.process_time()
    decide(y_N, cast_N, x_NF[:, 0], x_NF[:, 1], GateConfig(num_bootstrap=1000))
    assert time.process_time() - start < 2.0


def test_a_challenger_that_is_worse_for_certain_is_refused_however_little_it_is_worse() -> None:
    rng = np.random.default_rng(11)
    x_NF, y_N, cast_N = plant(rng, 3000)
    champion_N = x_NF[:, 0]
    decision = decide(y_N, cast_N, champion_N + 0.3 * rng.normal(size=len(y_N)), champion_N, FAST)
    assert -0.10 < decision.median < 0
    assert [check.name for check in decision.checks if not check.met] == ["upper_difference"]


@pytest.mark.parametrize(("rule", "promotes"), [("refuse", False), ("warn", True)])
def test_a_challenger_behind_a_baseline_is_refused_unless_told_otherwise(
    rule: Literal["refuse", "warn"], promotes: bool
) -> None:
    rng = np.random.default_rng(12)
    x_NF, y_N, cast_N = plant(rng, 300)
    worse_N = x_NF[:, 0] + 2 * rng.normal(size=len(y_N)) * x_NF[:, 0].std()
    baselines = {"logistic_regression": rng.normal(size=len(y_N)), "hist_gradient_boosting": x_NF[:, 0]}
    config = FAST.model_copy(update={"baseline": rule, "min_first_lift": 0.0})
    decision = decide(y_N, cast_N, worse_N, None, config, baselines=baselines)
    assert decision.promote == promotes
    if not promotes:
        assert "AUC-PR difference to hist_gradient_boosting is -" in decision.reasons[-1]
    level = decide(y_N, cast_N, x_NF[:, 0], None, config, baselines=baselines)
    assert level.promote
