"""A trainer killed at borders of its phases, a Redis that goes away, a full disk: nothing shows.

The whole run, with Kafka away and second trainers, is `python -m benchmarks.chaos_train --kills 100`.
"""

from __future__ import annotations

import pytest

from benchmarks.chaos_train.run import Size, chaos, holds

# All borders stand in tests/integration/test_trainer_daemon.py, without a process.
SHORT = Size(
    kills=5,
    points=("register:after", "decided:after", "confirm:before"),
    troubles=("redis_came_back", "disk_full_recovered"),
    plain_between=1,
)


@pytest.mark.timeout(600)
def test_kills_outages_and_a_full_disk_leave_what_a_calm_run_leaves() -> None:
    result = chaos(SHORT, print)
    assert holds(result), result
    assert {*SHORT.points, "random"} <= set(result["kills_by_point"])
    assert result["kills"] >= SHORT.kills
    assert all(result[trouble] for trouble in SHORT.troubles)
