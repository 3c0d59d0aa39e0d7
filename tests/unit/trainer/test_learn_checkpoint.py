"""Checkpoint files."""

from __future__ import annotations

import pytest
import torch

from trainer.errors import CheckpointError, DiskUnavailableError
from trainer.learn.config import CheckpointConfig
from trainer.learn.engine.checkpoint import ModelCheckpoint, load_checkpoint, save_checkpoint
from trainer.learn.engine.early_stopping import EarlyStopping


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
    with pytest.raises(DiskUnavailableError, match="no-such-folder"):
        save_checkpoint(tmp_path / "no-such-folder" / "last.pt", {})


def test_the_last_two_states_are_kept(tmp_path):
    files = ModelCheckpoint(tmp_path, CheckpointConfig())
    assert files.load_last() is None

    for step in (1, 2, 3):
        files.save_last({"step": step})

    assert files.load_last() == (tmp_path / "last.pt", {"step": 3})
    assert load_checkpoint(tmp_path / "previous.pt") == {"step": 2}


@pytest.mark.parametrize("damage", ["cut", "one bit", "gone"])
def test_a_state_that_cannot_be_read_falls_back_to_the_one_before(tmp_path, damage):
    files = ModelCheckpoint(tmp_path, CheckpointConfig())
    for step in (1, 2):
        files.save_last({"step": step, "weights": torch.arange(1000.0)})
    last = tmp_path / "last.pt"
    data = bytearray(last.read_bytes())
    if damage == "gone":
        last.unlink()
    elif damage == "cut":
        last.write_bytes(data[:-1])
    else:
        data[2000] ^= 1
        last.write_bytes(data)

    path, state = files.load_last()

    assert path.name == "previous.pt"
    assert state["step"] == 1


def test_a_torn_state_does_not_take_the_place_of_the_one_that_can_be_read(tmp_path):
    files = ModelCheckpoint(tmp_path, CheckpointConfig())
    for step in (1, 2):
        files.save_last({"step": step})
    (tmp_path / "last.pt").write_bytes(b"torn")
    assert files.load_last() == (tmp_path / "previous.pt", {"step": 1})

    files.save_last({"step": 3})

    assert load_checkpoint(tmp_path / "previous.pt") == {"step": 1}
    files.save_last({"step": 4})
    assert load_checkpoint(tmp_path / "previous.pt") == {"step": 3}
    assert files.load_last() == (tmp_path / "last.pt", {"step": 4})


def test_the_weights_of_the_best_epochs_are_kept(tmp_path):
    files = ModelCheckpoint(tmp_path, CheckpointConfig(keep_best=2))

    for epoch in (2, 9, 11):
        files.save_best(epoch, {"epoch": epoch})

    assert [path.name for path in files.best()] == ["best-00009.pt", "best-00011.pt"]


def test_weights_of_an_epoch_that_is_still_to_come_are_not_kept(tmp_path):
    files = ModelCheckpoint(tmp_path, CheckpointConfig(keep_best=2))

    for epoch in (2, 9, 4):
        files.save_best(epoch, {"epoch": epoch})

    assert [path.name for path in files.best()] == ["best-00002.pt", "best-00004.pt"]


def test_how_often_is_configured(tmp_path):
    files = ModelCheckpoint(tmp_path, CheckpointConfig(every_epochs=3, every_steps=50))

    assert [epoch for epoch in range(1, 10) if files.is_due_after_epoch(epoch)] == [3, 6, 9]
    assert [step for step in range(1, 120) if files.is_due_after_step(step)] == [50, 100]


def test_one_that_only_reads_writes_nothing(tmp_path):
    files = ModelCheckpoint(tmp_path, CheckpointConfig(), writes=False)

    files.save_last({"step": 1})
    files.save_best(1, {"epoch": 1})

    assert list(tmp_path.iterdir()) == []
