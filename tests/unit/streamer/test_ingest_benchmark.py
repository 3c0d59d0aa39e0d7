"""The ingest benchmark: its load, its comparison of windows, its checks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.ingest import report
from benchmarks.ingest.__main__ import make_load
from benchmarks.ingest.child import CompetitorError
from benchmarks.ingest.load import SENSORS, START_TS, WINDOW_STEPS, Load, checksum
from benchmarks.ingest.measured import Run, check_windows, medians

LOAD = Load(num_casts=8, num_steps=2 * WINDOW_STEPS + 50)
RUN = Run("ours", LOAD.num_readings, seconds=0.5, cpu_s=0.25, peak_rss_mb=10, windows=None)


def test_the_load_is_whole_windows_and_a_tail() -> None:
    load = make_load(400_000)
    assert (load.num_readings, load.num_windows) == (400_000, 20 * 66)
    assert make_load(1).num_windows == 20


def windows_of(rows: dict[str, list[list[float]]]) -> list[tuple[str, int, bytes]]:
    return [
        (cast_id, START_TS + at * 1000, np.array(values[at : at + WINDOW_STEPS], "<f4").tobytes())
        for cast_id, values in rows.items()
        for at in (0, WINDOW_STEPS)
    ]


@pytest.mark.parametrize("form", ["wide", "chunks"])
def test_records_say_what_the_expected_windows_hold(form: str) -> None:
    rows: dict[str, list[list[float]]] = {}
    if form == "wide":
        for cast_id, ts, record, _ in LOAD.wide_json():
            reading = json.loads(record)
            steps = rows.setdefault(reading["cast_id"], [])
            assert (reading["cast_id"], reading["ts"]) == (cast_id, ts)
            assert ts == START_TS + len(steps) * 1000
            steps.append([reading[name] for name in SENSORS])
    else:
        for _, _, record, _ in LOAD.msgpack_chunks(10):
            chunk = msgspec.msgpack.decode(record)
            steps = rows.setdefault(chunk["cast_id"], [])
            assert chunk["ts"] == START_TS + len(steps) * 1000
            steps += np.frombuffer(chunk["values"], "<f4").reshape(-1, len(SENSORS)).tolist()
    assert checksum(windows_of(rows)) == checksum(LOAD.windows())
    assert checksum(LOAD.windows())[0] == LOAD.num_windows == 16


def test_one_wrong_value_or_a_missing_window_voids_a_run() -> None:
    expected = checksum(LOAD.windows())
    windows = sorted(LOAD.windows())
    check_windows(replace(RUN, windows=checksum(reversed(windows))), LOAD, expected)
    cast_id, start, rows = windows[0]
    for wrong in (windows[1:], [(cast_id, start, b"\0" * 4 + rows[4:]), *windows[1:]]):
        with pytest.raises(CompetitorError, match=r"void: ours left 1[56] windows"):
            check_windows(replace(RUN, windows=checksum(wrong)), LOAD, expected)


def test_the_median_counts_and_the_largest_memory() -> None:
    runs = [replace(RUN, seconds=seconds, peak_rss_mb=100 / seconds) for seconds in (1.0, 4.0, 2.0)]
    figures = medians(runs)
    assert figures["readings_per_s"] == LOAD.num_readings / 2
    assert figures["peak_rss_mb"] == 100
    assert figures["cpu_s_per_million"] == round(0.25e6 / LOAD.num_readings, 3)


def figures(**speeds: int) -> dict[str, dict[str, Any]]:
    return {name: {"readings_per_s": speed, "peak_rss_mb": 100.0} for name, speed in speeds.items()}


def test_what_is_reached_passes_and_what_is_not_fails() -> None:
    good = figures(
        raw_consume=1_000_000,
        ours=360_000,
        confluent_orjson=400_000,
        bytewax=100_000,
        quix=20_000,
        kafka_python_plain=9_000,
        ours_msgpack_chunks=1_100_000,
        ours_two_members=620_000,
    )
    assert all(report.checks(good).values())
    assert len(report.checks(good)) == 11
    for name, speed, fails in [
        ("ours", 350_000, "ours_to_confluent_orjson is at least 0.9"),
        ("ours_two_members", 600_000, "two_members_to_one is at least 1.7, or no core is left"),
        ("ours_msgpack_chunks", 999_999, "MessagePack chunks above 1,000,000 readings/s"),
        ("bytewax", 60_000, "bytewax runs as fast as it is known to"),
    ]:
        assert not report.checks(good | figures(**{name: speed}))[fails]


def test_two_members_may_be_bounded_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.os, "cpu_count", lambda: 2)
    name = "two_members_to_one is at least 1.7, or no core is left"
    measured = figures(ours=100, ours_two_members=160)
    for busy_cores, is_reached in ((1.79, False), (1.81, True)):
        measured["ours_two_members"]["busy_cores"] = busy_cores
        assert report.checks(measured)[name] is is_reached


def test_only_what_was_measured_is_checked() -> None:
    assert set(report.checks(figures(ours=1))) == {"ours stays under 250 MB"}
    assert report.ratios(figures(ours=1)) == {}
