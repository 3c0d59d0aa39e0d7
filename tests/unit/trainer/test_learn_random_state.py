from __future__ import annotations

import random

import numpy as np
import torch

from trainer.learn.engine.random_state import left_as_it_was, random_state, seed_epoch, set_random_state


def _draw():
    return random.random(), float(np.random.normal()), float(torch.rand(()))


def test_all_generators_go_on_from_a_state(tmp_path):
    np.random.normal()  # it keeps a second one for the next call
    torch.save(random_state(), tmp_path / "state.pt")
    expected = _draw()

    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))

    assert _draw() == expected


def test_an_epoch_draws_the_same_again_and_otherwise_than_another():
    drawn = []
    for epoch in (3, 3, 4):
        seed_epoch(7, epoch)
        drawn.append(_draw())

    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_the_callers_generators_are_given_back():
    seed_epoch(1, 1)
    expected = _draw()
    seed_epoch(1, 1)

    with left_as_it_was():
        seed_epoch(2, 2)
        _draw()

    assert _draw() == expected
