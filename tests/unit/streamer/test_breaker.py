"""When a partition is stopped. Drawn as in the module: `.` a record that was taken, `x` one that failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamer.breaker import Breaker, Trip
from streamer.config import BreakerConfig

SMALL = BreakerConfig(share=0.5, min_records=3, window_records=4)


def stop(config: BreakerConfig, log: str, sizes: tuple[int, ...] = ()) -> int | None:
    """The place in the log at which a breaker trips, the log cut into batches of these sizes."""
    breaker, begin = Breaker(config), 0
    for size in (*sizes, len(log)):
        batch = log[begin : begin + size]
        trip = breaker.observe(len(batch), [(k, "bad_json") for k, each in enumerate(batch) if each == "x"])
        if trip:
            return begin + trip.index
        begin += len(batch)
    return None


def naive_stop(config: BreakerConfig, log: str) -> int | None:
    """The rule as it is written, record by record."""
    for end in range(config.min_records, len(log) + 1):
        window = log[max(0, end - config.window_records) : end]
        if window[-1] == "x" and window.count("x") > config.share * len(window):
            return end - 1
    return None


@pytest.mark.parametrize(
    ("log", "at"),
    [
        ("...x.xx", 6),  # 3 of the last 4
        ("x..x", None),  # half is not more than half
        ("xx", None),  # too few were seen
        ("xxx", 2),
        ("xx..x", None),  # the first two have left the window
        ("xx.", None),  # it never stops at a record that was taken
        ("xx.x", 3),
        ("." * 50 + "xxx", 52),  # a long good time does not hold it up
        ("", None),
    ],
)
def test_it_stops_at_the_record_that_makes_the_share_too_large(log: str, at: int | None) -> None:
    assert stop(SMALL, log) == at


configs = st.builds(
    lambda share, least, more: BreakerConfig(share=share, min_records=least, window_records=least + more),
    st.sampled_from([0.1, 0.3, 0.5, 0.9]),
    st.integers(1, 8),
    st.integers(0, 8),
)


@given(configs, st.text("..x", max_size=60), st.lists(st.integers(0, 12), max_size=12))
def test_batches_do_not_matter_and_the_rule_is_the_written_one(
    config: BreakerConfig, log: str, sizes: list[int]
) -> None:
    assert stop(config, log, tuple(sizes)) == naive_stop(config, log)


def test_late_records_are_no_failures() -> None:
    breaker = Breaker(SMALL)
    late = [(k, "late" if k % 2 else "partly_late") for k in range(20)]
    assert breaker.observe(20, late) is None
    assert breaker.observe(2, [(0, "bad_json"), (1, "bad_json")]) is None
    assert breaker.observe(1, [(0, "bad_json")])


def test_a_trip_names_the_commonest_reasons_first() -> None:
    failures = [(0, "bad_time"), (1, "bad_json"), (2, "bad_json")]
    trip = Breaker(SMALL).observe(3, failures)
    assert trip == Trip(2, 3, 3, {"bad_json": 2, "bad_time": 1})
    assert str(trip) == "3 of the last 3 records failed: bad_json 2, bad_time 1"


def test_a_share_of_one_never_stops() -> None:
    assert stop(BreakerConfig(share=1, min_records=1, window_records=2), "x" * 50) is None


def test_a_window_that_cannot_hold_enough_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_records must not be above window_records"):
        BreakerConfig(min_records=10, window_records=9)
