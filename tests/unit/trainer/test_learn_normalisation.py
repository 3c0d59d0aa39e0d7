"""Normalisation and window statistics against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from trainer.learn.normalisation import Normalisation, center, window_statistics


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


def test_robust_falls_back_to_the_standard_deviation_where_most_values_are_equal():
    rows = np.zeros((100, 1), np.float32)
    rows[:10] = 4.0

    assert float(_fitted(rows, method="robust").gain_C) == pytest.approx(1 / rows.std(), rel=1e-5)


@pytest.mark.parametrize("method", ["zscore", "robust"])
def test_a_sensor_that_was_constant_or_missing_reads_0_whatever_it_shows_later(method):
    rows = np.column_stack([np.full(50, 1234.567), np.full(50, np.nan), np.arange(50)]).astype(np.float32)

    z = _fitted(rows, method=method)(torch.tensor([[9e9, -3.0, 0.0]])).numpy()[0]

    assert z[0] == 0

    assert z[1] == 0

    assert z[2] < -1


def test_missing_values_are_left_out_of_the_fit_and_read_as_the_centre():
    rows = np.array([[1.0], [np.nan], [3.0], [np.inf]], np.float32)
    normalisation = _fitted(rows)

    assert float(normalisation.center_C) == 2.0
    assert normalisation(torch.tensor([[torch.nan], [2.0]])).tolist() == [[0.0], [0.0]]


def test_values_are_clipped_even_where_float32_overflows():
    normalisation = _fitted(np.array([[0.0], [1e-3]]), clip=5.0)

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


def test_one_valid_value_has_no_slope():
    z, valid = torch.zeros(1, 4, 1), torch.zeros(1, 4, 1, dtype=torch.bool)
    z[0, 2], valid[0, 2] = 3.0, True

    assert window_statistics(z, valid).flatten().tolist() == [3.0, 0.0, 3.0, 3.0, 0.0]


def test_centring_removes_the_level_and_leaves_missing_values_at_0():
    z = torch.tensor([[[11.0], [0.0], [13.0]]])
    valid = torch.tensor([[[True], [False], [True]]])

    assert center(z, valid).flatten().tolist() == [-1.0, 0.0, 1.0]
