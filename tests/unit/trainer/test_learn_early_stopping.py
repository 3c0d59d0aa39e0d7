from __future__ import annotations

import math
from typing import get_args

import pytest
from torch import nn

from trainer.errors import TrainingDivergedError
from trainer.learn.config import EarlyStoppingConfig, Monitor
from trainer.learn.engine.checkpoint import load_checkpoint, save_checkpoint
from trainer.learn.engine.early_stopping import EarlyStopping


def _weight(model, value):
    nn.init.constant_(model.weight, value)
    return model


def _values(stopping, values):
    model = nn.Linear(1, 1)
    return [stopping.update(epoch, value, model) for epoch, value in enumerate(values, 1)]


@pytest.mark.parametrize("monitor", get_args(Monitor))
def test_losses_and_errors_should_fall_and_scores_should_rise(monitor):
    better, worse = (0.4, 0.6) if monitor in {"val_loss", "val_brier", "val_ece"} else (0.6, 0.4)
    stopping = EarlyStopping(EarlyStoppingConfig(monitor=monitor))

    assert _values(stopping, (0.5, worse, better)) == [True, False, True]
    assert (stopping.best_epoch, stopping.best_value) == (3, better)


def test_it_stops_after_patience_and_restores_the_best_weights():
    stopping = EarlyStopping(EarlyStoppingConfig(monitor="val_loss", patience=2, min_delta=0.1))
    model = nn.Linear(1, 1)
    stops = []
    for epoch, loss in enumerate((1.0, 0.5, 0.45, 0.41), 1):
        stopping.update(epoch, loss, _weight(model, float(epoch)))
        stops.append(stopping.should_stop)

    assert stops == [False, False, False, True]
    assert stopping.restore(model)
    assert model.weight.item() == 2.0


def test_an_improvement_is_larger_than_min_delta_and_counts_from_the_best():
    stopping = EarlyStopping(EarlyStoppingConfig(monitor="val_f1", min_delta=0.25))

    assert _values(stopping, (0.25, 0.375, 0.5, 0.625)) == [True, False, False, True]


def test_an_improvement_gives_the_whole_patience_back():
    stopping = EarlyStopping(EarlyStoppingConfig(monitor="val_loss", patience=2))
    stops = []
    for loss in (0.5, 0.6, 0.4, 0.6, 0.6):
        stopping.update(len(stops), loss, nn.Linear(1, 1))
        stops.append(stopping.should_stop)

    assert stops == [False, False, False, False, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("before", [(), (0.5,)])
def test_a_figure_that_is_not_finite_is_a_divergence_and_changes_nothing(value, before):
    stopping = EarlyStopping(EarlyStoppingConfig(monitor="val_auc_pr", patience=1))
    _values(stopping, before)

    with pytest.raises(TrainingDivergedError, match=f"val_auc_pr of epoch 7 is {value}"):
        stopping.update(7, value, nn.Linear(1, 1))
    assert stopping.best_value == (before[0] if before else None)
    assert not stopping.should_stop


def test_stopping_goes_on_after_a_restart_in_the_middle(tmp_path):
    config = EarlyStoppingConfig(monitor="val_loss", patience=2)
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
    assert EarlyStopping(EarlyStoppingConfig(monitor="val_loss")).restore(nn.Linear(1, 1)) is False
