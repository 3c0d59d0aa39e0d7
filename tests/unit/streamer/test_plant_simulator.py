"""A campaign is the same for the same seed, in order, and of the shares that were asked for."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import ValidationError

from streamer.plant.cast import SimulatedCast
from streamer.plant.regimes import REGIMES, Schedule
from streamer.plant.simulator import Simulator, SimulatorConfig

SMALL = SimulatorConfig(seed=5, num_casts=12, min_steps=300, max_steps=420, casts_per_heat=3)


def casts_of(**overrides: Any) -> list[SimulatedCast]:
    return list(Simulator(SMALL.model_copy(update=overrides)).casts())


@pytest.fixture(scope="module")
def many() -> list[SimulatedCast]:
    config = SimulatorConfig(seed=3, num_casts=400, min_steps=300, max_steps=600, label_noise=0.05)
    return list(Simulator(config).casts())


def share(flags: Sequence[Any] | np.ndarray[Any, Any]) -> float:
    return float(np.mean(np.asarray(flags, dtype=np.float64)))


def test_same_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    simulator = Simulator(SMALL)
    assert list(simulator.events()) == list(simulator.events())
    other = Simulator(SMALL.model_copy(update={"seed": 6}))
    assert [event.value for event in simulator.events()] != [event.value for event in other.events()]


def test_events_come_in_the_order_of_sending_with_strands_interleaved() -> None:
    events = list(Simulator(SMALL).events())
    assert all(first.sent_at <= second.sent_at for first, second in itertools.pairwise(events))
    keys = [event.key for event in events[:200]]
    assert len(set(keys)) == SMALL.strands
    assert sum(first != second for first, second in itertools.pairwise(keys)) > 50


def test_events_carry_every_row_that_was_not_lost_once() -> None:
    simulator = Simulator(SMALL.model_copy(update={"missing_share": 0.1, "late_share": 0.1}))
    got: dict[tuple[str, int], list[float | None]] = {}
    carried = 0
    for event in simulator.events():
        message = msgspec.json.decode(event.value)
        if event.kind == "labels" or "event" in message:
            assert event.num_readings == 0
            continue
        rows = message.get("values", [[message.get(name) for name in simulator.sensors]])
        carried += event.num_readings
        for index, row in enumerate(rows):
            got[message["cast_id"], message["ts"] + index * message.get("period_ms", 0)] = row
    assert carried == len(got) == sum(int(cast.sent_T.sum()) for cast in simulator.casts())
    for cast in simulator.casts():
        ts_T = cast.start_ts + np.flatnonzero(cast.sent_T) * cast.period_ms
        rows_TF = np.array([got[cast.cast_id, ts] for ts in ts_T.tolist()], dtype=np.float32)
        np.testing.assert_array_equal(rows_TF, cast.values_TF[cast.sent_T])


def test_a_late_row_is_sent_late_and_all_else_on_time() -> None:
    cast = casts_of(late_share=0.2, very_late_share=0.5, chunk_share=0.0)[0]
    readings = [event for event in cast.readings() if event.num_readings]
    delays = {(m := msgspec.json.decode(e.value))["ts"]: e.sent_at - m["ts"] for e in readings}
    expected = cast.delay_ms_T[cast.sent_T].tolist()
    assert [delays[ts] for ts in sorted(delays)] == expected
    assert {0} < set(expected)
    assert max(expected) > 30_000


def test_a_chunk_carries_rows_that_follow_each_other_and_is_sent_with_the_last() -> None:
    cast = casts_of(chunk_share=1.0, missing_share=0.05, late_share=0.05)[0]
    chunks = [event for event in cast.readings() if event.num_readings]
    assert max(chunk.num_readings for chunk in chunks) == SMALL.chunk_rows
    for chunk in chunks:
        first = (msgspec.json.decode(chunk.value)["ts"] - cast.start_ts) // cast.period_ms
        steps = slice(first, first + chunk.num_readings)
        assert cast.sent_T[steps].all()
        assert len(set(cast.delay_ms_T[steps].tolist())) == 1
        last_ts = cast.start_ts + (first + chunk.num_readings - 1) * cast.period_ms
        assert chunk.sent_at == last_ts + cast.delay_ms_T[first]


def test_a_cast_ends_once_at_its_last_step_in_its_heat() -> None:
    ends = [
        message
        for event in Simulator(SMALL).events()
        if (message := msgspec.json.decode(event.value)).get("event") == "cast_end"
    ]
    assert {(end["cast_id"], end["ts"], end["group"]) for end in ends} == {
        (cast.cast_id, cast.end_ts, cast.group) for cast in casts_of()
    }
    assert len(ends) == SMALL.num_casts


def test_casts_of_one_strand_never_overlap() -> None:
    by_strand: dict[int, list[SimulatedCast]] = {}
    for cast in casts_of(num_casts=30):
        by_strand.setdefault(cast.strand, []).append(cast)
    assert len(by_strand) == SMALL.strands
    for casts in by_strand.values():
        assert all(first.end_ts < second.start_ts for first, second in itertools.pairwise(casts))


def test_the_shares_asked_for_are_met(many: list[SimulatedCast]) -> None:
    assert share([cast.kind is not None for cast in many]) == pytest.approx(0.15, abs=0.001)
    sent = np.concatenate([cast.sent_T for cast in many])
    values_KF = np.concatenate([cast.values_TF[cast.sent_T] for cast in many])
    assert 1 - share(sent) == pytest.approx(0.005, rel=0.15)
    assert share(np.isnan(values_KF)) == pytest.approx(0.005, rel=0.3)
    assert share(np.concatenate([cast.delay_ms_T > 0 for cast in many])) == pytest.approx(0.01, rel=0.3)
    wrong = [(cast.kind is not None) != cast.labels[-1].defect for cast in many]
    assert share(wrong) == pytest.approx(0.05, abs=0.03)


def test_every_regime_has_the_same_share_of_defects(many: list[SimulatedCast]) -> None:
    for regime in (0, 1):
        defective = [cast.kind is not None for cast in many if cast.regime == regime]
        assert len(defective) == 200
        assert share(defective) == pytest.approx(0.15, abs=0.001)


def test_a_range_is_newer_than_a_good_verdict_over_the_whole_cast(many: list[SimulatedCast]) -> None:
    defective = [cast for cast in many if cast.labels[-1].defect]
    ranged = [cast for cast in defective if cast.labels[-1].from_ts is not None]
    assert share([cast in ranged for cast in defective]) == pytest.approx(0.5, abs=0.15)
    for cast in ranged:
        first, last = cast.labels
        assert (first.defect, first.from_ts, first.to_ts) == (False, None, None)
        assert cast.end_ts < first.inspected_at < last.inspected_at
        assert last.from_ts is not None
        assert last.to_ts is not None
        assert cast.start_ts <= last.from_ts < last.to_ts <= cast.end_ts
    assert all(len(cast.labels) == 1 for cast in defective if cast not in ranged)


def test_delays_and_number_of_verdicts_do_not_tell_the_outcome(many: list[SimulatedCast]) -> None:
    for cast in many:
        delay_s = (cast.labels[-1].inspected_at - cast.end_ts) / 1000
        assert 300 <= delay_s <= 1800
        assert {label.group for label in cast.labels} == {cast.group}
    for defect in (True, False):
        twice = [len(cast.labels) == 2 for cast in many if cast.labels[-1].defect is defect]
        assert share(twice) == pytest.approx(0.5, abs=0.15)


def test_a_drop_of_mold_temperature_is_50_degrees_within_a_minute(many: list[SimulatedCast]) -> None:
    casts = [cast for cast in many if cast.kind == "mold_temperature"]
    assert len(casts) > 5
    for cast in casts:
        for first_ts, last_ts in cast.defects:
            first, last = ((ts - cast.start_ts) // cast.period_ms for ts in (first_ts, last_ts))
            temperature_T = cast.values_TF[max(first - 5, 0) : last + 1, 1]
            if last - first > 120:
                assert np.nanmax(temperature_T[:10]) - np.nanmin(temperature_T[:66]) > 40


def test_what_harms_the_level_turns_round_with_the_regime(many: list[SimulatedCast]) -> None:
    for regime in (0, 1):
        middle = REGIMES[regime].operating_point[2]
        within = []
        for cast in (cast for cast in many if cast.kind == "mold_level" and cast.regime == regime):
            for first_ts, last_ts in cast.defects:
                steps = slice((first_ts - cast.start_ts) // 1000, (last_ts - cast.start_ts) // 1000)
                within.append(np.nanmean(cast.values_TF[steps, 2]) - middle)
        assert len(within) > 20
        assert np.sign(np.median(within)) == REGIMES[regime].level_harm


def test_each_change_of_regime_turns_that_side_round() -> None:
    sides = [regime.level_harm for regime in (*REGIMES, REGIMES[0])]
    assert all(before != after for before, after in itertools.pairwise(sides))


def test_a_clogging_nozzle_lets_the_level_of_good_casts_fall_more_often() -> None:
    casts = casts_of(num_casts=80, regime_changes=(0.25, 0.5, 0.75), drift_share=0, defect_share=0)
    low = {
        number: share(
            np.concatenate(
                [
                    cast.values_TF[:, 2] < middle.operating_point[2] - 3.5
                    for cast in casts
                    if cast.regime == number
                ]
            )
        )
        for number, middle in enumerate(REGIMES)
    }
    assert low[3] > 1.5 * low[1] > 0


def test_a_longer_campaign_begins_with_the_same_casts_while_its_regime_lasts() -> None:
    short, long = casts_of(regime_changes=()), casts_of(regime_changes=(), num_casts=20)
    for one, other in zip(short, long, strict=False):
        np.testing.assert_array_equal(one.values_TF, other.values_TF)
        assert one.labels == other.labels


def test_the_operating_point_moves_over_the_drift_and_no_further() -> None:
    schedule = Schedule((0.5,), 0.1)
    before, after = (np.array(regime.operating_point) for regime in REGIMES[:2])
    assert [schedule.number(progress) for progress in (0.0, 0.49, 0.5, 0.99)] == [0, 0, 1, 1]
    np.testing.assert_allclose(schedule.operating_point(0.49), before)
    np.testing.assert_allclose(schedule.operating_point(0.55), (before + after) / 2, rtol=1e-5)
    np.testing.assert_allclose(schedule.operating_point(0.7), after)


def test_memory_does_not_grow_with_the_campaign() -> None:
    simulator = Simulator(SMALL.model_copy(update={"num_casts": 60, "strands": 2}))
    tracemalloc.start()
    num_bytes = sum(len(event.value) for event in simulator.events())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < num_bytes / 4


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"min_steps": 500, "max_steps": 400}, "min_steps"),
        ({"late_s": (8.0, 2.0)}, "late_s"),
        ({"regime_changes": (0.5, 0.5)}, "regime_changes"),
        ({"regime_changes": (1.0,)}, "regime_changes"),
        ({"defect_share": 1.5}, "defect_share"),
        ({"num_cast": 5}, "num_cast"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fault: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        SimulatorConfig(**fault)


def test_sensors_fall_silent_one_by_one() -> None:
    silent = Counter(
        int(count)
        for cast in casts_of(missing_share=0.1)
        for count in np.isnan(cast.values_TF[cast.sent_T]).sum(1)
    )
    assert silent[1] > silent[2] > silent[5]
