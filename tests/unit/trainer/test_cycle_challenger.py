"""What older windows count in what a cycle fits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.cycle.members import MS_A_DAY, recency_weights
from trainer.learn.config import LossConfig, ModelSettings


def _dataset(days_N):
    data = SimpleNamespace(period_ms=1000)
    return SimpleNamespace(end_N=days_N * (MS_A_DAY // 1000), manifest=SimpleNamespace(data=data))


def test_a_window_a_half_life_older_counts_half_and_the_mean_is_one():
    settings = ModelSettings(loss=LossConfig(recency_half_life_days=10.0))

    weight_N = recency_weights(_dataset(np.array([0, 10, 20, 5])), np.array([0, 1, 2]), settings)

    assert weight_N.mean() == pytest.approx(1.0)
    assert (weight_N / weight_N[2]).tolist() == pytest.approx([0.25, 0.5, 1.0])


def test_without_a_half_life_all_windows_count_the_same():
    assert recency_weights(_dataset(np.array([0, 10])), np.array([0, 1]), ModelSettings()) is None
