"""Files of a run, written after each epoch."""

from __future__ import annotations

import dataclasses

from trainer.learn.training_metrics import EpochResult, TrainingMetrics


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
