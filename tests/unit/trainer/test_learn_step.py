from __future__ import annotations

import contextlib

import pytest
import torch
from small_training import loaders, same, weights, windows
from small_training import model as make_model
from small_training import settings as make_settings

from streamer.errors import ConfigError
from trainer.errors import TrainingDivergedError, TrainingSetupError
from trainer.learn.engine.batch import Batch
from trainer.learn.engine.distributed import Group
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.engine.optim import build_optimizer
from trainer.learn.engine.precision import Precision
from trainer.learn.engine.step import CLIPPED_NORM, NORM, NUM_CLIPPED, SliceKey, Stepper
from trainer.learn.engine.workers import Workers
from trainer.learn.lstm_trainer import LSTMTrainer

CPU = torch.device("cpu")


def _stepper(model, settings, *, num_slices=2, sync=True, amp="off"):
    return Stepper(
        model,
        Workers(model, 1, num_threads=1),
        loss=DefectLoss(settings.loss, num_good=7, num_defects=3),
        optimizer=build_optimizer(model, settings.optimizer),
        precision=Precision(amp, CPU, model.config.hidden_size),
        config=settings.training,
        num_slices=num_slices,
        group=Group(),
        device=CPU,
        sync=sync,
    )


def _batch(num=16, seed=0):
    x, mask, y = (torch.from_numpy(each) for each in windows(num, seed))
    return Batch(x, mask, y.float())


def test_slices_give_the_gradient_of_the_whole_batch():
    settings = make_settings(architecture={"dropout": 0.0})
    moved, totals = [], []
    for num_slices in (1, 2, 5, 16):
        model = make_model(settings)
        stepper = _stepper(model, settings, num_slices=num_slices)
        stepper.step([_batch()], 1, 0, 1)
        moved.append(weights(model))
        totals.append(stepper.totals)

    # The first step of Adam is the same for a gradient twice as long: its length is looked at by itself.
    for each in totals[1:]:
        torch.testing.assert_close(each, totals[0], atol=0, rtol=1e-4)
    for each in moved[1:]:
        for name, value in each.items():
            torch.testing.assert_close(value, moved[0][name], atol=1e-5, rtol=1e-4)


def test_a_batch_smaller_than_the_slices_is_taken():
    settings = make_settings()
    model = make_model(settings)
    before = weights(model)

    _stepper(model, settings, num_slices=4).step([_batch(1)], 1, 0, 1)

    assert not same(weights(model), before)


@pytest.mark.parametrize(
    "more", [{}, {"head_norm": "batch", "readout": "mean_max_attention", "bidirectional": True}]
)
def test_all_of_a_step_lies_on_the_device_of_the_model(more):
    # There is no GPU here. So what names no device comes to lie on one that nothing can be computed with.
    settings = make_settings(architecture={"dropout": 0.0} | more)
    moved = []
    for unnamed in (CPU, torch.device("meta")):
        model, batch = make_model(settings), _batch()
        stepper = _stepper(model, settings)
        with unnamed:
            stepper.step([batch], 1, 0, 1)
        moved.append(weights(model))

    assert same(*moved)


def test_dropout_depends_on_seed_epoch_batch_and_slice():
    numbers = [(0, 1, 2, 3), (1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4)]
    keys = [SliceKey(*each) for each in numbers]

    drawn = [float(torch.rand((), generator=key.generator(CPU))) for key in keys]

    assert len(set(drawn)) == len(keys)
    assert float(torch.rand((), generator=keys[0].generator(CPU))) == drawn[0]


def test_gradients_are_clipped_and_both_norms_are_counted():
    settings = make_settings(training={"grad_clip_norm": 0.01})
    model = make_model(settings)
    stepper = _stepper(model, settings)

    for n in range(3):
        stepper.step([_batch(seed=n)], 1, n, 1)

    totals = stepper.totals.tolist()
    assert totals[NUM_CLIPPED] == 3
    assert totals[NORM] > 0.1
    assert totals[CLIPPED_NORM] == pytest.approx(0.03, rel=1e-3)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_weights_move(what):
    settings = make_settings()
    model = make_model(settings)
    with torch.no_grad():
        if what == "loss":
            model.head[-1].bias.fill_(torch.nan)
        else:
            model.lstm[0].weight_hh_l0.register_hook(lambda gradient: gradient * torch.inf)
    before = [p.clone() for p in model.parameters()]

    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        _stepper(model, settings).step([_batch()], 1, 0, 1)

    assert all(torch.equal(a, b) or a.isnan().all() for a, b in zip(before, model.parameters(), strict=True))


def _batch_statistics(model):
    return {name: value for name, value in weights(model).items() if "running" in name}


@pytest.mark.parametrize("sync", [True, False])
def test_a_step_that_is_not_finite_leaves_the_batch_statistics(sync):
    settings = make_settings(architecture={"head_norm": "batch"})
    model = make_model(settings)
    before = _batch_statistics(model)
    model.lstm[0].weight_hh_l0.register_hook(lambda gradient: gradient * torch.inf)
    stepper = _stepper(model, settings, sync=sync)

    with contextlib.suppress(TrainingDivergedError):
        stepper.step([_batch()], 1, 0, 1)

    with pytest.raises(TrainingDivergedError):
        stepper.check()
    assert before
    assert same(_batch_statistics(model), before)


def test_frozen_batch_statistics_stay_to_the_bit():
    settings = make_settings(architecture={"head_norm": "batch"})
    model = make_model(settings)
    for name, value in model.named_buffers():
        if "running" in name:
            value.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(len(name)))
    before = _batch_statistics(model)
    model.freeze(["head"])

    _stepper(model, settings, num_slices=3).step([_batch(31)], 1, 0, 1)

    assert same(_batch_statistics(model), before)


def test_without_waiting_for_the_device_a_diverged_run_is_told_at_the_check():
    settings = make_settings()
    model = make_model(settings)
    stepper = _stepper(model, settings, sync=False)
    stepper.step([_batch()], 1, 0, 1)
    stepper.check()
    with torch.no_grad():
        model.head[-1].bias.fill_(torch.inf)

    stepper.step([_batch()], 1, 1, 1)

    with pytest.raises(TrainingDivergedError, match="not finite"):
        stepper.check()


class _SmallDevice(torch.nn.Module):
    """A stem that has memory for so many windows only."""

    def __init__(self, stem, most):
        super().__init__()
        self.stem, self.most, self.sizes = stem, most, []

    def forward(self, x, mask):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no memory")
        return self.stem(x, mask)


def test_out_of_memory_halves_the_parts_and_the_same_batch_is_computed():
    settings = make_settings(architecture={"dropout": 0.0})
    roomy, small = make_model(settings), make_model(settings)
    _stepper(roomy, settings, num_slices=8).step([_batch(32)], 1, 0, 1)
    small.stem = _SmallDevice(small.stem, most=4)

    stepper = _stepper(small, settings, num_slices=2)
    stepper.step([_batch(32)], 1, 0, 1)

    assert stepper.num_slices == 8
    assert small.stem.sizes == [16, 8] + [4] * 8
    small.stem = small.stem.stem
    assert same(weights(small), weights(roomy))


def test_a_batch_computed_again_counts_once_in_the_batch_statistics():
    settings = make_settings(architecture={"dropout": 0.0, "head_norm": "batch"})
    roomy, small = make_model(settings), make_model(settings)
    _stepper(roomy, settings, num_slices=4).step([_batch(32)], 1, 0, 1)
    gradients = []

    def full_once(gradient):
        gradients.append(gradient)
        if len(gradients) == 1:
            raise torch.OutOfMemoryError("no memory on the way back, behind the batch normalisation")

    small.lstm[0].weight_hh_l0.register_hook(full_once)
    _stepper(small, settings, num_slices=2).step([_batch(32)], 1, 0, 1)

    assert len(gradients) == 5
    assert same(weights(small), weights(roomy))


def test_no_memory_for_a_single_window_is_told():
    settings = make_settings()
    model = make_model(settings)
    model.stem = _SmallDevice(model.stem, most=0)

    with pytest.raises(TrainingSetupError, match="no memory for a single window of 8"):
        _stepper(model, settings).step([_batch(8)], 1, 0, 1)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_learns_as_full_precision_does(amp):
    losses = []
    for precision in ("off", amp):
        settings = make_settings(
            training={"amp": precision, "max_epochs": 6}, optimizer={"learning_rate": 0.01}
        )
        result = LSTMTrainer(make_model(settings), settings, CPU).train(*loaders())
        losses.append(result.epochs[-1].train_loss)

    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


def test_the_scale_of_fp16_is_part_of_the_state():
    precision, other = Precision("fp16", CPU, 64), Precision("fp16", CPU, 64)
    precision.scaled(torch.ones(()))
    state = precision.state_dict() | {"scale": 8.0}

    other.load_state_dict(state)

    assert float(other.scaled(torch.ones(()))) == 8.0


def test_a_step_left_out_because_fp16_overflowed_has_no_norm():
    settings = make_settings()
    model = make_model(settings)
    before = weights(model)
    hook = model.lstm[0].weight_hh_l0.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    stepper = _stepper(model, settings, amp="fp16")

    stepper.step([_batch()], 1, 0, 1)

    assert same(weights(model), before)
    assert stepper.totals.tolist()[NORM:] == [0.0, 0.0, 0.0]
    hook.remove()
    stepper.step([_batch()], 1, 1, 1)
    assert 0 < stepper.totals[NORM] < 1e6
    stepper.check()


def test_a_gradient_that_no_scale_of_fp16_mends_stops_the_run():
    settings = make_settings()
    model = make_model(settings)
    model.lstm[0].weight_hh_l0.register_hook(lambda gradient: gradient * torch.nan)
    stepper = _stepper(model, settings, amp="fp16")
    for n in range(20):
        stepper.step([_batch()], 1, n, 1)

    with pytest.raises(TrainingDivergedError, match="not finite"):
        stepper.check()


def test_auto_is_full_precision_on_a_cpu():
    assert Precision("auto", CPU, 512).amp == "off"


def test_after_a_loss_that_is_not_finite_no_step_of_fp16_moves_the_weights():
    settings = make_settings()
    model = make_model(settings)
    stepper = _stepper(model, settings, amp="fp16", sync=False)
    loss = stepper._loss
    stepper.step([_batch()], 1, 0, 1)
    moved = weights(model)
    stepper._loss = lambda *args: loss(*args) + torch.inf  # its gradient is finite all the same
    stepper.step([_batch()], 1, 1, 1)
    stepper._loss = loss
    stepper.step([_batch()], 1, 2, 1)

    assert same(weights(model), moved)
    with pytest.raises(TrainingDivergedError):
        stepper.check()


def test_slices_are_shared_evenly_by_processes():
    assert [list(Group(rank, 2).share(4)) for rank in range(2)] == [[0, 1], [2, 3]]

    with pytest.raises(
        TrainingSetupError, match=r"3 slices cannot be shared by 2 processes; choose a multiple of 2"
    ):
        Group(0, 2).share(3)


def test_a_model_without_anything_to_train_is_refused():
    settings = make_settings(training={"freeze_layers": ["stem", "lstm", "attention", "head"]})

    with pytest.raises(ConfigError, match="freeze_layers"):
        LSTMTrainer(make_model(settings), settings, CPU).train(*loaders())
