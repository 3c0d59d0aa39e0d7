"""A small training task, the same in every test: find a bump in one of two sensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.learn.config import ModelSettings
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.model.network import SteelDefectLSTM, build_model


def windows(num: int, seed: int, *, steps: int = 24, level: float = 0.0) -> tuple[Any, Any, Any]:
    """A defective window holds a bump of one sensor; offsets and units differ from sensor to sensor."""
    rng = np.random.default_rng(seed)
    y = (rng.random(num) < 0.3).astype(np.int8)
    x = rng.normal(size=(num, steps, 2))
    for n in np.flatnonzero(y):
        start = rng.integers(0, steps - 8)
        x[n, start : start + 8, 0] += 2.0
    x = x * [0.2, 60.0] + [1.2 + level, 900.0]
    return x.astype(np.float32), np.ones((num, steps), bool), y


def loaders(seed: int = 0, num: int = 160, batch_size: int = 32) -> tuple[WindowLoader, WindowLoader]:
    """A training and a validation part; five steps an epoch."""
    return (
        WindowLoader(*windows(num, seed), batch_size=batch_size, shuffle=True, seed=5),
        WindowLoader(*windows(80, seed + 1), batch_size=64),
    )


def settings(**sections: Any) -> ModelSettings:
    """A model that trains in well under a second an epoch."""
    sections["architecture"] = {"hidden_size": 8, "stem_stride": 4} | sections.get("architecture", {})
    sections["training"] = {"max_epochs": 4, "num_workers": 1} | sections.get("training", {})
    return ModelSettings(**sections)


def model(configured: ModelSettings, seed: int = 0) -> SteelDefectLSTM:
    """Untrained."""
    return build_model(configured.architecture, 2, seed)


def weights(trained: SteelDefectLSTM) -> dict[str, Any]:
    """A copy of everything that the model is."""
    return {name: value.clone() for name, value in trained.state_dict().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two models are equal to the bit."""
    return a.keys() == b.keys() and all(bool((a[name] == b[name]).all()) for name in a)
