"""The loop as a whole, on a task small enough for seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.errors import CheckpointError, ModelInputError, NotEnoughDataError, TrainingDivergedError
from trainer.learn.config import ModelSettings
from trainer.learn.evaluate import evaluate, predict
from trainer.learn.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model import build_model

CPU = torch.device("cpu")


def _windows(num, seed, *, steps=24, level=0.0):
    """A defective window holds a bump of one sensor; offsets and units differ from sensor to sensor."""
    rng = np.random.default_rng(seed)
    y = (rng.random(num) < 0.3).astype(np.int8)
    x = rng.normal(size=(num, steps, 2))
    for n in np.flatnonzero(y):
        start = rng.integers(0, steps - 8)
        x[n, start : start + 8, 0] += 2.0
    x = x * [0.2, 60.0] + [1.2 + level, 900.0]
    return x.astype(np.float32), np.ones((num, steps), bool), y


def _loaders(seed=0, num=160, batch_size=32):
    return (
        WindowLoader(*_windows(num, seed), batch_size=batch_size, shuffle=True, seed=5),
        WindowLoader(*_windows(80, seed + 1), batch_size=64),
    )


def _settings(**sections):
    sections["architecture"] = {"hidden_size": 8, "stem_stride": 4} | sections.get("architecture", {})
    sections.setdefault("training", {}).setdefault("max_epochs", 4)
    return ModelSettings(**sections)


def _model(settings, seed=0):
    return build_model(settings.architecture, 2, seed)


def _weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stem_stride", [1, 4])
def test_it_learns_a_bump_that_it_has_not_seen(stem_stride):
    settings = _settings(
        architecture={"hidden_size": 16, "stem_stride": stem_stride},
        training={"max_epochs": 12},
        optimizer={"learning_rate": 1e-2},
    )
    model = _model(settings)

    result = LSTMTrainer(model, settings, CPU).train(*_loaders(num=300))

    x, mask, y = _windows(400, seed=77)
    assert evaluate(y, predict(model, x, mask), 0.5).auc_roc > 0.9
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_files(tmp_path):
    settings, outcomes = _settings(), []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        model = _model(settings)
        torch.manual_seed(len(outcomes))
        LSTMTrainer(model, settings, CPU).train(*_loaders(), run_dir=folder)
        outcomes.append((_weights(model), (folder / "metrics.csv").read_bytes()))

    assert _same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


def test_each_epoch_sees_the_windows_in_another_order():
    orders = []

    class Noting(WindowLoader):
        def __iter__(self):
            orders.append([])
            for x, mask, y in super().__iter__():
                orders[-1] += x[:, 0, 0].tolist()
                yield x, mask, y

    settings = _settings(training={"max_epochs": 2})
    train = Noting(*_windows(60, seed=0), batch_size=32, shuffle=True)

    LSTMTrainer(_model(settings), settings, CPU).train(train, _loaders()[1])

    first, second = orders[-2:]
    assert first != second
    assert sorted(first) == sorted(second)


def test_another_seed_gives_other_weights():
    first, second = (_settings(training={"max_epochs": 1, "seed": seed}) for seed in (1, 2))
    models = []
    for settings in (first, second):
        model = _model(settings)
        LSTMTrainer(model, settings, CPU).train(*_loaders())
        models.append(_weights(model))

    assert not _same(*models)


@pytest.mark.parametrize("stop_at_step", [0, 7, 13])
def test_a_stopped_run_that_is_resumed_ends_as_if_it_was_never_stopped(tmp_path, stop_at_step):
    settings = _settings()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = _model(settings)
    LSTMTrainer(expected, settings, CPU).train(*_loaders(), run_dir=whole)
    steps = iter(range(1000))
    stopped = LSTMTrainer(_model(settings), settings, CPU).train(
        *_loaders(), run_dir=parts, should_stop=lambda: next(steps) >= stop_at_step
    )

    model = _model(settings, seed=0 if stop_at_step < 5 else 123)
    result = LSTMTrainer(model, settings, CPU).train(*_loaders(), run_dir=parts, resume=True)

    assert stopped.stop_reason == "stopped"

    assert len(stopped.epochs) == stop_at_step // 5
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3, 4]
    assert _same(_weights(model), _weights(expected))
    assert (parts / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_a_run_stopped_within_its_first_epoch_leaves_the_model_as_it_came():
    settings = _settings()
    model = _model(settings)
    before = _weights(model)
    steps = iter(range(10))

    result = LSTMTrainer(model, settings, CPU).train(*_loaders(), should_stop=lambda: next(steps) == 3)

    assert result.best_epoch is None

    assert result.epochs == ()
    assert _same(_weights(model), before)


def test_early_stopping_ends_the_run_with_the_best_weights(tmp_path):
    settings = _settings(
        early_stopping={"patience": 2, "monitor": "val_auc_pr"},
        training={"max_epochs": 60},
        optimizer={"learning_rate": 0.02},
    )
    model = _model(settings)

    result = LSTMTrainer(model, settings, CPU).train(*_loaders(), run_dir=tmp_path)

    assert result.stop_reason == "early_stopping"

    assert result.best_epoch == len(result.epochs) - 2
    x, mask, y = _windows(80, seed=1)
    assert evaluate(y, predict(model, x, mask), 0.5).auc_pr == pytest.approx(result.best_value, abs=1e-6)
    best = torch.load(tmp_path / "best.pt", weights_only=True)["model"]
    assert _same(best, _weights(model))


def test_a_finished_run_that_is_resumed_trains_no_further(tmp_path):
    settings = _settings()
    LSTMTrainer(_model(settings), settings, CPU).train(*_loaders(), run_dir=tmp_path)
    seen = []

    result = LSTMTrainer(_model(settings), settings, CPU).train(
        *_loaders(), run_dir=tmp_path, resume=True, on_epoch=seen.append
    )

    assert seen == []

    assert len(result.epochs) == 4


def test_each_epoch_is_told_when_its_files_are_written(tmp_path):
    settings, rows = _settings(), []

    def note(epoch):
        rows.append((epoch.epoch, (tmp_path / "metrics.csv").read_text().count("\n") - 1))

    LSTMTrainer(_model(settings), settings, CPU).train(*_loaders(), run_dir=tmp_path, on_epoch=note)

    assert rows == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize(("policy", "kept"), [("keep", True), ("refit", False)])
def test_fine_tuning_starts_from_the_champions_weights_and_normalisation(policy, kept):
    settings = _settings(
        training={"max_epochs": 1},
        optimizer={"learning_rate": 1e-9},
        data_processing={"finetune_normalisation": policy},
    )
    champion = _model(settings)
    LSTMTrainer(champion, settings, CPU).train(*_loaders())
    challenger = _model(settings, seed=50)
    challenger.load_state_dict(champion.state_dict())

    drifted = WindowLoader(*_windows(100, seed=4, level=0.5), batch_size=32)
    LSTMTrainer(challenger, settings, CPU).train(drifted, _loaders()[1])

    center = "input_normalisation.center_C"
    assert torch.equal(challenger.state_dict()[center], champion.state_dict()[center]) is kept
    torch.testing.assert_close(challenger.lstm.weight_hh_l0, champion.lstm.weight_hh_l0, atol=1e-6, rtol=0)


def test_normalisation_comes_from_the_training_part_alone():
    settings = _settings(training={"max_epochs": 1})
    centers = []
    for level in (0.0, 10.0):
        model = _model(settings)
        validation = WindowLoader(*_windows(80, seed=1, level=level), batch_size=64)
        LSTMTrainer(model, settings, CPU).train(_loaders()[0], validation)
        centers.append(model.input_normalisation.center_C)

    assert torch.equal(*centers)


def test_any_loader_of_batches_gives_what_the_fast_one_gives():
    class Plain(list):
        pass

    settings = _settings(training={"max_epochs": 2})
    fast, plain = _model(settings), _model(settings)
    train = WindowLoader(*_windows(100, seed=0), batch_size=32)
    val = _loaders()[1]

    LSTMTrainer(fast, settings, CPU).train(train, val)
    LSTMTrainer(plain, settings, CPU).train(Plain(train), Plain(val))

    assert _same(_weights(fast), _weights(plain))


def test_the_global_generator_is_left_as_it_was():
    settings = _settings(training={"max_epochs": 1})
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    LSTMTrainer(_model(settings), settings, CPU).train(*_loaders())

    assert torch.equal(torch.rand(1), expected)


def test_subnormals_are_flushed():
    settings = _settings()
    LSTMTrainer(_model(settings), settings, CPU)

    assert float(torch.tensor(1e-38) / 1000) == 0.0


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_part_with_one_class_is_not_enough(part, label):
    settings = _settings()
    x, mask, _ = _windows(20, seed=0)
    one_class = WindowLoader(x, mask, np.full(20, label), batch_size=8)
    train, val = _loaders()

    with pytest.raises(NotEnoughDataError, match=f"the {part} part needs defective and good"):
        LSTMTrainer(_model(settings), settings, CPU).train(
            one_class if part == "training" else train, one_class if part == "validation" else val
        )


def test_windows_of_other_sensors_are_refused():
    settings = _settings()

    with pytest.raises(ModelInputError, match=r"expected windows \[N, T, 7\]"):
        LSTMTrainer(build_model(settings.architecture, 7, 0), settings, CPU).train(*_loaders())


def test_a_rate_that_blows_up_the_weights_stops_the_run():
    settings = _settings(optimizer={"learning_rate": 1.0}, training={"max_epochs": 2})
    model = _model(settings)
    with torch.no_grad():
        model.head[-1].weight.fill_(torch.nan)

    with pytest.raises(TrainingDivergedError, match="the loss is nan"):
        LSTMTrainer(model, settings, CPU).train(*_loaders())


def test_a_checkpoint_of_another_architecture_names_the_fields(tmp_path):
    settings = _settings(training={"max_epochs": 1})
    LSTMTrainer(_model(settings), settings, CPU).train(*_loaders(), run_dir=tmp_path)
    other = _settings(architecture={"hidden_size": 12}, training={"max_epochs": 1})

    with pytest.raises(CheckpointError, match=r"architecture\.hidden_size: 8 in the file, 12 now$"):
        LSTMTrainer(_model(other), other, CPU).train(*_loaders(), run_dir=tmp_path, resume=True)


def test_a_foreign_checkpoint_is_not_resumed_from(tmp_path):
    settings = _settings(training={"max_epochs": 1})
    torch.save({"made_with": {}}, tmp_path / "last.pt")

    with pytest.raises(CheckpointError, match="made with another configuration"):
        LSTMTrainer(_model(settings), settings, CPU).train(*_loaders(), run_dir=tmp_path, resume=True)


def test_a_run_folder_that_is_not_there_is_named(tmp_path):
    settings = _settings(training={"max_epochs": 1})

    with pytest.raises(CheckpointError, match="missing"):
        LSTMTrainer(_model(settings), settings, CPU).train(*_loaders(), run_dir=tmp_path / "missing")
