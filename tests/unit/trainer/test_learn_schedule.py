"""Learning rates, epoch by epoch and step by step, against torch's schedulers and by hand."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import nn

from trainer.learn.config import OptimizerConfig, SchedulerConfig
from trainer.learn.engine.checkpoint import load_checkpoint, save_checkpoint
from trainer.learn.engine.optim import build_optimizer
from trainer.learn.engine.schedule import Schedule

NAMES = get_args(SchedulerConfig.model_fields["name"].annotation)
# Falls, stands still for long, falls again: both kinds of epoch for plateau.
LOSSES = [1.0, 0.8, 0.8, 0.9, 0.8, 0.8, 0.8, 0.7, 0.9, 0.9, 0.9, 0.9]
QUICK = {
    "plateau_patience": 1,
    "cosine_epochs": 2,
    "cosine_factor": 2,
    "step_epochs": 2,
    "exponential_factor": 0.8,
}
STEPS_AN_EPOCH = 3


def _optimizer(**config):
    model = nn.ModuleDict({"stem": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    return build_optimizer(model, OptimizerConfig(**({"learning_rate": 0.1} | config)))


def _schedule(optimizer=None, **config):
    return Schedule(optimizer or _optimizer(), SchedulerConfig(**config))


def _rates(schedule, losses):
    """The rate of each epoch."""
    rates = []
    for loss in losses:
        rates.append(schedule.learning_rates["recurrent"])
        schedule.end_epoch(loss)
    return rates


def _run(schedule, num_steps, start=0):
    """The rates before each step, an epoch's end after every `STEPS_AN_EPOCH`."""
    rates = []
    for step in range(start, start + num_steps):
        rates.append(schedule.learning_rates)
        schedule.end_step()
        if (step + 1) % STEPS_AN_EPOCH == 0:
            schedule.end_epoch(LOSSES[step // STEPS_AN_EPOCH])
    return rates


def test_constant_stays():
    assert _rates(_schedule(name="constant"), LOSSES) == [0.1] * len(LOSSES)


def test_step_falls_every_so_many_epochs():
    rates = _rates(_schedule(name="step", step_epochs=2, step_factor=0.5), [1.0] * 5)

    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_exponential_falls_every_epoch():
    rates = _rates(_schedule(name="exponential", exponential_factor=0.5), [1.0] * 4)

    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_cosine_falls_to_the_lowest_rate_and_restarts_after_longer_and_longer():
    schedule = _schedule(name="cosine_warm_restarts", cosine_epochs=2, cosine_factor=2, min_lr=0.02)

    def cosine(at):
        return 0.02 + 0.08 * (1 + math.cos(math.pi * at)) / 2

    expected = [cosine(at) for at in (0, 1 / 2, 0, 1 / 4, 2 / 4, 3 / 4, 0, 1 / 8)]
    assert _rates(schedule, [1.0] * 8) == pytest.approx(expected)


def test_plateau_falls_when_the_validation_loss_stands_still_down_to_the_lowest_rate():
    schedule = _schedule(plateau_factor=0.5, plateau_patience=1, min_lr=0.03)

    # epoch   1    2    3      4     5     6      7     8     9
    # loss    1.0  1.0  1.0 -> 1.0   0.9   0.9    0.9 ->0.9   0.9
    # bad     0    1    2      1     0     1      2     1     2
    rates = _rates(schedule, [1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9, 0.9])

    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.03, 0.03])


@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_the_ratio_of_their_rates(name):
    optimizer = _optimizer(head_learning_rate=0.2)
    schedule = Schedule(optimizer, SchedulerConfig(name=name, warmup_steps=4, min_lr=0.0, **QUICK))

    for rates in _run(schedule, 18):
        assert rates["head"] == pytest.approx(2 * rates["recurrent"])


@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_is_what_the_optimizer_takes(name):
    optimizer = _optimizer(head_learning_rate=0.2)
    schedule = Schedule(optimizer, SchedulerConfig(name=name, warmup_steps=4, **QUICK))

    for _ in range(12):
        _run(schedule, 1)
        assert schedule.learning_rates == {group["name"]: group["lr"] for group in optimizer.param_groups}


def test_the_warm_up_rises_evenly_and_the_step_after_it_has_the_whole_rate():
    rates = [each["recurrent"] for each in _run(_schedule(name="constant", warmup_steps=3), 6)]

    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_up_multiplies_what_the_scheduler_says(name):
    num_steps, warmup_steps = 30, 16
    plain = _run(_schedule(name=name, **QUICK), num_steps)
    warm = _run(_schedule(name=name, warmup_steps=warmup_steps, **QUICK), num_steps)

    for step, (without, with_it) in enumerate(zip(plain, warm, strict=True), 1):
        factor = min(1.0, step / (warmup_steps + 1))
        assert with_it["head"] == pytest.approx(without["head"] * factor)


def test_a_reduction_during_the_warm_up_keeps_its_effect():
    schedule = _schedule(plateau_factor=0.5, plateau_patience=0, warmup_steps=4)
    schedule.end_step()
    before = schedule.learning_rates["head"]
    schedule.end_epoch(1.0)
    schedule.end_epoch(1.0)
    during = schedule.learning_rates["head"]
    for _ in range(10):
        schedule.end_step()

    assert (before, during) == pytest.approx((0.1 * 2 / 5, 0.05 * 2 / 5))
    assert schedule.learning_rates["head"] == pytest.approx(0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [0, 1, 7, 9, 16, 17, 25])
@pytest.mark.parametrize("schedule_first", [True, False])
def test_rates_go_on_after_a_restart_in_the_middle(tmp_path, name, at, schedule_first):
    config = {"name": name, "warmup_steps": 16, **QUICK}
    expected = _run(_schedule(**config), 36)
    optimizer = _optimizer()
    schedule = _schedule(optimizer, **config)
    _run(schedule, at)
    save_checkpoint(tmp_path / "state.pt", {"o": optimizer.state_dict(), "s": schedule.state_dict()})

    state, optimizer = load_checkpoint(tmp_path / "state.pt"), _optimizer()
    resumed = _schedule(optimizer, **config)
    loads = [lambda: resumed.load_state_dict(state["s"]), lambda: optimizer.load_state_dict(state["o"])]
    for load in loads if schedule_first else reversed(loads):
        load()

    assert _run(resumed, 36 - at, start=at) == expected[at:]


@pytest.mark.parametrize("name", NAMES)
def test_epochs_are_torchs(name):
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.step()
    scheduler = {
        "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(
            o, factor=0.5, patience=1, min_lr=1e-6
        ),
        "cosine_warm_restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            o, 2, 2, eta_min=1e-6
        ),
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
        "exponential": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8),
        "constant": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda _: 1.0),
    }[name](optimizer)
    expected = []
    for loss in LOSSES:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([loss] if name == "plateau" else []))

    assert _rates(_schedule(name=name, **QUICK), LOSSES) == expected
