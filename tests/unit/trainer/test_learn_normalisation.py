"""Normalisation and window statistics against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.learn.model.normalisation import Normalisation, center, statistics_magnitude, window_statistics

METHODS = ["zscore", "robust", "quantile"]


def _fitted(rows, method="zscore", clip=8.0):
    normalisation = Normalisation(np.shape(rows)[1])
    normalisation.fit(np.asarray(rows, np.float32), method=method, clip=clip)
    return normalisation


def test_zscore_gives_mean_0_and_standard_deviation_1():
    rows = np.random.default_rng(0).normal([5.0, -300.0], [2.0, 40.0], size=(500, 2)).astype(np.float32)

    z = _fitted(rows)(torch.from_numpy(rows)).numpy()

    assert_allclose(z.mean(axis=0), 0.0, atol=1e-5)
    assert_allclose(z.std(axis=0), 1.0, atol=1e-5)


def test_robust_normalisation_does_not_move_for_a_tail_that_moves_the_zscore():
    rows = np.random.default_rng(0).normal(10.0, 1.0, size=(1000, 1)).astype(np.float32)
    tailed = rows.copy()
    tailed[:100] = 1e4

    clean, robust, zscore = (
        float(_fitted(r, method=method).gain_C)
        for r, method in ((rows, "robust"), (tailed, "robust"), (tailed, "zscore"))
    )

    assert clean == pytest.approx(1.0, rel=0.1)
    assert robust == pytest.approx(clean, rel=0.3)
    assert zscore < 0.01


@pytest.mark.parametrize("spike", [1e6, -9_999_999.0, 1e30])
def test_robust_normalisation_does_not_move_for_one_reading_that_is_no_measurement(spike):
    rows = np.random.default_rng(0).normal(1.2, 0.1, size=(1000, 1)).astype(np.float32)
    spiked = rows.copy()
    spiked[0] = spike

    clean, found = (float(_fitted(each, method="robust").gain_C) for each in (rows, spiked))

    assert found == pytest.approx(clean, rel=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_rounding_of_what_was_computed_is_no_spread_to_scale_up(method):
    # In the first column some values are more than rounding of numbers around 1, in the second none is.
    rows = np.random.default_rng(0).normal(0.0, 1e-8, size=(1000, 2)).astype(np.float32)
    rows[:50, 0] = 1.0
    normalisation = Normalisation(2)

    normalisation.fit(rows, method=method, clip=8.0, magnitude_C=np.ones(2))

    assert normalisation.gain_C.tolist() == [pytest.approx(1 / rows[:, 0].std(), rel=1e-5), 0.0]
    assert float(normalisation(torch.from_numpy(rows[50:])).std(dim=0).max()) < 1e-5


def test_robust_falls_back_to_the_standard_deviation_where_most_values_are_equal():
    rows = np.zeros((100, 1), np.float32)
    rows[:10] = 4.0

    assert float(_fitted(rows, method="robust").gain_C) == pytest.approx(1 / rows.std(), rel=1e-5)


def test_quantile_normalisation_makes_any_distribution_a_normal_one():
    rng = np.random.default_rng(0)
    tailed = rng.standard_cauchy(size=20_000)
    steps = rng.choice([3.0, 4.0, 10.0], size=20_000)
    rows = np.column_stack([rng.exponential(size=20_000) + 900, tailed, steps]).astype(np.float32)

    z = _fitted(rows, method="quantile")(torch.from_numpy(rows)).numpy()

    for column in range(2):
        quantiles = np.quantile(z[:, column], [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
        assert_allclose(quantiles, [-2.326, -1.282, -0.674, 0, 0.674, 1.282, 2.326], atol=0.05)
    assert len(np.unique(z[:, 2])) == 3


def test_a_rare_value_reads_as_far_out_as_its_rank_and_no_further_in_few_rows():
    rows = np.arange(20, dtype=np.float32).reshape(-1, 1)

    z = _fitted(rows, method="quantile")(torch.from_numpy(rows)).flatten()

    assert z[0] == pytest.approx(-1.96, abs=0.01)
    assert z[-1] == pytest.approx(1.96, abs=0.01)


def test_outside_the_training_range_quantile_goes_on_by_standard_deviations():
    rows = np.random.default_rng(0).uniform(size=(1000, 1)).astype(np.float32)
    normalisation = _fitted(rows, method="quantile")

    top, one_further, far = normalisation(torch.tensor([[1.0], [1.0 + rows.std()], [50.0]])).flatten()

    assert one_further == pytest.approx(float(top) + 1, abs=1e-4)
    assert far == 8


@given(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=80),
    st.lists(st.floats(-1e7, 1e7, width=32, allow_subnormal=False), min_size=2, max_size=40),
)
def test_quantile_never_turns_the_order_of_two_values_round(rows, values):
    normalisation = _fitted(np.array(rows).reshape(-1, 1), method="quantile")

    z = normalisation(torch.tensor(sorted(values), dtype=torch.float32).unsqueeze(1)).flatten()

    assert torch.isfinite(z).all()
    assert (z.diff() >= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "column", [[0.0, 5e-41], [0.0, 7.0, 1.2e-38], [5.0] * 9 + [5.0000005, 9.0], [3e38, -3e38]]
)
def test_the_smallest_and_largest_differences_leave_a_finite_map(method, column):
    normalisation = _fitted(np.array(column).reshape(-1, 1), method=method)

    assert all(torch.isfinite(value).all() for value in normalisation.state_dict().values())
    assert torch.isfinite(normalisation(torch.tensor([*column, 1.0, -1e30]).unsqueeze(1))).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_way_of_a_gpu_gives_what_the_shortcut_of_the_cpu_gives(method):
    rows = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 3)).astype(np.float32)
    rows[:, 1] = 7.0
    normalisation = _fitted(rows, method=method)
    x = torch.randn(4, 9, 3) * 30
    x[0, 0], x[0, 1], x[0, 2] = torch.nan, torch.inf, -torch.inf

    short = normalisation(x)
    normalisation.is_bent.fill_(True)

    assert torch.equal(normalisation(x), short)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_fits_whatever_method_was_fitted_there_before(method):
    rows = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 3)).astype(np.float32)
    source, x = _fitted(rows, method=method), torch.randn(50, 3) * 10
    for other in METHODS:
        target = _fitted(rows * 3, method=other)
        target.load_state_dict(source.state_dict())
        assert torch.equal(target(x), source(x))

        target.fit(rows * 3, method=other, clip=2.0)
        target.fit(rows, method=method, clip=8.0)
        for name, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[name], value), name


@pytest.mark.parametrize("method", METHODS)
def test_a_sensor_that_was_constant_or_missing_reads_0_whatever_it_shows_later(method):
    rows = np.column_stack([np.full(50, 1234.567), np.full(50, np.nan), np.arange(50)]).astype(np.float32)

    z = _fitted(rows, method=method)(torch.tensor([[9e9, -3.0, 0.0]])).numpy()[0]

    assert z[0] == 0

    assert z[1] == 0

    assert z[2] < -1


@pytest.mark.parametrize("method", METHODS)
def test_missing_values_are_left_out_of_the_fit_and_read_as_the_centre(method):
    rows = np.array([[1.0], [np.nan], [3.0], [np.inf]], np.float32)
    normalisation = _fitted(rows, method=method)

    assert float(normalisation.center_C) == 2.0
    assert normalisation(torch.tensor([[torch.nan], [2.0]])).tolist() == [
        [0.0],
        [pytest.approx(0.0, abs=1e-7)],
    ]


@pytest.mark.parametrize("method", METHODS)
def test_values_are_clipped_even_where_float32_overflows(method):
    normalisation = _fitted(np.array([[0.0], [1e-3]]), method=method, clip=5.0)

    assert normalisation(torch.tensor([[3e38], [-3e38]])).flatten().tolist() == [5.0, -5.0]


def test_before_the_fit_values_pass_through():
    assert Normalisation(2)(torch.tensor([[1.5, -2e30]])).tolist() == [[1.5, pytest.approx(-2e30)]]


def test_the_fit_travels_with_the_weights():
    source = _fitted(np.random.default_rng(1).normal(size=(20, 3)), method="robust", clip=3.0)
    target = Normalisation(3)

    target.load_state_dict(source.state_dict())

    x = torch.randn(4, 3) * 10
    assert bool(target.is_fitted)
    assert torch.equal(target(x), source(x))


def test_statistics_agree_with_numpy_over_the_valid_values():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(3, 20, 2)).astype(np.float32)
    valid = rng.random(z.shape) < 0.7

    stats = window_statistics(torch.from_numpy(z * valid), torch.from_numpy(valid)).numpy().reshape(3, 5, 2)

    for n in range(3):
        for f in range(2):
            seen, steps = z[n, valid[n, :, f], f], np.flatnonzero(valid[n, :, f])
            slope = np.polyfit(steps, seen, 1)[0]
            expected = [seen.mean(), seen.std(), seen.min(), seen.max(), slope]
            assert_allclose(stats[n, :, f], expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_a_sensor_without_a_valid_value_are_missing():
    z = torch.zeros(1, 4, 2)
    valid = torch.tensor([[[True, False]] * 4])

    stats = window_statistics(z, valid).reshape(5, 2)

    assert torch.isfinite(stats[:, 0]).all()

    assert torch.isnan(stats[:, 1]).all()


def test_the_magnitude_of_statistics_is_that_of_the_sensor_and_a_slope_is_so_much_a_step():
    z = torch.tensor([[[-8.0, 0.5], [1.0, 0.5]], [[2.0, 0.0], [2.0, 0.0]]])
    valid = torch.tensor([True, True]).view(1, 2, 1) & torch.tensor([[True, True], [True, False]]).view(
        2, 1, 2
    )

    magnitude = statistics_magnitude(window_statistics(z, valid).numpy(), num_steps=2)

    assert magnitude.reshape(5, 2).tolist() == [[8.0, 0.5]] * 4 + [[4.0, 0.25]]


def test_one_valid_value_has_no_slope():
    z, valid = torch.zeros(1, 4, 1), torch.zeros(1, 4, 1, dtype=torch.bool)
    z[0, 2], valid[0, 2] = 3.0, True

    assert window_statistics(z, valid).flatten().tolist() == [3.0, 0.0, 3.0, 3.0, 0.0]


def test_centring_removes_the_level_and_leaves_missing_values_at_0():
    z = torch.tensor([[[11.0], [0.0], [13.0]]])
    valid = torch.tensor([[[True], [False], [True]]])

    assert center(z, valid).flatten().tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("method", METHODS)
def test_a_column_that_has_moved_beyond_the_limit_is_hidden(method):
    rng = np.random.default_rng(0)
    rows = rng.normal([5.0, -300.0, 1.0], [2.0, 40.0, 0.1], size=(1000, 3)).astype(np.float32)
    normalisation = _fitted(rows, method=method)
    moved = rows + np.array([0.0, 0.0, 1.2], np.float32)
    somewhat = rows + np.array([6.0, 100.0, 0.3], np.float32)

    assert normalisation.hidden_columns(rows, method=method) == ()
    assert normalisation.hidden_columns(somewhat, method=method) == ()
    assert normalisation.hidden_columns(moved, method=method) == (2,)
    moved[::2, 2] = np.nan
    assert normalisation.hidden_columns(moved, method=method) == (2,)
    # A few faults are none of its business.
    rows[:50] = 1e6
    assert normalisation.hidden_columns(rows, method=method) == ()


def test_a_column_that_comes_to_life_is_hidden_and_one_that_stays_dead_is_not():
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    dead = rows.copy()
    dead[:, 1], dead[:, 2] = 4.0, np.nan
    normalisation = _fitted(dead, method="robust")

    assert normalisation.hidden_columns(dead, method="robust") == ()
    assert normalisation.hidden_columns(rows, method="robust") == (1, 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_column_with_a_few_faults_or_another_constant_has_not_come_to_life(method):
    rows = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    rows[:, 1] = 0.1
    normalisation = _fitted(rows, method=method)

    rows[:50, 1] = 1e6
    assert normalisation.hidden_columns(rows, method=method) == ()
    rows[:, 1] = 5.0
    assert normalisation.hidden_columns(rows, method=method) == ()


def test_a_column_that_clips_however_it_is_fitted_is_left_as_it_is():
    # An eighth of the values lies far outside the usual range, always.
    rows = np.random.default_rng(0).normal(size=(800, 1)).astype(np.float32)
    rows[::8] += 1e3

    assert _fitted(rows, method="robust").hidden_columns(rows, method="robust") == ()


class _Made(TorchDispatchMode):
    """Bytes of each tensor that is made on the way and is no view of an array."""

    def __init__(self, array):
        super().__init__()
        self.num_bytes, self._address = [], array.ctypes.data

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != self._address:
            self.num_bytes.append(result.nbytes)
        return result


@pytest.mark.parametrize("method", METHODS)
def test_what_is_hidden_is_counted_without_a_second_copy_of_the_rows(method):
    rows = np.random.default_rng(0).normal(size=(400_000, 2)).astype(np.float32)
    normalisation = _fitted(rows[:1000], method=method)

    with _Made(rows) as made:
        assert normalisation.hidden_columns(rows, method=method) == ()

    assert max(made.num_bytes) < rows.nbytes


def test_shares_are_those_of_all_rows_together():
    rows = np.random.default_rng(0).normal(size=(400_000, 2)).astype(np.float32)
    normalisation = _fitted(rows, method="robust")
    rows[200_000:, 1] += 20.0

    assert normalisation.hidden_columns(rows, method="robust") == (1,)
    rows[220_000:, 1] = np.nan  # leaves a share of one in eleven
    assert normalisation.hidden_columns(rows, method="robust") == ()
