"""The head: its layers in order, and batch normalisation of any batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.learn.config import ArchitectureConfig
from trainer.learn.model.dropout import SeededDropout
from trainer.learn.model.head import BatchNorm, build_head


def _kinds(**options):
    return [type(layer) for layer in build_head(7, ArchitectureConfig(**options))]


def test_layers_stand_in_the_order_of_the_configuration():
    last = [SeededDropout, nn.Linear]
    assert _kinds(head_hidden_dims=()) == last
    assert _kinds(head_hidden_dims=(4,)) == [SeededDropout, nn.Linear, nn.ReLU, *last]
    assert _kinds(head_hidden_dims=(4, 3), head_activation="gelu", head_norm="batch") == [
        BatchNorm,
        *[SeededDropout, nn.Linear, BatchNorm, nn.GELU],
        *[SeededDropout, nn.Linear, BatchNorm, nn.GELU],
        *last,
    ]
    assert _kinds(head_hidden_dims=(), head_norm="layer") == [nn.LayerNorm, *last]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", nn.functional.leaky_relu),
        ("gelu", nn.functional.gelu),
        ("silu", nn.functional.silu),
        ("tanh", torch.tanh),
    ],
)
def test_the_activation_is_the_one_that_was_named(name, function):
    head = build_head(7, ArchitectureConfig(head_hidden_dims=(4,), head_activation=name)).eval()
    x = torch.randn(5, 7)

    torch.testing.assert_close(head(x), head[-1](function(head[1](x))))


def test_one_window_is_normalised_by_running_statistics_and_leaves_them_alone():
    norm = BatchNorm(3).train()
    norm(torch.randn(50, 3) * 4 + 2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(1, 3)

    y = norm(x)

    torch.testing.assert_close(y, norm.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_two_windows_are_normalised_by_each_other():
    norm = BatchNorm(1).train()

    torch.testing.assert_close(norm(torch.tensor([[1.0], [5.0]])), torch.tensor([[-1.0], [1.0]]))
    assert float(norm.running_mean) == pytest.approx(0.3)


def test_a_frozen_normalisation_keeps_its_running_statistics():
    norm = BatchNorm(3).train().requires_grad_(False)
    x = torch.randn(50, 3) + 9

    torch.testing.assert_close(norm(x), x, rtol=1e-4, atol=1e-4)
    assert norm.running_mean.tolist() == [0.0, 0.0, 0.0]
