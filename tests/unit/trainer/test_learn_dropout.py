"""Dropout: what it drops, and what the masks depend on."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from trainer.learn.model.dropout import SeededDropout


def _dropout(p=0.3, seed=None):
    dropout = SeededDropout(p)
    dropout.generator = None if seed is None else torch.Generator().manual_seed(seed)
    return dropout


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_a_share_p_becomes_0_and_the_mean_stays(p):
    y = _dropout(p, seed=0)(torch.ones(200_001))

    assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.005)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.02)


def test_each_element_is_dropped_by_itself():
    kept = _dropout(0.5, seed=1)(torch.ones(100_000, 8)) != 0

    assert torch.corrcoef(kept.T.float()).fill_diagonal_(0).abs().max() < 0.02


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_probabilities_next_to_0_and_1_stay_finite(p):
    assert torch.isfinite(_dropout(p, seed=0)(torch.ones(100_000))).all()


def test_the_gradient_goes_where_the_values_went():
    x = torch.ones(1000, requires_grad=True)

    y = _dropout(seed=2)(x)
    y.sum().backward()

    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("dropout", [_dropout().eval(), _dropout(0.0)])
def test_nothing_is_dropped_and_nothing_drawn_in_evaluation_or_without_probability(dropout):
    x, before = torch.randn(5, 7), torch.get_rng_state()

    assert torch.equal(dropout(x), x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_type_stay(shape, dtype):
    y = _dropout(seed=0)(torch.ones(shape, dtype=dtype))

    assert (y.shape, y.dtype) == (shape, dtype)


def test_the_layout_in_memory_does_not_move_the_mask():
    x = torch.randn(6, 10)

    turned = _dropout(seed=3)(x.T.contiguous().T)

    assert torch.equal(turned, _dropout(seed=3)(x))


def test_without_a_generator_the_default_one_is_drawn_from():
    torch.manual_seed(5)
    a = _dropout()(torch.ones(100))
    torch.manual_seed(5)

    assert torch.equal(_dropout()(torch.ones(100)), a)


def test_two_threads_with_generators_of_their_own_draw_as_if_alone():
    def draw(seed, into):
        dropout = _dropout(seed=seed)
        into[seed] = [dropout(torch.ones(501)) for _ in range(200)]

    alone, together = {}, {}
    for seed in (0, 1):
        draw(seed, alone)
    threads = [threading.Thread(target=draw, args=(seed, together)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for seed in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(alone[seed], together[seed], strict=True))


def test_a_copy_draws_on_its_own_from_where_the_original_stands():
    dropout = _dropout(seed=4)
    other = copy.deepcopy(dropout)

    a, b = dropout(torch.ones(100)), other(torch.ones(100))

    assert torch.equal(a, b)
