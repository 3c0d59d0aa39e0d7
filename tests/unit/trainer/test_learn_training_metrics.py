"""Files of a run, written after each epoch."""

from __future__ import annotations

import dataclasses

from trainer.learn.report.training_metrics import EpochResult, TrainingMetrics


def _epoch(number):
    figures = dict.fromkeys(EpochResult.__dataclass_fields__, 0.5)
    given = {
        "epoch": number,
        "val_loss": 0.1 + 0.2,
        "val_histogram": (3, 0, 1),
        "num_clipped": 3,
        "is_best": True,
        "seconds": 0.123,
        "num_workers": 2,
    }
    return EpochResult(**figures | given)


def test_metrics_repeat_and_timings_stand_apart(tmp_path):
    metrics = TrainingMetrics(tmp_path)
    metrics.add(_epoch(1))
    metrics.add(dataclasses.replace(_epoch(2), is_best=False))

    columns, *rows = (line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines())
    row = [dict(zip(columns, each, strict=True)) for each in rows]
    assert [each["epoch"] for each in row] == ["1", "2"]
    assert row[0]["val_loss"] == "0.30000000000000004"
    assert row[0]["val_histogram"] == "3 0 1"
    assert [each["is_best"] for each in row] == ["1", "0"]
    timed, *times = (line.split(",") for line in (tmp_path / "timings.csv").read_text().splitlines())
    assert dict(zip(timed, times[1], strict=True))["seconds"] == "0.123"
    assert set(columns) & set(timed) == {"epoch"}
    assert set(columns) | set(timed) == set(EpochResult.__dataclass_fields__)


def test_a_resumed_run_leaves_no_row_of_the_epochs_it_repeats(tmp_path):
    first = TrainingMetrics(tmp_path)
    for number in (1, 2, 3):
        first.add(_epoch(number))

    TrainingMetrics(tmp_path, [_epoch(1)]).add(_epoch(2))

    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
