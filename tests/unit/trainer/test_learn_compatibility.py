from __future__ import annotations

import pytest
from small_training import loaders
from small_training import model as make_model
from small_training import settings as make_settings

from trainer.errors import CheckpointError
from trainer.learn.engine.compatibility import check_fits, made_with
from trainer.learn.engine.feed import feed_of


def _made_with(**sections):
    settings = make_settings(**sections)
    feeds = [feed_of(each, "training") for each in loaders()]
    return made_with(settings, make_model(settings), *feeds)


def test_what_a_resumed_run_may_change_is_no_part_of_it():
    longer = _made_with(training={"max_epochs": 9, "num_threads": 2}, checkpoint={"keep_best": 3})

    assert longer == _made_with()
    assert _made_with(training={"seed": 1}) != longer


def test_the_windows_of_each_class_and_the_sensors_are_part_of_it():
    found = _made_with()

    assert [sum(found["class_counts"][:2]), sum(found["class_counts"][2:])] == [160, 80]
    assert found["num_sensors"] == 2


def test_a_checkpoint_of_another_configuration_names_the_differing_fields():
    with pytest.raises(
        CheckpointError, match=r"^last\.pt: .*architecture\.hidden_size: 64 in the file, 32 now$"
    ):
        check_fits(
            "last.pt",
            {"architecture.hidden_size": 64, "seed": 1},
            {"architecture.hidden_size": 32, "seed": 1},
        )
