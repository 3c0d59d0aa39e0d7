"""Loss, optimizer step, early stopping, checkpoint files and per-epoch files."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from trainer.errors import CheckpointError, NotEnoughDataError, TrainingDivergedError
from trainer.learn.checkpoint import check_fits, load_checkpoint, save_checkpoint
from trainer.learn.config import EarlyStoppingConfig, LossConfig, OptimizerConfig, SchedulerConfig
from trainer.learn.early_stopping import EarlyStopping
from trainer.learn.loss import WeightedBCELoss
from trainer.learn.optim import ClippedAdam
from trainer.learn.training_metrics import EpochResult, TrainingMetrics


def _weight(model, value):
    nn.init.constant_(model.weight, value)
    return model


def test_a_defect_counts_the_class_ratio_times_the_multiplier():
    loss = WeightedBCELoss(LossConfig(weight_multiplier=2.0), num_good=90, num_defects=10)
    zero = torch.zeros(1)

    assert loss.pos_weight == 18.0
    assert float(loss(zero, torch.ones(1)) / loss(zero, zero)) == pytest.approx(18.0)


def test_a_class_weight_needs_both_classes():
    with pytest.raises(NotEnoughDataError, match="0 defective and 5 good"):
        WeightedBCELoss(LossConfig(), num_good=5, num_defects=0)


def _adam(model, **scheduler):
    return ClippedAdam(
        model, OptimizerConfig(learning_rate=0.1), SchedulerConfig(**scheduler), grad_clip_norm=1.0
    )


def test_a_step_clips_the_gradient_and_tells_its_norm_before():
    model = _weight(nn.Linear(1, 1, bias=False), 0.0)

    assert _adam(model).step(30.0 * model(torch.ones(1)).sum()) == pytest.approx(30.0)
    assert float(model.weight.grad.norm()) == pytest.approx(1.0, rel=1e-4)
    assert model.weight.item() == pytest.approx(-0.1, rel=1e-3)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_moves_no_weight(poison):
    model = _weight(nn.Linear(1, 1, bias=False), 2.0)

    with pytest.raises(TrainingDivergedError, match="the loss is"):
        _adam(model).step(model(torch.ones(1)).sum() * poison)
    assert model.weight.item() == 2.0


def test_a_gradient_that_is_not_finite_moves_no_weight():
    model = _weight(nn.Linear(1, 1, bias=False), 0.0)

    with pytest.raises(TrainingDivergedError, match="gradient norm is inf"):
        _adam(model).step(torch.sqrt(model(torch.ones(1))).sum())
    assert model.weight.item() == 0.0


def test_the_rate_falls_when_the_validation_loss_stands_still_and_goes_on_after_a_restart():
    optimizer = _adam(nn.Linear(1, 1), factor=0.5, patience=1, min_lr=0.03)
    optimizer.end_epoch(1.0)
    optimizer.end_epoch(1.0)
    resumed = _adam(nn.Linear(1, 1), factor=0.5, patience=1, min_lr=0.03)
    resumed.load_state_dict(optimizer.state_dict())

    rates = []
    for _ in range(5):
        resumed.end_epoch(1.0)
        rates.append(resumed.learning_rate)

    assert optimizer.learning_rate == 0.1
    assert rates == pytest.approx([0.05, 0.05, 0.03, 0.03, 0.03])


def test_losses_should_fall_and_scores_should_rise():
    for monitor, better, worse in (("val_loss", 0.4, 0.6), ("val_auc_pr", 0.6, 0.4)):
        stopping = EarlyStopping(EarlyStoppingConfig(monitor=monitor))
        model = nn.Linear(1, 1)

        assert [stopping.update(i, v, model) for i, v in enumerate((0.5, worse, better), 1)] == [
            True,
            False,
            True,
        ]
        assert (stopping.best_epoch, stopping.best_value) == (3, better)


def test_it_stops_after_patience_and_restores_the_best_weights():
    stopping = EarlyStopping(EarlyStoppingConfig(patience=2, min_delta=0.1))
    model = nn.Linear(1, 1)
    stops = []
    for epoch, loss in enumerate((1.0, 0.5, 0.45, 0.41), 1):
        stopping.update(epoch, loss, _weight(model, float(epoch)))
        stops.append(stopping.should_stop)

    assert stops == [False, False, False, True]
    assert stopping.restore(model)
    assert model.weight.item() == 2.0


def test_stopping_goes_on_after_a_restart_in_the_middle(tmp_path):
    config = EarlyStoppingConfig(patience=2)
    stopping, model = EarlyStopping(config), nn.Linear(1, 1)
    stopping.update(1, 0.5, _weight(model, 1.0))
    stopping.update(2, 0.6, _weight(model, 2.0))
    save_checkpoint(tmp_path / "stopping.pt", stopping.state_dict())

    resumed = EarlyStopping(config)
    resumed.load_state_dict(load_checkpoint(tmp_path / "stopping.pt"))
    resumed.update(3, 0.7, model)

    assert resumed.should_stop

    assert resumed.best_epoch == 1
    assert resumed.restore(model)
    assert model.weight.item() == 1.0


def test_without_an_epoch_there_is_nothing_to_restore():
    assert EarlyStopping(EarlyStoppingConfig()).restore(nn.Linear(1, 1)) is False


def test_a_checkpoint_comes_back_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1, "weights": {"a": torch.arange(3.0)}})
    save_checkpoint(path, {"step": 2, "weights": {"a": torch.arange(3.0)}})

    state = load_checkpoint(path)

    assert state["step"] == 2

    assert state["weights"]["a"].tolist() == [0.0, 1.0, 2.0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    with pytest.raises((AttributeError, TypeError)):
        save_checkpoint(path, {"step": 2, "not data": (i for i in range(3))})

    assert load_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_missing_or_foreign_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    torn = tmp_path / "torn.pt"
    torn.write_bytes(path.read_bytes()[:1500])
    foreign = tmp_path / "foreign.pt"
    save_checkpoint(foreign, {"code": EarlyStopping})
    empty = tmp_path / "empty.pt"
    empty.touch()

    for bad in (torn, foreign, empty, tmp_path / "none.pt"):
        with pytest.raises(CheckpointError, match=bad.name):
            load_checkpoint(bad)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no-such-folder"):
        save_checkpoint(tmp_path / "no-such-folder" / "last.pt", {})


def test_a_checkpoint_of_another_configuration_names_the_differing_fields(tmp_path):
    with pytest.raises(CheckpointError, match=r"architecture\.hidden_size: 64 in the file, 32 now$"):
        check_fits(
            tmp_path, {"architecture.hidden_size": 64, "seed": 1}, {"architecture.hidden_size": 32, "seed": 1}
        )


def _epoch(number):
    return EpochResult(
        epoch=number,
        train_loss=0.7,
        val_loss=0.1 + 0.2,
        val_auc_roc=0.9,
        val_auc_pr=0.5,
        learning_rate=1e-3,
        grad_norm=2.0,
        num_clipped=3,
        is_best=True,
        seconds=0.123,
        sequences_per_s=456.0,
    )


def test_metrics_repeat_and_timings_stand_apart(tmp_path):
    metrics = TrainingMetrics(tmp_path)
    metrics.add(_epoch(1))
    metrics.add(dataclasses.replace(_epoch(2), is_best=False))

    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "epoch,train_loss,val_loss,val_auc_roc,val_auc_pr,learning_rate,grad_norm,num_clipped,is_best",
        "1,0.7,0.30000000000000004,0.9,0.5,0.001,2.0,3,1",
        "2,0.7,0.30000000000000004,0.9,0.5,0.001,2.0,3,0",
    ]
    assert (tmp_path / "timings.csv").read_text().splitlines()[1] == "1,0.123,456.0"


def test_a_resumed_run_leaves_no_row_of_the_epochs_it_repeats(tmp_path):
    first = TrainingMetrics(tmp_path)
    for number in (1, 2, 3):
        first.add(_epoch(number))

    TrainingMetrics(tmp_path, [_epoch(1)]).add(_epoch(2))

    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
