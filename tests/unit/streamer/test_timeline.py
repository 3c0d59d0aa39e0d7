"""Event time of a cast. Timelines are drawn in steps of one second; lateness is 3 s, idle 20 s."""

from __future__ import annotations

import math

import pytest

from streamer.errors import RecordError
from streamer.schema import CastEnd, Reading
from streamer.timeline import CastTimeline, Grid, Lateness, LogClock, Outcome, check_stamps, count

GRID = Grid(1000)
BOUNDS = Lateness(allowed_ms=3_000, idle_ms=20_000, max_future_ms=10_000, max_past_ms=60_000)
NAN = math.nan
PLACED, DUPLICATE, SUPERSEDED = Outcome.PLACED, Outcome.DUPLICATE, Outcome.SUPERSEDED
LATE, GAP = Outcome.LATE, Outcome.GAP


def reading(ts: int, *rows: tuple[float, ...], period_ms: int = 1000) -> Reading:
    return Reading("C", 1, ts, period_ms, rows or ((float(ts),),))


def place(
    timeline: CastTimeline, *steps: float, at: float | None = None, rows: tuple[tuple[float, ...], ...] = ()
) -> list[Outcome]:
    """Places one reading a step, each at its own log time unless told otherwise."""
    outcomes = []
    for step in steps:
        log_time = int(1000 * (step if at is None else at))
        outcomes += timeline.place(reading(int(step * 1000), *rows), GRID, BOUNDS, log_time)
    return outcomes


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
    timeline = CastTimeline()
    # arrives   10 11 12 13 14      newest 14 - 3 = 11
    #           |sealed|-- open --|
    assert place(timeline, 10, 11, 12, 13, 14) == [PLACED] * 5
    assert (timeline.first_step, timeline.sealed) == (10, 11)
    assert place(timeline, 10) == [LATE]
    assert place(timeline, 11) == [DUPLICATE]


def test_a_straggler_within_the_lateness_is_placed() -> None:
    timeline = CastTimeline()
    # arrives   10 12 13 | 11 (late by 2)
    assert place(timeline, 10, 12, 13, 11) == [PLACED] * 4
    assert timeline.sealed == 10


def test_what_is_older_than_the_lateness_is_late_whether_or_not_the_cast_had_begun() -> None:
    timeline = CastTimeline()
    # arrives   20 | 18 (within 3 s) | 16 (late)
    assert place(timeline, 20, 18, 16) == [PLACED, PLACED, LATE]
    assert timeline.first_step == 18


def test_a_late_row_moves_nothing() -> None:
    timeline = CastTimeline()
    place(timeline, 10, 20)
    before = (timeline.newest_ts, timeline.sealed, dict(timeline.open_steps))
    assert place(timeline, 12, at=20) == [LATE]
    assert (timeline.newest_ts, timeline.sealed, dict(timeline.open_steps)) == before


def test_a_row_without_values_is_a_gap_that_moves_the_watermark() -> None:
    timeline = CastTimeline()
    place(timeline, 10)
    assert place(timeline, 20, rows=((NAN,),)) == [GAP]
    assert timeline.sealed == 17
    assert timeline.first_step == 10


def test_a_gap_before_the_first_value_is_no_step_of_the_cast() -> None:
    timeline = CastTimeline()
    place(timeline, 8, rows=((NAN,),))
    place(timeline, 10)
    assert timeline.first_step == 10


def test_a_chunk_is_judged_by_what_was_sealed_before_it() -> None:
    timeline = CastTimeline()
    # one record   10 11 12 13 14 15 16 17 18 19
    rows = tuple((float(k),) for k in range(10))
    assert place(timeline, 10, rows=rows, at=19) == [PLACED] * 10
    assert timeline.sealed == 16
    # again        |10 .. 15: late|16 .. 19: the same|20: new
    again = timeline.place(reading(10_000, *rows, (9.5,)), GRID, BOUNDS, 20_000)
    assert count(again) == {"late": 6, "duplicate": 4, "placed": 1}


@pytest.mark.parametrize("times", [(10_400, 9_900), (9_900, 10_400)])
def test_the_reading_nearest_to_the_step_wins_in_either_order(times: tuple[int, int]) -> None:
    timeline = CastTimeline()
    outcomes = [timeline.place(reading(ts), GRID, BOUNDS, ts)[0] for ts in times]
    assert timeline.open_steps[10].row == [9_900.0]
    assert outcomes == [PLACED, SUPERSEDED]


@pytest.mark.parametrize("times", [(9_800, 10_200), (10_200, 9_800)])
def test_of_two_equally_near_the_later_stamp_wins(times: tuple[int, int]) -> None:
    timeline = CastTimeline()
    for ts in times:
        timeline.place(reading(ts), GRID, BOUNDS, ts)
    assert timeline.open_steps[10].row == [10_200.0]


def test_of_two_equal_stamps_the_later_record_wins() -> None:
    timeline = CastTimeline()
    assert place(timeline, 10, 10, 10, rows=((1.0,),)) == [PLACED, DUPLICATE, DUPLICATE]
    assert place(timeline, 10, rows=((2.0,),)) == [SUPERSEDED]
    assert timeline.open_steps[10].row == [2.0]


def test_each_sensor_of_a_step_is_won_on_its_own() -> None:
    timeline = CastTimeline()
    # 10.0: a   9.9: a and b   10.2: b, further away than 9.9
    assert place(timeline, 10, rows=((1.0, NAN),)) == [PLACED]
    assert place(timeline, 9.9, rows=((7.0, 2.0),)) == [PLACED]
    assert place(timeline, 10.2, rows=((NAN, 3.0),)) == [SUPERSEDED]
    assert timeline.open_steps[10].row == [1.0, 2.0]


def test_the_end_waits_for_stragglers_and_takes_nothing_behind_it() -> None:
    timeline = CastTimeline()
    # arrives 10 11 12 14 | end at 14 | 13, a straggler | 15, behind the end
    place(timeline, 10, 11, 12, 14)
    timeline.end(CastEnd("C", 14_000), GRID, BOUNDS, 14_000)
    assert timeline.deadline(BOUNDS) == 17_000
    assert place(timeline, 13, at=16.9) == [PLACED]
    assert place(timeline, 15, at=16.9) == [LATE]
    timeline.close()
    assert (timeline.sealed, timeline.last_step, timeline.ended) == (15, 14, True)
    assert place(timeline, 14) == [LATE]


def test_an_end_that_lies_before_a_reading_does_not_cut_it_off() -> None:
    timeline = CastTimeline()
    place(timeline, 10, 12)
    timeline.end(CastEnd("C", 9_000), GRID, BOUNDS, 12_000)
    assert timeline.last_step == 12


def test_the_first_end_counts() -> None:
    timeline = CastTimeline()
    place(timeline, 10)
    timeline.end(CastEnd("C", 12_000), GRID, BOUNDS, 12_000)
    timeline.end(CastEnd("C", 14_000), GRID, BOUNDS, 14_000)
    assert (timeline.last_step, timeline.end_seen_at) == (12, 12_000)


def test_a_cast_that_is_silent_for_long_enough_is_over_at_its_last_value() -> None:
    timeline = CastTimeline()
    place(timeline, 10, 11, 12)
    assert timeline.deadline(BOUNDS) == 32_000
    timeline.close()
    assert (timeline.sealed, timeline.last_step) == (13, 12)
    assert timeline.deadline(BOUNDS) is None


def test_an_end_alone_makes_a_cast_without_steps() -> None:
    timeline = CastTimeline()
    timeline.end(CastEnd("C", 12_000), GRID, BOUNDS, 12_000)
    timeline.close()
    assert (timeline.first_step, timeline.ended) == (None, True)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "idle"])
def test_a_record_behind_the_deadline_is_late_although_no_one_waited(announced: bool) -> None:
    timeline = CastTimeline()
    # log time 10 11 12 |<-- 3 s after an end, or 20 s idle -->| the next record: a live run has closed the cast
    place(timeline, 10, 11, 12)
    if announced:
        timeline.end(CastEnd("C", 12_000), GRID, BOUNDS, 12_000)
    deadline = timeline.deadline(BOUNDS)
    assert deadline is not None
    before = (timeline.seen_at, timeline.newest_ts, timeline.sealed)
    assert place(timeline, 12, at=deadline / 1000) == [LATE]
    assert (timeline.seen_at, timeline.newest_ts, timeline.sealed) == before
    assert place(timeline, 12, at=deadline / 1000 - 0.001) == [DUPLICATE]


def test_one_wild_log_time_keeps_no_cast_open() -> None:
    timeline = CastTimeline()
    place(timeline, 10)
    place(timeline, 11, at=9_999)
    timeline.end(CastEnd("C", 11_000), GRID, BOUNDS, 9_999_000)
    assert timeline.deadline(BOUNDS) == 30_000


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (reading(110_000), None),
        (reading(110_001), "future_stamp"),
        (reading(40_000), None),
        (reading(39_999), "past_stamp"),
        (reading(105_000, *[(1.0,)] * 6), None),
        (reading(105_000, *[(1.0,)] * 7), "future_stamp"),
        (CastEnd("C", 110_000), None),
        (CastEnd("C", 110_001), "future_stamp"),
        (CastEnd("C", 39_999), "past_stamp"),
    ],
)
def test_stamps_that_cannot_be_meant(message: Reading | CastEnd, reason: str | None) -> None:
    if reason is None:
        check_stamps(message, BOUNDS, 100_000)
        return
    with pytest.raises(RecordError) as caught:
        check_stamps(message, BOUNDS, 100_000)
    assert (caught.value.reason, caught.value.stage) == (reason, "place")


def test_sealed_steps_are_forgotten_once_written() -> None:
    timeline = CastTimeline()
    place(timeline, 10, 11, 12, 13, 14)
    timeline.forget_sealed()
    assert sorted(timeline.open_steps) == [11, 12, 13, 14]


class TestLogClock:
    """Log time of a partition."""

    def test_is_the_largest_that_two_records_have_reached(self) -> None:
        clock = LogClock()
        seen = []
        for at in (10, 12, 11, 12, 20, 15, 5):
            clock.observe(at)
            seen.append(clock.now())
        assert seen == [None, 10, 11, 12, 12, 15, 15]

    def test_goes_on_while_waiting(self) -> None:
        clock = LogClock(20, 10)
        clock.waited_ms = 5
        assert clock.now() == 15
        clock.observe(16)
        assert clock.now() == 16

    def test_one_wild_stamp_moves_nothing(self) -> None:
        clock = LogClock()
        for at in (10, 9_999_999, 11):
            clock.observe(at)
        assert clock.now() == 11
