"""A training that is killed and resumed ends with the same bits as one that was never stopped."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from small_training import loaders, same, weights, windows
from small_training import model as make_model
from small_training import settings as make_settings
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from trainer.errors import CheckpointError
from trainer.learn.engine import arithmetic as machine
from trainer.learn.lstm_trainer import LSTMTrainer

CPU = torch.device("cpu")
NUM_STEPS = 20  # four epochs of five


class KilledError(BaseException):
    """The end of a process: nothing after it runs."""


def _killer(after_steps):
    steps = iter(range(1, 10_000))

    def should_stop():
        if next(steps) == after_steps:
            raise KilledError
        return False

    return should_stop


def _train(settings, folder, *, seed=0, parts=None, **options):
    model = make_model(settings, seed)
    result = LSTMTrainer(model, settings, CPU).train(*(parts or loaders()), run_dir=folder, **options)
    return result, weights(model), (folder / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was never stopped; rates that fall and dropout make each step depend on all before it."""
    return _train(make_settings(**EVERYTHING), tmp_path_factory.mktemp("whole"))


EVERYTHING = {
    "architecture": {"head_norm": "batch", "readout": "attention"},
    "scheduler": {"warmup_steps": 7, "plateau_patience": 0},
    "checkpoint": {"every_steps": 1},
    "training": {"num_workers": 2},
}


@pytest.mark.parametrize("step", random.Random(4).sample(range(1, NUM_STEPS + 1), NUM_STEPS))
def test_killed_behind_any_step_it_ends_with_the_same_bits(tmp_path, whole, step):
    settings = make_settings(**EVERYTHING)
    with pytest.raises(KilledError):
        _train(settings, tmp_path, should_stop=_killer(step))

    # Behind the first step nothing is saved yet; from then on what the model came with is of no account.
    resumed = _train(settings, tmp_path, seed=0 if step == 1 else 77, resume=True)

    assert resumed[0].inexact == ()
    assert same(resumed[1], whole[1])
    assert resumed[2] == whole[2]


@pytest.mark.parametrize("every_steps", [None, 3])
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, whole, every_steps):
    settings = make_settings(**EVERYTHING | {"checkpoint": {"every_steps": every_steps}})
    for step in (8, 7, 6):
        with pytest.raises(KilledError):
            _train(settings, tmp_path, resume=True, should_stop=_killer(step))

    resumed = _train(settings, tmp_path, resume=True)

    assert same(resumed[1], whole[1])
    assert resumed[2] == whole[2]


@pytest.mark.parametrize("step", [3, 10, 14])
def test_asked_to_stop_it_saves_where_it_is(tmp_path, whole, step):
    settings = make_settings(**EVERYTHING | {"checkpoint": {}})
    steps = iter(range(1, 1000))
    stopped = _train(settings, tmp_path, should_stop=lambda: next(steps) == step) if step > 5 else None
    if stopped is None:
        LSTMTrainer(make_model(settings), settings, CPU).train(
            *loaders(), run_dir=tmp_path, should_stop=lambda: next(steps) == step
        )
    done = iter(range(1000))

    resumed = _train(settings, tmp_path, resume=True, should_stop=lambda: next(done) < 0)

    assert next(done) == NUM_STEPS - step
    assert same(resumed[1], whole[1])
    assert resumed[2] == whole[2]


def test_the_number_of_workers_may_change_in_between(tmp_path, whole):
    first = make_settings(**EVERYTHING)
    then = make_settings(**EVERYTHING | {"training": {"num_workers": 1}})
    with pytest.raises(KilledError):
        _train(first, tmp_path, should_stop=_killer(8))

    resumed = _train(then, tmp_path, resume=True)

    assert resumed[0].inexact == ()
    assert same(resumed[1], whole[1])


def test_a_torn_file_falls_back_to_the_one_before(tmp_path, whole):
    settings = make_settings(**EVERYTHING)
    with pytest.raises(KilledError):
        _train(settings, tmp_path, should_stop=_killer(8))
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    done = iter(range(1000))

    resumed = _train(settings, tmp_path, resume=True, should_stop=lambda: next(done) < 0)

    assert next(done) == NUM_STEPS - 6
    assert same(resumed[1], whole[1])


def test_when_no_file_can_be_read_each_is_named(tmp_path):
    settings = make_settings()
    _train(settings, tmp_path)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"castloop-state-1\n" + bytes(40))

    with pytest.raises(CheckpointError, match=r"last\.pt: torn or damaged.*previous\.pt: torn or damaged"):
        _train(settings, tmp_path, resume=True)


def test_on_another_machine_it_goes_on_and_says_that_it_is_not_exact(tmp_path, monkeypatch):
    settings = make_settings()
    with pytest.raises(KilledError):
        _train(settings, tmp_path, should_stop=_killer(7))
    monkeypatch.setattr(machine, "cpu_model", lambda: "another")

    result, *_ = _train(settings, tmp_path, resume=True)

    assert any("cpu" in reason and "'another' now" in reason for reason in result.inexact)
    assert len(result.epochs) == 4


def test_that_it_is_not_exact_is_still_told_when_it_is_resumed_there_once_more(tmp_path, monkeypatch):
    settings = make_settings()
    with pytest.raises(KilledError):
        _train(settings, tmp_path, should_stop=_killer(7))
    monkeypatch.setattr(machine, "cpu_model", lambda: "another")
    first, *_ = _train(settings, tmp_path, resume=True, should_stop=lambda: True)

    then, *_ = _train(settings, tmp_path, resume=True)

    assert first.stop_reason == "stopped"
    assert then.inexact == first.inexact
    assert len(then.inexact) == 1


class _Jittered(Dataset):
    """A map-style data set that draws from the global generators, as augmentations do."""

    def __init__(self, arrays):
        self._x, self._mask, self._y = arrays

    def __len__(self):
        return len(self._y)

    def __getitem__(self, index):
        noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1) + float(torch.randn(()) * 0.1)
        return (
            torch.from_numpy(self._x[index]) + noise,
            torch.from_numpy(self._mask[index]),
            float(self._y[index]),
        )


def _map_style():
    return DataLoader(_Jittered(windows(160, 0)), batch_size=32, shuffle=True), loaders()[1]


@pytest.mark.parametrize("step", [2, 7, 15])
def test_a_map_style_loader_of_torch_is_resumed_in_the_middle_of_an_epoch(tmp_path, step):
    settings = make_settings(checkpoint={"every_steps": 1})
    expected = _train(settings, tmp_path / "whole", parts=_map_style())
    with pytest.raises(KilledError):
        _train(settings, tmp_path, parts=_map_style(), should_stop=_killer(step))

    resumed = _train(settings, tmp_path, parts=_map_style(), resume=True)

    assert resumed[0].inexact == ()
    assert same(resumed[1], expected[1])
    assert resumed[2] == expected[2]


def _with_its_own_generator():
    generator = torch.Generator().manual_seed(3)
    sampler = RandomSampler(range(160), generator=generator)
    return DataLoader(_Jittered(windows(160, 0)), batch_size=32, sampler=sampler), loaders()[1]


def test_a_generator_of_the_loaders_own_is_no_obstacle(tmp_path):
    settings = make_settings(checkpoint={"every_steps": 1})
    expected = _train(settings, tmp_path / "whole", parts=_with_its_own_generator())
    with pytest.raises(KilledError):
        _train(settings, tmp_path, parts=_with_its_own_generator(), should_stop=_killer(8))

    resumed = _train(settings, tmp_path, parts=_with_its_own_generator(), resume=True)

    assert resumed[0].inexact == ()
    assert same(resumed[1], expected[1])
    assert resumed[2] == expected[2]


def _other_generators(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_a_loader_that_draws_gives_the_same_whatever_was_drawn_before_the_training(tmp_path):
    ended = []
    for seed in (1, 2):
        _other_generators(seed)
        ended.append(_train(make_settings(), tmp_path / str(seed), parts=_map_style()))

    assert same(ended[0][1], ended[1][1])
    assert ended[0][2] == ended[1][2]


def test_windows_that_a_loader_leaves_out_by_chance_are_no_obstacle(tmp_path):
    settings = make_settings()

    def parts():
        train = DataLoader(_Jittered(windows(160, 0)), batch_size=48, shuffle=True, drop_last=True)
        return train, loaders()[1]

    _other_generators(1)
    with pytest.raises(KilledError):
        _train(settings, tmp_path, parts=parts(), should_stop=_killer(5))
    _other_generators(2)

    assert len(_train(settings, tmp_path, parts=parts(), resume=True)[0].epochs) == 4


class _Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(*(torch.from_numpy(each) for each in windows(160, 0))))


def test_an_iterable_loader_begins_its_epoch_anew_and_says_so(tmp_path):
    settings = make_settings(checkpoint={"every_steps": 1})

    def parts():
        return DataLoader(_Stream(), batch_size=32), loaders()[1]

    with pytest.raises(KilledError):
        _train(settings, tmp_path, parts=parts(), should_stop=_killer(8))
    done = iter(range(1000))

    result, *_ = _train(settings, tmp_path, parts=parts(), resume=True, should_stop=lambda: next(done) < 0)

    assert next(done) == NUM_STEPS - 5
    assert any("its epoch begins anew" in reason for reason in result.inexact)
