"""Event time of a partition as a table of cases, the timeline of each drawn above it.

One character is one second; sensors a and b; lateness 3 s, idle 20 s, windows of 5 steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from columns import Entry, Reading
from test_partition import BOUNDS, GRID, SOURCE, Plain

from streamer.config import WindowsConfig
from streamer.partition import ReadingsPartition
from streamer.schema import CastEnd
from streamer.timeline import Grid, LogClock
from streamer.windows import windows_between

NAN, BAD = math.nan, math.inf
SPEC = WindowsConfig(size_steps=5, hop_steps=5)


@dataclass(frozen=True)
class Case:
    """What comes, and what is final of cast C once it is over.

    Attributes:
        final: (step, value of a, value of b) of the sealed rows that have a value.
        windows: (first step, length).
        counts: Some of the ledger's terms.
    """

    name: str
    log: Sequence[Entry]
    final: Sequence[tuple[float, ...]]
    windows: Sequence[tuple[int, int]]
    counts: dict[str, int] = field(default_factory=dict)
    period_ms: int = 1000
    carry_s: float | None = None


def says(step: float, a: float = 1, b: float = 1, *, at: float | None = None, cast_id: str = "C") -> Entry:
    return Reading(cast_id, 1, int(step * 1000), 0, ((a, b),)), int(1000 * (step if at is None else at))


def end(step: float, at: float | None = None) -> Entry:
    return CastEnd("C", int(step * 1000)), int(1000 * (step if at is None else at))


def passes(to: float) -> list[Entry]:
    """Two records of other casts: log time reaches `to`."""
    return [says(to, cast_id="other"), says(to, cast_id="other")]


CASES = [
    # C  0 1 2 3 4 5 6 7 8 9 |end          windows [0..4] [5..9]
    Case(
        "a plain cast",
        [*(says(100 + k) for k in range(10)), end(109), *passes(113)],
        [(100 + k, 1, 1) for k in range(10)],
        [(100, 5), (105, 5)],
        {"steps:placed": 10, "records:control": 1},
    ),
    # C  0 1 . . 4 5 6 7 8 9 |end          2 and 3 are missing for good: NaN, not a shift
    Case(
        "a gap",
        [*(says(100 + k) for k in (0, 1, 4)), end(104), *passes(108)],
        [(100, 1, 1), (101, 1, 1), (104, 1, 1)],
        [(100, 5)],
    ),
    # C  0 2 1 4 3 |end                    each out of order by less than the lateness
    Case(
        "out of order",
        [says(100), says(102), says(101, at=102), says(104), says(103, at=104), end(104), *passes(108)],
        [(100 + k, 1, 1) for k in range(5)],
        [(100, 5)],
        {"steps:placed": 5},
    ),
    # C  0 1 2 3 4 | 0 at 5: late (4 - 3 = 1 is sealed)
    Case(
        "later than the lateness",
        [*(says(100 + k) for k in range(5)), says(100, 9, 9, at=105), end(104, 105), *passes(109)],
        [(100 + k, 1, 1) for k in range(5)],
        [(100, 5)],
        {"records:late": 1},
    ),
    # C  0 1 1 1 2                          the same again, then another value with the same stamp
    Case(
        "duplicates",
        [says(100), says(101), says(101), says(101, 5, 1), says(102), end(102), *passes(106)],
        [(100, 1, 1), (101, 5, 1), (102, 1, 1)],
        [(100, 3)],
        {"records:duplicate": 1, "steps:superseded": 1},
    ),
    # C  0 1 2 3 | clock back: 1.4 2.4      the old second is nearer to the step and wins
    Case(
        "a clock that jumps back",
        [
            *(says(100 + k) for k in range(4)),
            says(101.4, 7, 7, at=104),
            says(102.4, 7, 7, at=104),
            end(103),
            *passes(108),
        ],
        [(100 + k, 1, 1) for k in range(4)],
        [(100, 4)],
        {"steps:superseded": 2},
    ),
    # C  0 1 | 500 (future: refused) | 2 3  the watermark stays where it was
    Case(
        "a stamp in the far future",
        [says(100), says(101), says(600, at=102), says(102), says(103), end(103), *passes(107)],
        [(100 + k, 1, 1) for k in range(4)],
        [(100, 4)],
        {"records:late": 0, "steps:placed": 4},
    ),
    # a  0 1 2 3 4        b  0 1 . . .      b is silent: its cells are gaps, the steps are valid
    Case(
        "a sensor that goes silent",
        [says(100), says(101), *(says(100 + k, 1, NAN) for k in (2, 3, 4)), end(104), *passes(108)],
        [(100, 1, 1), (101, 1, 1), (102, 1, NAN), (103, 1, NAN), (104, 1, NAN)],
        [(100, 5)],
    ),
    # C  0 1 2 ...... idle for 20 s         no end was announced: it is over at its last value
    Case(
        "no end",
        [says(100), says(101), says(102), *passes(122)],
        [(100 + k, 1, 1) for k in range(3)],
        [(100, 3)],
    ),
    # C  0 1 2 |      D  1 2 3 4 5          both on strand 1: neither sees the other
    Case(
        "two casts on one strand",
        [
            says(100),
            says(101, 8, 8, cast_id="D"),
            says(101),
            says(102, 8, 8, cast_id="D"),
            says(102),
            end(102),
            *passes(106),
        ],
        [(100 + k, 1, 1) for k in range(3)],
        [(100, 3)],
        {"steps:placed": 3},
    ),
    # period 0.5 s:  0 .5 1 1.5 2           steps 200 to 204
    Case(
        "a period that is not one second",
        [*(says(100 + k / 2) for k in range(5)), end(102), *passes(106)],
        [(200 + k, 1, 1) for k in range(5)],
        [(200, 5)],
        period_ms=500,
    ),
    # C  0.1 0.9 2.2 2.8 4.4                steps 0 1 2 3 4
    Case(
        "jitter",
        [*(says(100 + t) for t in (0.1, 0.9, 2.2, 2.8, 4.4)), end(104, 104.4), *passes(108)],
        [(100 + k, 1, 1) for k in range(5)],
        [(100, 5)],
        {"steps:placed": 5},
    ),
    # C  1.3 0.9                            both on step 1: 0.9 is nearer
    Case(
        "two readings on one step",
        [says(101.3, 3, 3), says(100.9, 2, 2, at=101.3), end(101, 101.3), *passes(105)],
        [(101, 2, 2)],
        [(101, 1)],
        {"steps:superseded": 1},
    ),
    # a  0 . . . 4   b . 1 . . .            tags, carried for 2 s: a fills 1 2, b fills 2 3
    Case(
        "values are carried forward up to their age",
        [says(100, 5, NAN), says(101, NAN, 6), says(104, 7, NAN), end(104), *passes(108)],
        [(100, 5, NAN), (101, 5, 6), (102, 5, 6), (103, NAN, 6), (104, 7, NAN)],
        [(100, 5)],
        {"steps:placed": 3},
        carry_s=2,
    ),
    # a  0 bad . . 4                        nothing is carried past a bad value
    Case(
        "a bad value stops what is carried",
        [says(100, 5, NAN), says(101, BAD, NAN), says(104, 7, NAN), end(104), *passes(108)],
        [(100, 5, NAN), (104, 7, NAN)],
        [(100, 5)],
        {"steps:gap": 1},
        carry_s=10,
    ),
    # a  0 . . 3, and 1 a straggler          carried when sealed, in step order: 1 wins over 0
    Case(
        "a straggler is carried as if it had come in time",
        [says(100, 5, NAN), says(103, 7, NAN), says(101, 6, NAN, at=103), end(103), *passes(107)],
        [(100, 5, NAN), (101, 6, NAN), (102, 6, NAN), (103, 7, NAN)],
        [(100, 4)],
        carry_s=10,
    ),
]


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case, batch_size: int) -> None:
    grid = Grid(case.period_ms)
    bounds = replace(BOUNDS, carry_ms=None if case.carry_s is None else int(case.carry_s * 1000))
    plain = Plain(ReadingsPartition(SOURCE, 0, None, LogClock(), grid, bounds), num_sensors=2)
    for begin in range(0, len(case.log), batch_size):
        plain.batch(case.log[begin : begin + batch_size])
    timeline = plain.held["C"].timeline
    assert timeline.ended
    assert timeline.first_step is not None
    assert timeline.sealed is not None
    final = [(step, *row) for step, row in sorted(plain.rows["C"].items()) if not all(map(math.isnan, row))]
    assert repr(final) == repr([(step, float(a), float(b)) for step, a, b in case.final])
    windows = windows_between(
        SPEC,
        "C",
        first_step=timeline.first_step,
        begin=timeline.first_step,
        sealed=timeline.sealed,
        ended=True,
    )
    assert [(window.start, window.length) for window in windows] == list(case.windows)
    assert {name: plain.by_cast["C"][name] for name in case.counts} == case.counts


def test_a_cast_that_never_ends_is_sealed_as_it_goes_and_held_in_bounded_memory() -> None:
    # C  0 1 2 3 ... 5000                   at each moment only the lateness is open
    plain = Plain(ReadingsPartition(SOURCE, 0, None, LogClock(), GRID, BOUNDS), num_sensors=2)
    for begin in range(100, 5100, 50):
        plain.batch([says(begin + k) for k in range(50)])
        timeline = plain.held["C"].timeline
        assert len(timeline.rows) <= 4
        assert timeline.sealed == begin + 49 - 3
    assert not plain.held["C"].timeline.ended


def test_a_long_jump_ahead_needs_no_memory_for_the_steps_between() -> None:
    # C  0 ................................ 80,000 s later, on a grid of 10 ms: 8 million steps
    bounds = replace(BOUNDS, max_past_ms=86_400_000, idle_ms=10**9, carry_ms=1_000)
    plain = Plain(ReadingsPartition(SOURCE, 0, None, LogClock(), Grid(10), bounds), num_sensors=2)
    plain.batch([says(100_000, at=180_000), says(180_000), says(180_001)])
    timeline = plain.held["C"].timeline
    assert timeline.sealed == (180_001 - 3) * 100
    assert len(plain.rows["C"]) < 500
