"""What older windows count in the training of a challenger."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.cycle.challenger import MS_A_DAY, recency_weights


def test_a_window_a_half_life_older_counts_half_and_the_mean_is_one():
    days_N = np.array([0, 10, 20, 5])
    data = SimpleNamespace(period_ms=1000)
    dataset = SimpleNamespace(end_N=days_N * (MS_A_DAY // 1000), manifest=SimpleNamespace(data=data))

    weight_N = recency_weights(dataset, np.array([0, 1, 2]), half_life_days=10.0)

    assert weight_N.mean() == pytest.approx(1.0)
    assert (weight_N / weight_N[2]).tolist() == pytest.approx([0.25, 0.5, 1.0])
