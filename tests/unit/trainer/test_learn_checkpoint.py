"""Checkpoint files."""

from __future__ import annotations

import pytest
import torch

from trainer.errors import CheckpointError
from trainer.learn.checkpoint import check_fits, load_checkpoint, save_checkpoint
from trainer.learn.early_stopping import EarlyStopping


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
