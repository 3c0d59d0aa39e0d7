"""When a cycle starts."""

from __future__ import annotations

import pytest

from trainer.triggers import Trigger, TriggersConfig, due

CONFIG = TriggersConfig(new_labelled_windows=100, interval_s=3600)


@pytest.mark.parametrize(
    ("num_new_windows", "since_last_s", "trigger"),
    [
        (0, 0, None),
        (99, 3599, None),
        (100, 0, "new-windows"),
        (1, 3600, "interval"),
        (100, 3600, "new-windows"),
        (0, 10**9, None),  # the same windows would give the same model
    ],
)
def test_windows_first_then_time(num_new_windows: int, since_last_s: float, trigger: Trigger | None) -> None:
    assert due(CONFIG, num_new_windows=num_new_windows, since_last_s=since_last_s) == trigger


def test_time_alone_never_starts_one_where_it_is_switched_off() -> None:
    config = TriggersConfig(new_labelled_windows=100, interval_s=None)
    assert due(config, num_new_windows=99, since_last_s=10**9) is None
