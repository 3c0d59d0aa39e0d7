"""A trainer killed at borders of its phases, Kafka and Redis away, a full disk, a second trainer: nothing shows.

The whole run is `python -m benchmarks.chaos_train --kills 100`.
"""

from __future__ import annotations

import pytest

from benchmarks.chaos_train.life import POINTS
from benchmarks.chaos_train.run import Size, chaos, holds

# The others stand in tests/integration/test_trainer_daemon.py, without a process.
TRIED = ("frozen:after", "register:after", "decided:after", "confirm:before")


@pytest.mark.timeout(600)
def test_kills_outages_a_full_disk_and_a_second_trainer_leave_what_a_calm_run_leaves() -> None:
    left_out = tuple(point for point in POINTS if point not in TRIED)
    result = chaos(Size(kills=8, points_left_out=left_out), print)
    assert holds(result), result
    assert set(TRIED) <= set(result["kills_by_point"])
