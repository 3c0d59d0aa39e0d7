"""The soak in short: two members at full speed over half a million readings, with retention by count."""

from __future__ import annotations

import json

import pytest

from benchmarks import soak

NUM_READINGS = 500_000
# A run of seconds: an allocator settles by more than a twentieth, a leak of the rows would be several times over.
MAX_GROWTH = 0.15


def test_memory_stays_where_it_is_over_half_a_million_readings(capsys: pytest.CaptureFixture[str]) -> None:
    code = soak.main(["--json", "--readings", str(NUM_READINGS), "--max-growth", str(MAX_GROWTH)])
    figures = json.loads(capsys.readouterr().out)
    assert [name for name, passed in figures["checks"].items() if not passed] == []
    assert code == 0
    assert figures["readings"] >= NUM_READINGS
    assert (figures["lag"], figures["rebalances"], len(figures["members"])) == (0, 0, 2)
