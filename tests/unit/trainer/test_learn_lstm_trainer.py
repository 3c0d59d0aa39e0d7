"""The loop as a whole, on a task small enough for seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_training import loaders, same, weights, windows
from small_training import model as make_model
from small_training import settings as make_settings

from trainer.errors import (
    CheckpointError,
    DiskUnavailableError,
    ModelInputError,
    NotEnoughDataError,
    TrainingDivergedError,
)
from trainer.learn.engine.checkpoint import load_checkpoint
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model.network import build_model
from trainer.learn.scores.evaluate import evaluate, predict

CPU = torch.device("cpu")


@pytest.mark.parametrize("stem_stride", [1, 4])
def test_it_learns_a_bump_that_it_has_not_seen(stem_stride):
    settings = make_settings(
        architecture={"hidden_size": 16, "stem_stride": stem_stride},
        training={"max_epochs": 12},
        optimizer={"learning_rate": 1e-2},
    )
    model = make_model(settings)

    result = LSTMTrainer(model, settings, CPU).train(*loaders(num=300))

    x, mask, y = windows(400, seed=77)
    assert evaluate(y, predict(model, x, mask), 0.5).auc_roc > 0.9
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_files(tmp_path):
    settings, outcomes = make_settings(), []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        model = make_model(settings)
        torch.manual_seed(len(outcomes))
        LSTMTrainer(model, settings, CPU).train(*loaders(), run_dir=folder)
        outcomes.append((weights(model), (folder / "metrics.csv").read_bytes()))

    assert same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


def test_each_epoch_sees_the_windows_in_another_order():
    orders = []

    class Noting(WindowLoader):
        def starting_at(self, batch):
            orders.append([])
            for x, mask, y in super().starting_at(batch):
                orders[-1] += x[:, 0, 0].tolist()
                yield x, mask, y

    settings = make_settings(training={"max_epochs": 2})
    train = Noting(*windows(60, seed=0), batch_size=32, shuffle=True)

    LSTMTrainer(make_model(settings), settings, CPU).train(train, loaders()[1])

    first, second = orders[-2:]
    assert first != second
    assert sorted(first) == sorted(second)


def test_windows_in_memory_are_moved_to_the_device_once():
    moved = []

    class Noting(WindowLoader):
        def to(self, device):
            moved.append(device)
            super().to(device)

    settings = make_settings(training={"max_epochs": 2})
    train, val = (Noting(*windows(60, seed=seed), batch_size=32) for seed in (0, 1))

    LSTMTrainer(make_model(settings), settings, CPU).train(train, val)

    assert moved == [CPU, CPU]


def test_another_seed_gives_other_weights():
    first, second = (make_settings(training={"max_epochs": 1, "seed": seed}) for seed in (1, 2))
    models = []
    for settings in (first, second):
        model = make_model(settings)
        LSTMTrainer(model, settings, CPU).train(*loaders())
        models.append(weights(model))

    assert not same(*models)


@pytest.mark.parametrize("stop_at_step", [0, 7, 13])
def test_a_stopped_run_that_is_resumed_ends_as_if_it_was_never_stopped(tmp_path, stop_at_step):
    settings = make_settings()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = make_model(settings)
    LSTMTrainer(expected, settings, CPU).train(*loaders(), run_dir=whole)
    steps = iter(range(1000))
    stopped = LSTMTrainer(make_model(settings), settings, CPU).train(
        *loaders(), run_dir=parts, should_stop=lambda: next(steps) >= stop_at_step
    )

    model = make_model(settings, seed=123)
    result = LSTMTrainer(model, settings, CPU).train(*loaders(), run_dir=parts, resume=True)

    assert stopped.stop_reason == "stopped"

    assert len(stopped.epochs) == (stop_at_step + 1) // 5 - (stop_at_step % 5 == 4)
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3, 4]
    assert same(weights(model), weights(expected))
    assert (parts / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_a_run_stopped_within_its_first_epoch_leaves_the_model_as_it_came():
    settings = make_settings()
    model = make_model(settings)
    before = weights(model)
    steps = iter(range(10))

    result = LSTMTrainer(model, settings, CPU).train(*loaders(), should_stop=lambda: next(steps) == 3)

    assert result.best_epoch is None

    assert result.epochs == ()
    assert same(weights(model), before)


def test_early_stopping_ends_the_run_with_the_best_weights(tmp_path):
    settings = make_settings(
        architecture={"linear_path": False},
        early_stopping={"patience": 2, "monitor": "val_auc_pr"},
        training={"max_epochs": 60},
        optimizer={"learning_rate": 0.02},
    )
    model = make_model(settings)

    result = LSTMTrainer(model, settings, CPU).train(*loaders(), run_dir=tmp_path)

    assert result.stop_reason == "early_stopping"

    assert result.best_epoch == len(result.epochs) - 2
    x, mask, y = windows(80, seed=1)
    assert evaluate(y, predict(model, x, mask), 0.5).auc_pr == pytest.approx(result.best_value, abs=1e-6)
    (best_file,) = tmp_path.glob("best-*.pt")
    best = load_checkpoint(best_file)["model"]
    assert same(best, weights(model))


def test_a_finished_run_that_is_resumed_trains_no_further(tmp_path):
    settings = make_settings()
    LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path)
    seen = []

    result = LSTMTrainer(make_model(settings), settings, CPU).train(
        *loaders(), run_dir=tmp_path, resume=True, on_epoch=seen.append
    )

    assert seen == []

    assert len(result.epochs) == 4


def test_each_epoch_is_told_when_its_files_are_written(tmp_path):
    settings, rows = make_settings(), []

    def note(epoch):
        rows.append((epoch.epoch, (tmp_path / "metrics.csv").read_text().count("\n") - 1))

    LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path, on_epoch=note)

    assert rows == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize(
    ("policy", "level", "kept"),
    [
        ("keep", 0.5, True),
        ("refit", 0.5, False),
        ("auto", 0.5, True),
        ("auto", 5.0, False),  # each value of that sensor lies beyond the limit
        ("keep", 5.0, True),
    ],
)
def test_fine_tuning_starts_from_the_champions_weights_and_normalisation(policy, level, kept):
    settings = make_settings(
        training={"max_epochs": 1},
        optimizer={"learning_rate": 1e-9},
        data_processing={"finetune_normalisation": policy},
    )
    champion = make_model(settings)
    LSTMTrainer(champion, settings, CPU).train(*loaders())
    challenger = make_model(settings, seed=50)
    challenger.load_state_dict(champion.state_dict())

    drifted = WindowLoader(*windows(100, seed=4, level=level), batch_size=32)
    LSTMTrainer(challenger, settings, CPU).train(drifted, loaders()[1])

    center = "input_normalisation.center_C"
    assert torch.equal(challenger.state_dict()[center], champion.state_dict()[center]) is kept
    torch.testing.assert_close(
        challenger.lstm[0].weight_hh_l0, champion.lstm[0].weight_hh_l0, atol=1e-6, rtol=0
    )


def test_normalisation_comes_from_the_training_part_alone():
    settings = make_settings(training={"max_epochs": 1})
    centers = []
    for level in (0.0, 10.0):
        model = make_model(settings)
        validation = WindowLoader(*windows(80, seed=1, level=level), batch_size=64)
        LSTMTrainer(model, settings, CPU).train(loaders()[0], validation)
        centers.append(model.input_normalisation.center_C)

    assert torch.equal(*centers)


def test_any_loader_of_batches_gives_what_the_fast_one_gives():
    settings = make_settings(training={"max_epochs": 2})
    fast, plain = make_model(settings), make_model(settings)
    train = WindowLoader(*windows(100, seed=0), batch_size=32)
    val = loaders()[1]

    LSTMTrainer(fast, settings, CPU).train(train, val)
    LSTMTrainer(plain, settings, CPU).train(list(train), list(val))

    assert same(weights(fast), weights(plain))


def test_the_global_generator_is_left_as_it_was():
    settings = make_settings(training={"max_epochs": 1})
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    LSTMTrainer(make_model(settings), settings, CPU).train(*loaders())

    assert torch.equal(torch.rand(1), expected)


def test_subnormals_are_flushed():
    settings = make_settings()
    LSTMTrainer(make_model(settings), settings, CPU)

    assert float(torch.tensor(1e-38) / 1000) == 0.0


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_part_with_one_class_is_not_enough(part, label):
    settings = make_settings()
    x, mask, _ = windows(20, seed=0)
    one_class = WindowLoader(x, mask, np.full(20, label), batch_size=8)
    train, val = loaders()

    with pytest.raises(NotEnoughDataError, match=f"the {part} part needs defective and good"):
        LSTMTrainer(make_model(settings), settings, CPU).train(
            one_class if part == "training" else train, one_class if part == "validation" else val
        )


class _RunsDry:
    """A loader of batches that has nothing left from its third reading on."""

    def __init__(self, loader):
        self._batches, self._num_read = list(loader), 0

    def __iter__(self):
        self._num_read += 1
        return iter(self._batches if self._num_read < 3 else [])


def test_a_loader_that_hands_out_nothing_any_more_is_not_enough_data():
    settings = make_settings()
    train, val = loaders()

    with pytest.raises(NotEnoughDataError, match="the training part handed out no window in epoch 1"):
        LSTMTrainer(make_model(settings), settings, CPU).train(_RunsDry(train), val)
    with pytest.raises(NotEnoughDataError, match="the validation part handed out no window"):
        LSTMTrainer(make_model(settings), settings, CPU).train(train, _RunsDry(val))


def test_a_loader_that_can_be_read_only_once_is_refused():
    settings = make_settings()
    train, val = loaders()

    with pytest.raises(NotEnoughDataError, match="nothing when it is read again"):
        LSTMTrainer(make_model(settings), settings, CPU).train((each for each in train), val)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_batch_without_a_window_is_refused(part):
    settings = make_settings()
    train, val = map(list, loaders())
    batches = train if part == "training" else val
    batches.append(tuple(each[:0] for each in batches[0]))

    with pytest.raises(ModelInputError, match="a batch without a window"):
        LSTMTrainer(make_model(settings), settings, CPU).train(train, val)


def test_windows_of_other_sensors_are_refused():
    settings = make_settings()

    with pytest.raises(ModelInputError, match=r"expected windows \[N, T, 7\]"):
        LSTMTrainer(build_model(settings.architecture, 7, 0), settings, CPU).train(*loaders())


def test_batches_of_different_sensors_are_refused():
    settings = make_settings()
    train, val = map(list, loaders())
    x, mask, y = train[0]

    with pytest.raises(ModelInputError, match="windows of 1 and of 2 sensors"):
        LSTMTrainer(make_model(settings), settings, CPU).train([*train, (x[:, :, :1], mask, y)], val)


def test_a_rate_that_blows_up_the_weights_stops_the_run():
    settings = make_settings(optimizer={"learning_rate": 1.0}, training={"max_epochs": 2})
    model = make_model(settings)
    with torch.no_grad():
        model.head[-1].weight.fill_(torch.nan)

    with pytest.raises(TrainingDivergedError, match="the loss is nan"):
        LSTMTrainer(model, settings, CPU).train(*loaders())


def test_a_checkpoint_of_another_architecture_names_the_fields(tmp_path):
    settings = make_settings(training={"max_epochs": 1})
    LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path)
    other = make_settings(architecture={"hidden_size": 12}, training={"max_epochs": 1})

    with pytest.raises(CheckpointError, match=r"architecture\.hidden_size: 8 in the file, 12 now$"):
        LSTMTrainer(make_model(other), other, CPU).train(*loaders(), run_dir=tmp_path, resume=True)


def test_a_foreign_checkpoint_is_not_resumed_from(tmp_path):
    settings = make_settings(training={"max_epochs": 1})
    torch.save({"made_with": {}}, tmp_path / "last.pt")

    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path, resume=True)


def test_a_run_folder_is_made_and_one_that_cannot_be_made_is_named(tmp_path):
    settings = make_settings(training={"max_epochs": 1})
    (tmp_path / "file").touch()

    LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path / "a" / "b")
    with pytest.raises(
        DiskUnavailableError, match=r"file/c: making the folder of the run failed: Not a directory"
    ):
        LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path / "file" / "c")

    assert (tmp_path / "a" / "b" / "last.pt").exists()


def test_a_run_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path):
    settings = make_settings(training={"max_epochs": 3})
    LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), run_dir=tmp_path)
    there = []

    def stop_in_the_second_epoch():
        there.append(sorted(path.name for path in tmp_path.iterdir()))
        return len(there) == 7

    result = LSTMTrainer(make_model(settings, seed=5), settings, CPU).train(
        *loaders(), run_dir=tmp_path, should_stop=stop_in_the_second_epoch
    )

    assert there[0] == ["metrics.csv", "timings.csv"]
    assert result.best_epoch == 1
    assert [path.name for path in tmp_path.glob("best-*.pt")] == ["best-00001.pt"]


def test_validation_alone_says_what_an_epoch_says():
    settings = make_settings(architecture={"linear_path": False}, training={"max_epochs": 1})
    trainer = LSTMTrainer(make_model(settings), settings, CPU)
    _, val = loaders()

    result = trainer.train(*loaders())
    alone = trainer.validate(val)

    (epoch,) = result.epochs
    assert alone.scores.auc_roc == epoch.val_auc_roc
    assert alone.histogram == epoch.val_histogram
    assert sum(alone.histogram) == 80


def test_validation_alone_weighs_defects_as_the_training_did():
    settings = make_settings(architecture={"linear_path": False}, training={"max_epochs": 1})
    trainer = LSTMTrainer(make_model(settings), settings, CPU)
    x, mask, y = windows(80, seed=1)
    even = np.concatenate([np.flatnonzero(y)[:10], np.flatnonzero(y == 0)[:10]])
    val = WindowLoader(x[even], mask[even], y[even], batch_size=64)

    (epoch,) = trainer.train(loaders()[0], val).epochs

    assert trainer.validate(val).loss == pytest.approx(epoch.val_loss)


def test_a_state_saved_by_hand_is_gone_on_with(tmp_path):
    longer, shorter = make_settings(), make_settings(training={"max_epochs": 2})
    expected = make_model(longer)
    LSTMTrainer(expected, longer, CPU).train(*loaders())
    first = LSTMTrainer(make_model(shorter), shorter, CPU)
    first.train(*loaders())
    first.save_checkpoint(tmp_path / "mine.pt")

    model = make_model(longer, seed=9)
    second = LSTMTrainer(model, longer, CPU)
    second.load_checkpoint(tmp_path / "mine.pt")
    result = second.train(*loaders())

    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3, 4]
    assert same(weights(model), weights(expected))


def test_a_state_saved_by_hand_is_that_of_the_last_step_and_not_of_the_best_epoch(tmp_path):
    rate = {"optimizer": {"learning_rate": 0.1}, "early_stopping": {"monitor": "val_loss"}}
    longer, shorter = make_settings(**rate), make_settings(training={"max_epochs": 3}, **rate)
    expected = LSTMTrainer(make_model(longer), longer, CPU).train(*loaders())
    first = LSTMTrainer(make_model(shorter), shorter, CPU)
    assert first.train(*loaders()).best_epoch == 1
    first.save_checkpoint(tmp_path / "mine.pt")

    second = LSTMTrainer(make_model(longer), longer, CPU)
    second.load_checkpoint(tmp_path / "mine.pt")
    result = second.train(*loaders())

    assert [epoch.val_loss for epoch in result.epochs] == [epoch.val_loss for epoch in expected.epochs]


def test_without_a_training_there_is_no_state_to_save(tmp_path):
    settings = make_settings()

    with pytest.raises(CheckpointError, match="nothing was trained yet"):
        LSTMTrainer(make_model(settings), settings, CPU).save_checkpoint(tmp_path / "mine.pt")


def test_a_loaded_state_of_another_architecture_names_the_fields(tmp_path):
    settings = make_settings(training={"max_epochs": 1})
    trainer = LSTMTrainer(make_model(settings), settings, CPU)
    trainer.train(*loaders())
    trainer.save_checkpoint(tmp_path / "mine.pt")
    other = make_settings(architecture={"hidden_size": 12, "num_layers": 1})

    differing = (
        r"architecture\.hidden_size: 8 in the file, 12 now; architecture\.num_layers: 2 in the file, 1 now$"
    )
    with pytest.raises(CheckpointError, match=f"mine.pt: of another architecture: {differing}"):
        LSTMTrainer(make_model(other), other, CPU).load_checkpoint(tmp_path / "mine.pt")


def test_a_loaded_state_whose_weights_fit_another_architecture_by_chance_is_refused(tmp_path):
    mean, maximum = (
        make_settings(architecture={"readout": readout}, training={"max_epochs": 1})
        for readout in ("mean", "max")
    )
    trainer = LSTMTrainer(make_model(mean), mean, CPU)
    trainer.train(*loaders())
    trainer.save_checkpoint(tmp_path / "mine.pt")

    with pytest.raises(CheckpointError, match=r"architecture\.readout: 'mean' in the file, 'max' now$"):
        LSTMTrainer(make_model(maximum), maximum, CPU).load_checkpoint(tmp_path / "mine.pt")


def test_epochs_that_were_done_before_are_counted():
    settings = make_settings(training={"max_epochs": 3})

    result = LSTMTrainer(make_model(settings), settings, CPU).train(*loaders(), 2)

    assert [epoch.epoch for epoch in result.epochs] == [3]


def test_frozen_layers_keep_their_weights():
    settings = make_settings(training={"max_epochs": 1, "freeze_layers": ["lstm.0", "stem"]})
    model = make_model(settings)
    before = weights(model)

    LSTMTrainer(model, settings, CPU).train(*loaders())

    after = weights(model)
    moved = {name.rsplit(".", 1)[0] for name in after if not torch.equal(after[name], before[name])}
    assert not any(name.startswith(("stem", "lstm.0")) for name in moved)
    assert {"lstm.1", "head.1"} <= moved


def test_layers_that_one_training_froze_move_in_the_next():
    frozen, free = (
        make_settings(training={"max_epochs": 1, "freeze_layers": names}) for names in (["lstm", "stem"], [])
    )
    model = make_model(frozen)
    model.freeze(["lstm.1"])
    LSTMTrainer(model, frozen, CPU).train(*loaders())
    before = weights(model)

    LSTMTrainer(model, free, CPU).train(*loaders())

    kept = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert kept == {name for name in before if name.startswith("lstm.1.")}


def test_the_parts_of_a_step_may_be_several_batches():
    once, twice = (
        make_settings(training={"max_epochs": 1, "accumulate_batches": n, "num_slices": 1}) for n in (1, 2)
    )
    whole, parts = make_model(once), make_model(twice)
    arrays, epochs = windows(64, seed=0), []

    for settings, model, size in ((once, whole, 64), (twice, parts, 40)):
        plain = settings.model_copy(
            update={"architecture": settings.architecture.model_copy(update={"dropout": 0.0})}
        )
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        result = LSTMTrainer(model, plain, CPU).train(WindowLoader(*arrays, batch_size=size), loaders()[1])
        epochs += result.epochs

    # The first step of Adam is the same for a gradient twice as long: its length is looked at by itself.
    assert epochs[1].grad_norm == pytest.approx(epochs[0].grad_norm, rel=1e-4)
    assert epochs[1].train_loss == pytest.approx(epochs[0].train_loss, rel=1e-5)
    for name, value in parts.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], msg=name)
