"""One partition: what the log says decides, not how it was cut into batches or shuffled on its way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from columns import Entry, Reading, batch_of
from hypothesis import given
from hypothesis import strategies as st
from one_by_one import OneByOne

from streamer.config import WindowsConfig
from streamer.open_rows import OpenRows
from streamer.partition import ReadingsPartition
from streamer.records import Partition
from streamer.schema import CastEnd
from streamer.store.casts import CastState
from streamer.timeline import CastTimeline, Grid, Lateness, LogClock
from streamer.windows import Address, windows_between

SOURCE = Partition("readings", 0)
GRID = Grid(1000)
BOUNDS = Lateness(allowed_ms=3_000, idle_ms=20_000, max_future_ms=10_000, max_past_ms=60_000)
SPEC = WindowsConfig(size_steps=5, hop_steps=3, tail="align_end")

Rows = dict[int, tuple[float, ...]]


@dataclass
class Plain:
    """The partition over a plain dictionary in the place of Redis."""

    partition: ReadingsPartition = field(
        default_factory=lambda: ReadingsPartition(SOURCE, 0, None, LogClock(), GRID, BOUNDS)
    )
    num_sensors: int = 1
    held: dict[str, CastState] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    refused: list[tuple[int, str]] = field(default_factory=list)
    records: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    by_cast: dict[str, Counter[str]] = field(default_factory=dict)
    offset: int = 0

    def batch(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        batch, decoded = batch_of(SOURCE, self.offset, entries)
        new = self.partition.unknown_casts(decoded)
        self.partition.adopt(
            {cast_id: self.held.get(cast_id, fresh(cast_id, self.num_sensors)) for cast_id in new}
        )
        taken = self.partition.take(batch, decoded)
        self.refused += [(self.offset + k, error.reason) for k, error in taken.refused]
        self.records.update(taken.records)
        self.offset += len(entries)
        self.write()

    def write(self) -> None:
        self.partition.settle()
        for cast_id, state in self.partition.touched.items():
            held, timeline = self.rows.setdefault(cast_id, {}), state.timeline
            for step, row, dirty in zip(
                timeline.rows.step_T.tolist(), timeline.rows.value_TF, timeline.rows.dirty_TF, strict=True
            ):
                if dirty.any():
                    held[step] = tuple(row.tolist())
            self.counts.update(state.counts)
            self.by_cast.setdefault(cast_id, Counter()).update(state.counts)
            state.version = (state.version or 0) + 1
            state.applied, state.next_applied = state.next_applied or state.applied, None
            state.counts.clear()
            timeline.written()
            self.held[cast_id] = state
        self.partition.batch_done()

    def windows(self, cast_id: str) -> list[Address]:
        timeline = self.held[cast_id].timeline
        if timeline.first_step is None or timeline.sealed is None:
            return []
        first = timeline.first_step
        found = windows_between(
            SPEC, cast_id, first_step=first, begin=first, sealed=timeline.sealed, ended=timeline.ended
        )
        return list(found)

    def result(self) -> dict[str, tuple[Rows, list[Address], int | None, bool]]:
        """Final rows and windows of each cast."""
        return {
            cast_id: (
                {
                    step: row
                    for step, row in self.rows[cast_id].items()
                    if step < (state.timeline.sealed or 0)
                },
                self.windows(cast_id),
                state.timeline.sealed,
                state.timeline.ended,
            )
            for cast_id, state in self.held.items()
        }


def fresh(cast_id: str, num_sensors: int = 1, **fields: Any) -> CastState:
    return CastState(cast_id, CastTimeline(OpenRows(num_sensors)), **fields)


def kinds(entries: Sequence[Entry]) -> list[str]:
    """What becomes of each record, one by one."""
    plain, found = Plain(), []
    for entry in entries:
        before = Counter(plain.records)
        plain.batch([entry])
        found += [kind for kind, number in (plain.records - before).items() for _ in range(number)]
    return found


def played(entries: Sequence[Entry], cuts: Sequence[int] = ()) -> Plain:
    plain = Plain()
    edges = [0, *sorted(cut for cut in cuts if cut < len(entries)), len(entries)]
    for low, high in pairwise(edges):
        plain.batch(entries[low:high])
    return plain


def reading(cast_id: str, step: float, value: float | None = None, at: float | None = None) -> Entry:
    ts = int(step * 1000)
    row = (float(ts) if value is None else value,)
    return Reading(cast_id, 1, ts, 0, (row,)), ts if at is None else int(at * 1000)


def end(cast_id: str, step: int, at: float | None = None) -> Entry:
    return CastEnd(cast_id, step * 1000), int(1000 * (step if at is None else at))


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Readings of three casts, late, repeated and missing ones among them, ends included."""
    entries = []
    at = 100.0
    for _ in range(draw(st.integers(1, 60))):
        at += draw(st.sampled_from([0, 0.25, 0.5, 1, 2, 9]))
        cast_id = draw(st.sampled_from("ABC"))
        if draw(st.integers(0, 14)) == 0:
            entries.append(end(cast_id, int(at), at))
            continue
        step = at + draw(st.sampled_from([0, 0, 0, -0.3, -1, -2.4, -5, 0.4, -70, 11]))
        value = math.nan if draw(st.integers(0, 9)) == 0 else None
        entries.append(reading(cast_id, step, value, at))
    return entries


@given(log=logs(), cuts=st.lists(st.integers(1, 59), unique=True))
def test_how_the_log_is_cut_into_batches_decides_nothing(log: list[Entry], cuts: list[int]) -> None:
    whole, cut = played(log), played(log, cuts)
    assert cut.result() == whole.result()
    assert (cut.records, cut.refused, cut.counts) == (whole.records, whole.refused, whole.counts)


CARRY_MS = 4_000
CARRYING = replace(BOUNDS, carry_ms=CARRY_MS)
# Infinity stands for a value that its sensor calls bad.
VALUES = st.sampled_from([1.0, 1.0, 2.0, math.nan, math.inf])


@st.composite
def rough_logs(draw: st.DrawFn) -> list[Entry]:
    """Readings of two sensors of three casts: chunks, equal steps, bad values, wild stamps and log times, ends."""
    entries: list[Entry] = []
    at = 100_000
    for _ in range(draw(st.integers(1, 50))):
        at += draw(st.sampled_from([0, 250, 500, 1_000, 2_000, 9_000]))
        cast_id = draw(st.sampled_from("ABC"))
        log_time = at + draw(st.sampled_from([0] * 20 + [-5_000, 30_000, 5_000_000]))
        if draw(st.integers(0, 14)) == 0:
            entries.append((CastEnd(cast_id, at + draw(st.sampled_from([0, -4_000, 3_000]))), log_time))
            continue
        ts = at + draw(st.sampled_from([0, 0, 0, -300, -1_000, -2_400, -5_000, 400, -70_000, 11_000]))
        rows = draw(
            st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=draw(st.sampled_from([1, 1, 6])))
        )
        period = draw(st.sampled_from([200, 1_000, 1_300])) if len(rows) > 1 else 0
        entries.append((Reading(cast_id, 1, ts, period, rows), log_time))
    return entries


@given(log=rough_logs(), cuts=st.lists(st.integers(1, 49), unique=True))
def test_columns_decide_as_one_record_after_the_other_would(log: list[Entry], cuts: list[int]) -> None:
    plain = Plain(ReadingsPartition(SOURCE, 0, None, LogClock(), GRID, CARRYING), num_sensors=2)
    edges = [0, *sorted(cut for cut in cuts if cut < len(log)), len(log)]
    for low, high in pairwise(edges):
        plain.batch(log[low:high])
    slow = OneByOne(GRID, CARRYING)
    slow.play(log)
    assert plain.held.keys() == slow.casts.keys()
    for cast_id, cast in slow.casts.items():
        timeline = plain.held[cast_id].timeline
        assert (timeline.sealed, timeline.last_step, timeline.ended) == (cast.sealed, cast.last, cast.ended)
        assert (timeline.newest_ts, timeline.seen_at) == (cast.newest, cast.seen)
        assert timeline.first_step == cast.first
        values = {
            (step, sensor): value
            for step, row in plain.rows[cast_id].items()
            for sensor, value in enumerate(row)
            if not math.isnan(value)
        }
        assert values == slow.carried(cast, CARRY_MS)
        assert plain.by_cast[cast_id] == slow.counts[cast_id]


@given(data=st.data(), steps=st.lists(st.sampled_from(range(100, 130)), min_size=1, max_size=30, unique=True))
def test_the_order_of_arrival_within_the_lateness_decides_nothing(
    data: st.DataObject, steps: list[int]
) -> None:
    in_order = [(step, data.draw(st.sampled_from([0.0, 0.2, -0.3]))) for step in sorted(steps)]
    in_order += [(step, shift + 0.1) for step, shift in in_order[::3]]
    in_order.sort(key=lambda each: each[0] + each[1])
    # Each is held back by less than the lateness.
    held_back = [data.draw(st.floats(0, 2.4, allow_subnormal=False)) for _ in in_order]
    shuffled = [
        each for _, each in sorted(zip(held_back, in_order, strict=True), key=lambda p: p[0] + sum(p[1]))
    ]
    results = []
    for order in (in_order, shuffled):
        entries = [reading("C", step + shift, at=131) for step, shift in order]
        results.append(played([*entries, end("C", 129, 131), reading("X", 250), reading("X", 250)]))
    assert [result.counts["records:late"] for result in results] == [0, 0]
    assert results[0].counts["steps:carried"] + results[0].counts["records:duplicate"] == len(in_order) + 2
    assert results[1].result()["C"] == results[0].result()["C"]


@given(log=logs(), crash=st.integers(0, 60), saved=st.integers(0, 60))
def test_what_is_read_again_changes_nothing(log: list[Entry], crash: int, saved: int) -> None:
    calm = played(log)
    again = played(log[:crash])
    # The position had not moved further than `saved` when the member died; its casts had.
    again.offset = min(crash, saved, len(log))
    before = played(log[: again.offset]).partition.clock
    again.partition = ReadingsPartition(SOURCE, again.offset, again.offset, before, GRID, BOUNDS)
    again.partition.adopt({key: state for key, state in again.held.items() if not state.timeline.ended})
    again.batch(log[again.offset :])
    assert again.result() == calm.result()
    assert again.counts == calm.counts


def test_a_record_counted_before_the_restart_does_not_move_log_time_again() -> None:
    wild = reading("W", 9_000, at=9_000)
    before = played([reading("C", 100), wild])
    again = ReadingsPartition(SOURCE, 1, 2, before.partition.clock, GRID, BOUNDS)
    again.adopt({"W": fresh("W")})
    again.take(*batch_of(SOURCE, 1, [wild]))
    assert again.clock.now() == 100_000


def test_one_wild_log_time_ends_no_cast_and_seals_no_step() -> None:
    log = [reading("C", 100), reading("C", 101), reading("C", 9_000, at=9_000), reading("C", 102)]
    plain = played(log)
    assert kinds(log) == ["applied", "applied", "late", "applied"]
    assert plain.held["C"].timeline.sealed == 99


def test_a_cast_ends_when_log_time_says_so_and_a_later_record_is_late() -> None:
    # C speaks at 100 and 101; at 121.0 two records of X have passed the 20 s of silence
    log = [
        reading("C", 100),
        reading("C", 101),
        reading("X", 121),
        reading("X", 121),
        reading("C", 102, at=121),
    ]
    plain = played(log)
    assert plain.held["C"].timeline.ended
    assert kinds(log)[-1] == "late"
    assert [str(window) for window in plain.windows("C")] == ["C/100/2"]


def test_waiting_at_the_end_of_the_log_ends_a_cast() -> None:
    plain = played([reading("C", 100), reading("C", 101)])
    plain.partition.clock.waited_ms = 21_000
    plain.partition.close_due()
    plain.write()
    assert plain.held["C"].timeline.ended
    assert not plain.partition.casts


def test_an_announced_end_takes_stragglers_for_the_lateness() -> None:
    log = [
        reading("C", 100),
        reading("C", 103),
        end("C", 103),
        reading("C", 101, at=105),
        reading("C", 102, at=106),
    ]
    assert kinds(log) == ["applied", "applied", "control", "applied", "late"]


@pytest.mark.parametrize(("step", "reason"), [(111, "future_stamp"), (39, "past_stamp")])
def test_a_refused_stamp_leaves_no_cast_behind(step: int, reason: str) -> None:
    plain = played([reading("C", step, at=100), end("D", step, at=100)])
    assert plain.refused == [(0, reason), (1, reason)]
    assert not plain.held
    assert not plain.partition.casts


def test_a_cast_that_comes_from_two_partitions_is_refused_on_the_second() -> None:
    plain = Plain(held={"C": fresh("C", source="readings/1", version=1)})
    plain.batch([reading("C", 100)])
    assert plain.refused == [(0, "second_partition")]
    assert not plain.rows


def test_the_strand_and_the_group_are_the_first_that_were_named() -> None:
    first = Reading("C", None, 100_000, 0, ((1.0,),))
    second = Reading("C", 4, 101_000, 0, ((1.0,),))
    ended = CastEnd("C", 101_000, "H1")
    plain = played(
        [(first, 100_000), (second, 101_000), (ended, 101_000), (CastEnd("C", 101_000, "H2"), 101_000)]
    )
    assert (plain.held["C"].strand, plain.held["C"].group) == (4, "H1")


def test_before_the_position_a_cast_that_redis_no_longer_knows_was_judged() -> None:
    again = ReadingsPartition(SOURCE, 1, 3, LogClock(), GRID, BOUNDS)
    again.adopt({"C": fresh("C")})
    taken = again.take(*batch_of(SOURCE, 1, [reading("C", step) for step in (101, 102, 103)]))
    assert taken.records == {"redelivered": 2, "applied": 1, "dead_lettered": 0}
    assert again.casts["C"].timeline.rows.step_T.tolist() == [103]
