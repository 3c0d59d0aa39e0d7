"""How far ahead a model is."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.baseline_gap import gap
from trainer.learn.evaluate import evaluate


def test_the_gap_is_that_to_the_better_baseline() -> None:
    scores = evaluate(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4]), 0.5)
    baselines = {"linear": {"auc_roc": 0.95}, "boosting": {"auc_roc": 0.6}}
    assert gap(scores, baselines) == pytest.approx(-0.2)
    assert gap(scores, baselines | {"linear": {"auc_roc": 0.5}}) == pytest.approx(0.15)
