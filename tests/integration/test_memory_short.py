"""The memory of a cycle in short: a second copy of the data set, at freeze or in training, is noticed."""

from __future__ import annotations

import json

import pytest

from benchmarks import memory

# Of them one copy is 50 MB. Fewer: what does not depend on the data set counts for more than a copy.
NUM_WINDOWS = 8_000
# Measured 1.1 and 1.6. The loaders by themselves would bring 0.8 of a copy, a list of the windows one.
MAX_FREEZE_COPIES, MAX_TRAINING_COPIES = 1.5, 2.1


def test_a_cycle_holds_its_data_set_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--json", "--windows", str(NUM_WINDOWS)]) == 0
    figures = json.loads(capsys.readouterr().out)

    assert figures["windows"] == NUM_WINDOWS
    assert 1 <= figures["freeze_copies"] < MAX_FREEZE_COPIES
    assert 1 <= figures["training_copies"] < MAX_TRAINING_COPIES
