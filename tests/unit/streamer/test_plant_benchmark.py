"""The benchmark cuts and labels windows as the contract says, and fails when a check does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import plant
from streamer.plant.cast import SimulatedCast
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.schema import Label


@pytest.fixture
def cast() -> SimulatedCast:
    """Three windows of 300 steps and a rest."""
    config = SimulatorConfig(num_casts=1, min_steps=950, max_steps=950, defect_share=0.0)
    return next(Simulator(config).casts())


def verdict(cast: SimulatedCast, defect: bool, inspected_at: int, steps: tuple[int, int] | None) -> Label:
    first, last = (cast.start_ts + step * 1000 for step in steps) if steps else (None, None)
    return Label(cast.cast_id, defect, inspected_at, first, last)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        #  window         0 .. 299  300 .. 599  600 .. 899
        ([(True, 1, None)], [True, True, True]),
        ([(False, 1, None), (True, 2, (299, 299))], [True, False, False]),
        ([(True, 2, (299, 300)), (False, 1, None)], [True, True, False]),
        ([(True, 1, (0, 899)), (False, 2, (300, 599))], [True, False, True]),
        ([(True, 1, (900, 949)), (False, 0, None)], [False, False, False]),
    ],
)
def test_the_newest_verdict_wins_on_each_step(
    cast: SimulatedCast, verdicts: list[tuple[bool, int, tuple[int, int] | None]], expected: list[bool]
) -> None:
    labels = tuple(verdict(cast, *each) for each in verdicts)
    assert plant.cut([replace(cast, labels=labels)]).defect_N.tolist() == expected


def test_statistics_are_those_of_the_values_that_came_in_time(cast: SimulatedCast) -> None:
    values_TF, delay_ms_T = cast.values_TF.copy(), np.zeros(cast.num_steps, dtype=np.int64)
    values_TF[10:20, 2] = np.nan
    values_TF[50], delay_ms_T[50] = 1e6, 40_000
    statistics_NS = plant.cut([replace(cast, values_TF=values_TF, delay_ms_T=delay_ms_T)]).statistics_NS
    assert statistics_NS.shape == (3, 25)
    level_T = np.delete(values_TF[:300, 2], 50)
    expected = [np.nanmean(level_T), np.nanstd(level_T), np.nanmin(level_T), np.nanmax(level_T)]
    np.testing.assert_allclose(statistics_NS[0, [2, 7, 12, 17]], expected, rtol=1e-5)


@pytest.mark.parametrize("passes", [True, False])
def test_it_ends_with_1_when_a_check_fails(
    passes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plant, "CHECKS", {"all is well": lambda _: passes})
    monkeypatch.setattr(plant, "MEAN_CHECKS", {})
    assert plant.main(["--json", "--casts", "400", "--seeds", "4"]) == (0 if passes else 1)
    result = json.loads(capsys.readouterr().out)
    assert result["checks"] == {"all is well": passes}
    assert result["seeds"]["4"] == result["mean"]
    assert 0.1 < result["mean"]["base_rate_of_casts"] < 0.2
