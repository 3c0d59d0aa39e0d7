"""Which parameters go into which group, and that a step is the one of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from streamer.errors import ConfigError
from trainer.learn.config import OptimizerConfig
from trainer.learn.engine.optim import build_optimizer


class _Layers(nn.Module):
    """The names and types that a model can have."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(2, 3, 4)
        self.lstm = nn.ModuleList([nn.LSTM(3, 4), nn.LSTM(4, 4)])
        self.attention = nn.Linear(4, 1)
        self.head = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.header = nn.Linear(1, 1)


def _model():
    torch.manual_seed(0)
    return _Layers()


def _groups(model, **config):
    """Group -> names of its parameters, and the groups as torch has them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        group["name"]: group for group in build_optimizer(model, OptimizerConfig(**config)).param_groups
    }
    return {name: {names[id(p)] for p in group["params"]} for name, group in groups.items()}, groups


def test_each_parameter_belongs_to_the_group_of_its_layer():
    model = _model()

    members, _ = _groups(model)

    assert members["normalisation"] == {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
    assert members["head"] == {
        *("attention.weight", "attention.bias"),
        *("head.1.weight", "head.1.bias", "head.3.weight", "head.3.bias"),
    }
    others = {name for name, _ in model.named_parameters()} - members["normalisation"] - members["head"]
    assert members["recurrent"] == others
    assert {"stem.weight", "lstm.0.weight_hh_l0", "lstm.1.bias_ih_l0", "header.weight"} <= others


def test_groups_have_the_common_rate_or_their_own():
    _, common = _groups(_model(), learning_rate=0.01)
    _, own = _groups(
        _model(),
        learning_rate=0.01,
        recurrent_learning_rate=0.02,
        head_learning_rate=0.03,
        normalisation_learning_rate=0.04,
    )

    assert {name: group["lr"] for name, group in common.items()} == {
        "recurrent": 0.01,
        "head": 0.01,
        "normalisation": 0.01,
    }
    assert {name: group["lr"] for name, group in own.items()} == {
        "recurrent": 0.02,
        "head": 0.03,
        "normalisation": 0.04,
    }


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_normalisation_never_decays(name):
    model = _model()
    _, groups = _groups(model, name=name, weight_decay=0.5)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, weight_decay=0.5))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    optimizer.step()

    assert {key: group["weight_decay"] for key, group in groups.items()} == {
        "recurrent": 0.5,
        "head": 0.5,
        "normalisation": 0.0,
    }
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key, _ in model.named_parameters()} - {
        *("head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias")
    }


def test_a_frozen_parameter_and_a_group_without_parameters_are_left_out():
    model = _model()
    for layers in (model.lstm, model.head):
        layers.requires_grad_(False)

    members, _ = _groups(model)

    assert members == {
        "recurrent": {"stem.weight", "stem.bias", "header.weight", "header.bias"},
        "head": {"attention.weight", "attention.bias"},
    }


def test_a_model_that_is_frozen_as_a_whole_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"training\.freeze_layers: all weights are frozen"):
        build_optimizer(_model().requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize(("name", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_steps_are_torchs_with_the_configured_values(name, reference):
    config = OptimizerConfig(name=name, learning_rate=0.01, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1)
    ours, theirs = nn.Linear(40, 3), nn.Linear(40, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [
        build_optimizer(ours, config),
        reference(theirs.parameters(), lr=0.01, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1, foreach=False),
    ]
    x = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    for _ in range(20):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_the_defaults_are_adam_as_its_paper_has_it_with_some_decay():
    optimizer = build_optimizer(_model(), OptimizerConfig())

    assert type(optimizer) is torch.optim.Adam
    values = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4}
    assert values.items() <= optimizer.param_groups[0].items()
    assert type(build_optimizer(_model(), OptimizerConfig(name="adamw"))) is torch.optim.AdamW


def test_a_step_is_one_kernel():
    assert all(group["fused"] for group in build_optimizer(_model(), OptimizerConfig()).param_groups)


def test_a_device_without_the_kernel_gets_an_optimizer_all_the_same():
    groups = build_optimizer(_model().to("meta"), OptimizerConfig()).param_groups

    assert not any(group["fused"] for group in groups)


def test_steps_go_on_after_a_restart_in_the_middle(tmp_path):
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))

    def train(model, optimizer, num_steps):
        for _ in range(num_steps):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, OptimizerConfig())
    train(model, optimizer, 3)
    torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")
    train(model, optimizer, 4)

    resumed = nn.Linear(2, 2)
    again = build_optimizer(resumed, OptimizerConfig())
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    train(resumed, again, 4)

    assert torch.equal(resumed.weight, model.weight)
    assert [group["name"] for group in again.param_groups] == ["recurrent"]
