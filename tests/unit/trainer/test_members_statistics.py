"""Statistics of windows: each against a slow reference, whatever is missing, and no rounding that tells a thing."""

from __future__ import annotations

import math
import statistics as reference
import tracemalloc
from itertools import combinations, pairwise

import numpy as np
import pytest

from trainer.errors import ModelInputError
from trainer.learn.members import statistics
from trainer.learn.members.statistics import LAGS, MAX_PAIRS, OF_SENSOR, WindowStatistics

SENSORS = ("one", "two", "three")
DIFFERENCES = ((0, 2, 0.25), (1, 0, -3.0))
EACH = WindowStatistics(3, list(combinations(range(3), 2)), DIFFERENCES)
ONE = WindowStatistics(1)


def _windows(num=40, steps=30, sensors=3, seed=0, level=0.0):
    """Values that remember a step, some of them equal to the one before, and a tenth missing."""
    rng = np.random.default_rng(seed)
    x = np.round(np.cumsum(rng.normal(size=(num, steps, sensors)), axis=1)) + level
    x[rng.random(x.shape) < 0.1] = np.nan
    return x.astype(np.float32), rng.random((num, steps)) < 0.9


def _of_window(x_TF, mask_T, compute=EACH, sensors=SENSORS):
    """The statistics of one window by their names."""
    stats_1S = compute(np.asarray(x_TF, np.float32)[None], np.asarray(mask_T, np.bool_)[None])
    return dict(zip(compute.names(sensors), stats_1S[0].tolist(), strict=True))


def _of_values(*values):
    """The same of one sensor in a window without a mask."""
    found = _of_window([[each] for each in values], [True] * len(values), ONE, ["it"])
    return {name.removesuffix(" of it"): value for name, value in found.items()}


def _slow(x_TF, mask_T):
    """As `_of_window`, from lists of Python's numbers."""
    said = [
        {t: float(x) for t, x in enumerate(x_T) if mask_T[t] and math.isfinite(x)}
        for x_T in np.asarray(x_TF, np.float32).T
    ]
    found = {}
    for name, value in zip(SENSORS, said, strict=True):
        found |= {f"{what} of {name}": stat for what, stat in _slow_of_sensor(value).items()}
        share = 1 - len(value) / sum(mask_T) if any(mask_T) else math.nan
        found[f"share of steps without a value of {name}"] = share
    for (a, one), (b, other) in combinations(enumerate(said), 2):
        found[f"correlation of {SENSORS[a]} and {SENSORS[b]}"] = _slow_correlation(one, other)
    for a, b, gain in DIFFERENCES:
        less = f"mean of {SENSORS[a]} less {gain} times that of {SENSORS[b]}".replace(".0", "")
        found[less] = found[f"mean of {SENSORS[a]}"] - gain * found[f"mean of {SENSORS[b]}"]
    return found


def _slow_of_sensor(said):
    if not said:
        return dict.fromkeys(OF_SENSOR[:-1], math.nan)
    values = list(said.values())
    found = {
        "mean": reference.fmean(values),
        "standard deviation": reference.pstdev(values),
        "minimum": min(values),
        "maximum": max(values),
        "slope": reference.linear_regression(list(said), values).slope if len(said) > 1 else 0.0,
        "median": reference.median(values),
        "longest stretch without change": _slow_stretch(said),
    }
    for lag in LAGS:
        changes = [(said[t + lag] - x) ** 2 for t, x in said.items() if t + lag in said]
        known = changes and found["standard deviation"] > 0
        half = reference.fmean(changes) / 2 / found["standard deviation"] ** 2 if known else math.nan
        found[f"autocorrelation over {lag} steps"] = 1 - half
    return found


def _slow_stretch(said):
    longest = here = 0
    neighbours = [(t, u) for t, u in pairwise(said) if u == t + 1]
    for t, u in pairwise(said):
        here = here + 1 if (t, u) in neighbours and said[t] == said[u] else 0
        longest = max(longest, here)
    return longest if neighbours else math.nan


def _slow_correlation(one, other):
    both = [(one[t], other[t]) for t in one if t in other]
    if len(both) < 3 or any(len(set(values)) == 1 for values in zip(*both, strict=True)):
        return math.nan
    return reference.correlation(*zip(*both, strict=True))


def _assert_as_slow(x_NTF, mask_NT, tolerance=1e-9):
    for x_TF, mask_T in zip(x_NTF, mask_NT, strict=True):
        assert _of_window(x_TF, mask_T) == pytest.approx(
            _slow(x_TF, mask_T), rel=tolerance, abs=tolerance, nan_ok=True
        )


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 30])
def test_each_is_what_a_slow_reference_says_whatever_is_missing(steps):
    _assert_as_slow(*_windows(steps=steps))


def test_each_is_what_a_slow_reference_says_of_gaps_infinities_and_constants():
    x, mask = _windows()
    x[0] = np.nan
    x[1, :, 0] = 7.1
    x[2, 1:] = np.nan
    x[3, ::2, 1] = np.inf
    x[3, 5, 2] = -np.inf
    x[4, 10:20] = np.nan
    x[5, :, 0], x[5, :15, 1], x[5, 15:, 2] = x[5, 0, 1], np.nan, np.nan
    x[6, 2:, :2] = 0.1
    x[7, :, :] = 1e6 + 0.1
    mask[8] = False
    mask[9, 1:] = False
    mask[10, 20:] = False

    _assert_as_slow(x, mask)


@pytest.mark.parametrize("level", [1e6, -1e6])
def test_a_level_a_million_times_what_a_sensor_varies_by_takes_no_digits(level):
    x, mask = _windows(level=level)

    _assert_as_slow(x, mask, tolerance=1e-8)


@pytest.mark.parametrize("value", [0.1, -7.3, 1e6 + 0.0625, 1e30, 1e-40])
def test_a_sensor_that_stands_still_varies_by_exactly_0(value):
    found = _of_values(*[value] * 37)

    assert found["standard deviation"] == found["slope"] == 0
    assert (
        found["mean"] == found["minimum"] == found["median"] == found["maximum"] == float(np.float32(value))
    )
    assert found["longest stretch without change"] == 36
    assert all(math.isnan(found[f"autocorrelation over {lag} steps"]) for lag in LAGS)


def test_a_sensor_that_stands_still_where_the_other_speaks_is_correlated_with_nothing():
    x = np.random.default_rng(0).normal(size=(30, 3))
    x[:15, 0], x[15:, 1] = 0.1, np.nan

    assert math.isnan(_of_window(x, [True] * 30)["correlation of one and two"])


def test_a_correlation_is_never_larger_than_1():
    x, mask = _windows(num=300)
    x[:, :, 1], x[:, :, 2] = 1000.1 + x[:, :, 0] / 3, -x[:, :, 0] / 7

    correlation_N3 = EACH(x, mask)[:, -5:-2]

    assert np.nanmax(np.abs(correlation_N3)) == 1


def test_a_stretch_is_of_steps_in_a_row():
    assert _of_values(1, 1, np.nan, 1, 1, 1, 2)["longest stretch without change"] == 2
    assert _of_values(1, 2, 3)["longest stretch without change"] == 0
    assert math.isnan(_of_values(1, np.nan, 1)["longest stretch without change"])


def test_a_sensor_that_says_nothing_is_missing_on_each_step_that_the_mask_leaves():
    found = _of_window([[np.nan] * 3] * 4, [True, True, True, False])

    assert {name for name, value in found.items() if not math.isnan(value)} == {
        f"share of steps without a value of {name}" for name in SENSORS
    }
    assert found["share of steps without a value of one"] == 1


def test_of_a_rhythm_the_autocorrelation_is_that_of_a_cosine():
    found = _of_values(*np.sin(np.arange(6000) * 2 * np.pi / 12))

    assert found["autocorrelation over 2 steps"] == pytest.approx(math.cos(math.pi / 3), abs=1e-3)
    assert found["autocorrelation over 4 steps"] == pytest.approx(math.cos(2 * math.pi / 3), abs=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [np.finfo(np.float32).max, 1e30, 1e-30, 2e-38])
def test_huge_and_tiny_values_give_nothing_infinite(dtype, size):
    signs = np.random.default_rng(0).choice([-1.0, 0.5, 1.0], size=(5, 20, 3))
    x = (signs * float(size)).astype(dtype)

    assert np.isfinite(EACH(x, np.ones((5, 20), np.bool_))).all()


@pytest.mark.parametrize("size", [1e-155, 1e-160, 2e-162, 5e-324])
def test_squares_that_vanish_give_nothing_infinite(size):
    x = size * np.random.default_rng(0).integers(0, 3, size=(5, 20, 3)).astype(np.float64)
    x[0, 1:] = 0

    assert not np.isinf(EACH(x, np.ones((5, 20), np.bool_))).any()


def test_what_float32_cannot_hold_is_no_value():
    x, mask = _windows()
    other = x.astype(np.float64)
    other[np.isnan(x)] = 1e300

    np.testing.assert_array_equal(EACH(other, mask), EACH(x, mask))


def test_one_value_that_is_far_out_leaves_what_the_others_tell():
    found = _of_values(1e30, 1, 1, 1, 2, 3)

    assert found["minimum"] == found["median"] - 0.5 == 1
    assert found["longest stretch without change"] == 2


def test_what_stands_at_masked_steps_changes_nothing_and_nothing_is_written_to():
    for sensors, compute in ((3, EACH), (1, ONE)):
        x, mask = _windows(sensors=sensors)
        x = x.astype(np.float64)
        other = np.where(mask[..., None], x, 1e9)
        before = x.copy()

        np.testing.assert_array_equal(compute(x, mask), compute(other, mask))
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("size", [1, 200, 1_000])
@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_passes_give_the_same_bits_as_one(monkeypatch, size, steps):
    x, mask = _windows(steps=steps, level=1e3)
    of_one = EACH(x, mask)

    monkeypatch.setattr(statistics, "VALUES_A_PASS", size)

    assert EACH(x, mask).tobytes() == of_one.tobytes()


@pytest.mark.parametrize("size", [100, statistics.VALUES_A_PASS])
def test_places_give_the_same_bits_as_a_copy(monkeypatch, size):
    x, mask = _windows()
    place_N = np.random.default_rng(1).permutation(len(x))[:25]
    monkeypatch.setattr(statistics, "VALUES_A_PASS", size)

    assert EACH(x, mask, place_N).tobytes() == EACH(x[place_N], mask[place_N]).tobytes()


def test_pairs_are_chosen_by_the_training_part_alone():
    x, mask = _windows(sensors=15)
    place_N = np.random.default_rng(1).permutation(len(x))[:25]
    x[place_N, :, 7] = 3 * x[place_N, :, 9]

    chosen = WindowStatistics.chosen(x, mask, place_N)
    copied = WindowStatistics.chosen(x[place_N], mask[place_N])
    assert (chosen.pairs, chosen.differences) == (copied.pairs, copied.differences)
    assert (7, 9, pytest.approx(3)) in chosen.differences


def test_no_windows_give_no_rows():
    x, mask = _windows()

    assert (
        EACH(x[:0], mask[:0]).shape == EACH(x, mask, np.empty(0, np.intp)).shape == (0, EACH.num_statistics)
    )
    assert WindowStatistics.chosen(x[:0], mask[:0]).differences == ()


def test_memory_is_bounded_by_a_pass(monkeypatch):
    monkeypatch.setattr(statistics, "VALUES_A_PASS", 3_000)
    x, mask = _windows(num=2_000)
    EACH(x[:10], mask[:10])

    tracemalloc.start()
    found = EACH(x, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < found.nbytes + 40 * 8 * 3_000


def test_of_few_sensors_all_are_pairs():
    x, mask = _windows(sensors=5)

    assert WindowStatistics.chosen(x, mask).pairs == tuple(combinations(range(5), 2))


def test_of_many_sensors_those_are_pairs_that_move_together_within_windows():
    x, mask = _windows(num=60, sensors=200)
    x[:, :, 150] = -3 * x[:, :, 7] + 1e4
    x[:, :, 20:] *= 1e4

    chosen = WindowStatistics.chosen(x, mask)
    again = WindowStatistics.chosen(x.astype(np.float64), mask)

    assert (7, 150) in chosen.pairs
    assert len(set(chosen.pairs)) == MAX_PAIRS
    assert (chosen.pairs, chosen.differences) == (again.pairs, again.differences)
    assert chosen.num_statistics <= len(OF_SENSOR) * 200 + 2 * MAX_PAIRS


def test_pairs_are_chosen_by_some_of_many_windows(monkeypatch):
    x, mask = _windows(num=120, sensors=20)
    whole = WindowStatistics.chosen(x[::4], mask[::4])

    monkeypatch.setattr(statistics, "VALUES_TO_CHOOSE", x.size // 4)

    assert WindowStatistics.chosen(x, mask).pairs == whole.pairs


def test_a_difference_takes_the_drift_that_two_sensors_share_off():
    rng = np.random.default_rng(0)
    drift_N11 = np.cumsum(rng.normal(size=200))[:, None, None]
    x = rng.normal(size=(200, 30, 3))
    x[:, :, [0, 2]] += 5 * drift_N11
    x[:, :, 2] = 1e3 - 20 * x[:, :, 2]
    x[::9, :, 1] = np.nan
    mask = np.ones((200, 30), np.bool_)

    chosen = WindowStatistics.chosen(x, mask)

    ((one, other, gain),) = chosen.differences
    assert (one, other) == (0, 2)
    assert gain == pytest.approx(-1 / 20, rel=0.01)
    assert chosen(x, mask)[:, -1].std() < 0.3


@pytest.mark.parametrize("level", [0.1, 1000.1, 1e30])
def test_of_sensors_that_stand_still_no_difference_is_taken(level):
    x = np.full((1_000, 7, 3), level)
    x[:, :, 1] *= 1.7

    assert WindowStatistics.chosen(x, np.ones((1_000, 7), np.bool_)).differences == ()


def test_names_are_those_of_the_columns():
    names = EACH.names(SENSORS)

    assert len(set(names)) == len(names) == EACH.num_statistics
    assert names[0] == "mean of one"
    assert names[-3:] == (
        "correlation of two and three",
        "mean of one less 0.25 times that of three",
        "mean of two less -3 times that of one",
    )
    with pytest.raises(ModelInputError, match="expected 3 names"):
        EACH.names(SENSORS[:2])


@pytest.mark.parametrize(
    ("pairs", "differences"),
    [([(0, 0)], []), ([(0, 3)], []), ([(-1, 1)], []), ([(0, 1), (1, 0)], []), ([], [(0, 3, 1.0)])],
)
def test_pairs_that_are_not_two_sensors_are_refused(pairs, differences):
    with pytest.raises(ModelInputError, match=r"are not two of 3|a pair twice"):
        WindowStatistics(3, pairs, differences)


def test_no_sensor_and_a_gain_that_is_not_finite_are_refused():
    with pytest.raises(ModelInputError, match="at least one sensor"):
        WindowStatistics(0)
    with pytest.raises(ModelInputError, match="gain"):
        WindowStatistics(3, differences=[(0, 1, math.inf)])


@pytest.mark.parametrize("ask", [EACH, WindowStatistics.chosen])
def test_shapes_and_types_that_do_not_fit_are_refused(ask):
    x, mask = _windows()
    for x_bad, mask_bad, index in (
        (x[0], mask, None),
        (x[:, :0], mask[:, :0], None),
        (x[:, :, :0], mask, None),
        (x, mask[:, 1:], None),
        (x, mask.astype(np.int8), None),
        (x.astype(np.float16), mask, None),
        (x, mask, np.array([0.0, 1.0])),
        (x, mask, np.array([[0, 1]])),
    ):
        with pytest.raises(ModelInputError, match="expected"):
            ask(x_bad, mask_bad, index)
    with pytest.raises(ModelInputError, match="expected 3 sensors"):
        EACH(x[:, :, :2], mask)
