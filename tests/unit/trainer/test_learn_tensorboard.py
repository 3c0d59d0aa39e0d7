"""What TensorBoard reads back from a training."""

from __future__ import annotations

import csv
import shutil
import sys
import threading
import time

import pytest
import torch
from small_training import loaders
from small_training import model as make_model
from small_training import settings as make_settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from streamer.process import StopRequest
from trainer.app import run_trainer
from trainer.config import ModelConfig, TrainerSettings
from trainer.errors import DiskUnavailableError, TrainingSetupError
from trainer.learn.config import ModelSettings
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.release.registry.config import RegistryConfig

CPU = torch.device("cpu")


class KilledError(BaseException):
    """The end of a process: nothing after it runs."""


def _train(folder, *, max_epochs=3, checkpoint=(), **options):
    settings = make_settings(training={"max_epochs": max_epochs}, checkpoint=dict(checkpoint))
    trainer = LSTMTrainer(make_model(settings), settings, CPU)
    return trainer.train(*loaders(), run_dir=folder / "run", tensorboard_dir=folder / "curves", **options)


def _curves(folder):
    everything = {"scalars": 0, "histograms": 0}
    events = EventAccumulator(str(folder / "curves"), size_guidance=everything)
    events.Reload()
    return events


def _points(folder, tag):
    return [(event.step, event.value) for event in _curves(folder).Scalars(tag)]


def test_every_figure_of_every_epoch_is_a_point(tmp_path):
    result = _train(tmp_path)

    for tag, name in (
        ("training/loss", "train_loss"),
        ("training/learning_rate", "learning_rate"),
        ("validation/auc_pr", "val_auc_pr"),
        ("machine/sequences_per_s", "sequences_per_s"),
    ):
        expected = [(epoch.epoch, pytest.approx(getattr(epoch, name))) for epoch in result.epochs]
        assert _points(tmp_path, tag) == expected, tag
    (first, *_), (epoch, *_) = _curves(tmp_path).Histograms("validation/probability"), result.epochs
    assert (first.step, first.histogram_value.num) == (epoch.epoch, sum(epoch.val_histogram))
    # All that the files of a run say, its histogram and the number of the epoch aside.
    columns = {name for file in ("metrics", "timings") for name in _columns(tmp_path / "run" / f"{file}.csv")}
    assert len(_curves(tmp_path).Tags()["scalars"]) == len(columns - {"epoch", "val_histogram"})


def _columns(path):
    return next(csv.reader(path.read_text().splitlines()))


def _kill_after(num_steps):
    left = iter(range(num_steps, 0, -1))

    def should_stop():
        if next(left) == 1:
            raise KilledError
        return False

    return should_stop


@pytest.mark.parametrize(
    ("steps", "checkpoint"),
    [
        (3, {"every_steps": 1}),  # within the first epoch, of five
        (8, {"every_steps": 1}),
        (10, {"every_steps": 1}),
        (13, {"every_epochs": 3}),  # begins anew
        (18, {"every_epochs": 2}),  # the third epoch was told and is trained again
    ],
)
def test_a_resumed_training_shows_each_epoch_once_and_leaves_none_out(tmp_path, steps, checkpoint):
    with pytest.raises(KilledError):
        _train(tmp_path, max_epochs=4, checkpoint=checkpoint, should_stop=_kill_after(steps))
    # TensorBoard orders the files of a run by the second they were begun in; no process is back so soon.
    time.sleep(1.1)
    _train(tmp_path, max_epochs=4, checkpoint=checkpoint, resume=True)

    assert [step for step, _ in _points(tmp_path, "validation/loss")] == [1, 2, 3, 4]


def test_a_training_begun_anew_removes_the_curves_of_the_last(tmp_path):
    _train(tmp_path, max_epochs=3)
    _train(tmp_path, max_epochs=2)

    assert [step for step, _ in _points(tmp_path, "training/loss")] == [1, 2]
    assert len(list((tmp_path / "curves").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "curves").write_text("a file")

    with pytest.raises(DiskUnavailableError, match=r"curves: writing failed: File exists"):
        _train(tmp_path)


# The thread in which TensorBoard writes ends with the error that it hands on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_that_is_taken_away_is_named(tmp_path):
    with pytest.raises(DiskUnavailableError, match=r"curves: writing failed: No such file"):
        _train(tmp_path, on_epoch=lambda _: shutil.rmtree(tmp_path / "curves"))
    for thread in threading.enumerate():
        if type(thread).__name__ == "_AsyncWriterThread":
            thread.join(30)  # else its end is told to the next test


@pytest.fixture
def without_tensorboard(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)


@pytest.mark.usefixtures("without_tensorboard")
def test_without_tensorboard_it_says_what_to_install(tmp_path):
    with pytest.raises(TrainingSetupError, match=r"pip install 'castloop\[tensorboard\]'"):
        _train(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_tensorboard")
def test_the_daemon_says_so_before_it_touches_anything(tmp_path):
    settings = TrainerSettings(
        model=ModelConfig(tensorboard_dir=tmp_path / "curves"),
        registry=RegistryConfig(path=tmp_path / "registry"),
    )
    with pytest.raises(TrainingSetupError, match="tensorboard_dir"):
        run_trainer(settings, ModelSettings(), StopRequest())
    assert not (tmp_path / "registry").exists()
