"""Event time of a cast. Timelines are drawn in steps of one second; lateness is 3 s, idle 20 s."""

from __future__ import annotations

import math

import numpy as np
import pytest
from columns import Reading, cast_readings

from streamer.columns import NO_TIME
from streamer.open_rows import OpenRows, Outcome
from streamer.schema import CastEnd
from streamer.timeline import NEVER, CastTimeline, Grid, Lateness, LogClock

GRID = Grid(1000)
BOUNDS = Lateness(allowed_ms=3_000, idle_ms=20_000, max_future_ms=10_000, max_past_ms=60_000)
NAN = math.nan
PLACED, DUPLICATE, SUPERSEDED = Outcome.PLACED, Outcome.DUPLICATE, Outcome.SUPERSEDED
LATE, GAP = Outcome.LATE, Outcome.GAP


def reading(ts: int, *rows: tuple[float, ...], period_ms: int = 1000) -> Reading:
    return Reading("C", 1, ts, period_ms, rows or ((float(ts),),))


def cast(num_sensors: int = 1) -> CastTimeline:
    return CastTimeline(OpenRows(num_sensors))


def take(timeline: CastTimeline, one: Reading, log_time: int) -> list[Outcome]:
    readings = cast_readings([one], GRID, [log_time], [NEVER])
    return [Outcome(outcome) for outcome in timeline.take(readings, GRID, BOUNDS)]


def place(
    timeline: CastTimeline, *steps: float, at: float | None = None, rows: tuple[tuple[float, ...], ...] = ()
) -> list[Outcome]:
    """Places one reading a step, each at its own log time unless told otherwise."""
    outcomes = []
    for step in steps:
        log_time = int(1000 * (step if at is None else at))
        outcomes += take(timeline, reading(int(step * 1000), *rows), log_time)
    return outcomes


def held(timeline: CastTimeline) -> dict[int, list[float]]:
    return dict(zip(timeline.rows.step_T.tolist(), timeline.rows.value_TF.tolist(), strict=True))


def end(timeline: CastTimeline, step: float, at: float) -> None:
    timeline.end(CastEnd("C", int(step * 1000)), GRID, BOUNDS, int(at * 1000), NEVER)


@pytest.mark.parametrize(
    ("ts", "step"),
    [(0, 0), (499, 0), (500, 1), (999, 1), (1000, 1), (1499, 1), (1500, 2), (-500, 0), (-501, -1)],
)
def test_a_step_is_the_nearest_and_halfway_the_later_one(ts: int, step: int) -> None:
    assert GRID.step(ts) == step


def test_a_phase_moves_the_grid() -> None:
    grid = Grid(1000, 300)
    assert [grid.step(ts) for ts in (-201, -200, 799, 800, 1300)] == [-1, 0, 0, 1, 1]
    assert [grid.time(step) for step in (0, 1)] == [300, 1300]


def test_a_step_is_final_once_the_newest_is_further_on_than_the_lateness() -> None:
    timeline = cast()
    # arrives   10 11 12 13 14      newest 14 - 3 = 11
    #           |sealed|-- open --|
    assert place(timeline, 10, 11, 12, 13, 14) == [PLACED] * 5
    assert (timeline.first_step, timeline.sealed) == (10, 11)
    assert place(timeline, 10) == [LATE]
    assert place(timeline, 11) == [DUPLICATE]


def test_a_straggler_within_the_lateness_is_placed() -> None:
    timeline = cast()
    # arrives   10 12 13 | 11 (late by 2)
    assert place(timeline, 10, 12, 13, 11) == [PLACED] * 4
    assert timeline.sealed == 10


def test_what_is_older_than_the_lateness_is_late_whether_or_not_the_cast_had_begun() -> None:
    timeline = cast()
    # arrives   20 | 18 (within 3 s) | 16 (late)
    assert place(timeline, 20, 18, 16) == [PLACED, PLACED, LATE]
    assert timeline.first_step == 18


def test_a_late_row_moves_nothing() -> None:
    timeline = cast()
    place(timeline, 10, 20)
    before = (timeline.newest_ts, timeline.sealed, held(timeline))
    assert place(timeline, 12, at=20) == [LATE]
    assert (timeline.newest_ts, timeline.sealed, held(timeline)) == before


def test_a_row_without_values_is_a_gap_that_moves_the_watermark() -> None:
    timeline = cast()
    place(timeline, 10)
    assert place(timeline, 20, rows=((NAN,),)) == [GAP]
    assert timeline.sealed == 17
    assert timeline.first_step == 10


def test_a_gap_before_the_first_value_is_no_step_of_the_cast() -> None:
    timeline = cast()
    place(timeline, 8, rows=((NAN,),))
    place(timeline, 10)
    assert timeline.first_step == 10


def test_a_chunk_is_judged_by_what_was_sealed_before_it() -> None:
    timeline = cast()
    # one record   10 11 12 13 14 15 16 17 18 19
    rows = tuple((float(k),) for k in range(10))
    assert place(timeline, 10, rows=rows, at=19) == [PLACED] * 10
    assert timeline.sealed == 16
    # again        |10 .. 15: late|16 .. 19: the same|20: new
    again = take(timeline, reading(10_000, *rows, (9.5,)), 20_000)
    assert again == [LATE] * 6 + [DUPLICATE] * 4 + [PLACED]


@pytest.mark.parametrize("times", [(10_400, 9_900), (9_900, 10_400)])
def test_the_reading_nearest_to_the_step_wins_in_either_order(times: tuple[int, int]) -> None:
    timeline = cast()
    outcomes = [take(timeline, reading(ts), ts)[0] for ts in times]
    assert held(timeline)[10] == [9_900.0]
    assert outcomes == [PLACED, SUPERSEDED]


@pytest.mark.parametrize("times", [(9_800, 10_200), (10_200, 9_800)])
def test_of_two_equally_near_the_later_stamp_wins(times: tuple[int, int]) -> None:
    timeline = cast()
    for ts in times:
        take(timeline, reading(ts), ts)
    assert held(timeline)[10] == [10_200.0]


def test_of_two_equal_stamps_the_later_record_wins() -> None:
    timeline = cast()
    assert place(timeline, 10, 10, 10, rows=((1.0,),)) == [PLACED, DUPLICATE, DUPLICATE]
    assert place(timeline, 10, rows=((2.0,),)) == [SUPERSEDED]
    assert held(timeline)[10] == [2.0]


def test_each_sensor_of_a_step_is_won_on_its_own() -> None:
    timeline = cast(2)
    # 10.0: a   9.9: a and b   10.2: b, further away than 9.9
    assert place(timeline, 10, rows=((1.0, NAN),)) == [PLACED]
    assert place(timeline, 9.9, rows=((7.0, 2.0),)) == [PLACED]
    assert place(timeline, 10.2, rows=((NAN, 3.0),)) == [SUPERSEDED]
    assert held(timeline)[10] == [1.0, 2.0]


def test_the_end_waits_for_stragglers_and_takes_nothing_behind_it() -> None:
    timeline = cast()
    # arrives 10 11 12 14 | end at 14 | 13, a straggler | 15, behind the end
    place(timeline, 10, 11, 12, 14)
    end(timeline, 14, 14)
    assert timeline.deadline(BOUNDS) == 17_000
    assert place(timeline, 13, at=16.9) == [PLACED]
    assert place(timeline, 15, at=16.9) == [LATE]
    timeline.close()
    assert (timeline.sealed, timeline.last_step, timeline.ended) == (15, 14, True)
    assert place(timeline, 14) == [LATE]


def test_an_end_that_lies_before_a_reading_does_not_cut_it_off() -> None:
    timeline = cast()
    place(timeline, 10, 12)
    end(timeline, 9, 12)
    assert timeline.last_step == 12


def test_the_first_end_counts() -> None:
    timeline = cast()
    place(timeline, 10)
    end(timeline, 12, 12)
    end(timeline, 14, 14)
    assert (timeline.last_step, timeline.end_seen_at) == (12, 12_000)


def test_a_cast_that_is_silent_for_long_enough_is_over_at_its_last_value() -> None:
    timeline = cast()
    place(timeline, 10, 11, 12)
    assert timeline.deadline(BOUNDS) == 32_000
    timeline.close()
    assert (timeline.sealed, timeline.last_step) == (13, 12)
    assert timeline.deadline(BOUNDS) is None


def test_an_end_alone_makes_a_cast_without_steps() -> None:
    timeline = cast()
    end(timeline, 12, 12)
    timeline.close()
    assert (timeline.first_step, timeline.ended) == (None, True)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "idle"])
def test_a_record_behind_the_deadline_is_late_although_no_one_waited(announced: bool) -> None:
    timeline = cast()
    # log time 10 11 12 |<-- 3 s after an end, or 20 s idle -->| the next record: a live run has closed the cast
    place(timeline, 10, 11, 12)
    if announced:
        end(timeline, 12, 12)
    deadline = timeline.deadline(BOUNDS)
    assert deadline is not None
    before = (timeline.seen_at, timeline.newest_ts, timeline.sealed)
    assert place(timeline, 12, at=deadline / 1000) == [LATE]
    assert (timeline.seen_at, timeline.newest_ts, timeline.sealed) == before
    assert place(timeline, 12, at=deadline / 1000 - 0.001) == [DUPLICATE]


def test_one_wild_log_time_keeps_no_cast_open() -> None:
    timeline = cast()
    place(timeline, 10)
    place(timeline, 11, at=9_999)
    end(timeline, 11, 9_999)
    assert timeline.deadline(BOUNDS) == 30_000


def test_sealed_steps_are_forgotten_once_written() -> None:
    timeline = cast()
    place(timeline, 10, 11, 12, 13, 14)
    timeline.written()
    assert sorted(held(timeline)) == [11, 12, 13, 14]


class TestLogClock:
    """Log time of a partition."""

    def test_is_the_largest_that_two_records_have_reached(self) -> None:
        clock = LogClock()
        seen = [observe(clock, at) for at in (10, 12, 11, 12, 20, 15, 5)]
        assert seen == [NEVER, 10, 11, 12, 12, 15, 15]
        assert observe(LogClock(), 10, 12, 11, 12, 20, 15, 5, every=True) == seen

    def test_goes_on_while_waiting(self) -> None:
        clock = LogClock(20, 10)
        clock.waited_ms = 5
        assert clock.now() == 15
        assert observe(clock, 16) == 16
        assert clock.now() == 16

    def test_one_wild_stamp_moves_nothing(self) -> None:
        assert observe(LogClock(), 10, 9_999_999, 11) == 11

    def test_a_record_without_a_time_and_one_seen_before_move_nothing(self) -> None:
        clock = LogClock(20, 10)
        seen = np.array([True, False, False])
        assert clock.observe(np.array([500, NO_TIME, 15]), seen).tolist() == [10, 10, 15]


def observe(clock: LogClock, *times: int, every: bool = False) -> object:
    """Log time after the last of these records, or after each."""
    now_M = clock.observe(np.array(times), np.zeros(len(times), np.bool_))
    return now_M.tolist() if every else int(now_M[-1])
