"""A recording is checked cell by cell, and becomes what the plant would have sent."""

from __future__ import annotations

import csv
import gzip
import itertools
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from odd_names import ODD_NAMES

from streamer.errors import RecordingError
from streamer.plant.recording import Recording
from streamer.plant.recording_writer import write_recording
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.schema import Label

ASSET = Path(__file__).parents[2] / "assets" / "recording"
# What the recording in tests/assets was made from; `python tests/unit/streamer/test_plant_recording.py` makes it.
ASSET_CONFIG = SimulatorConfig(
    seed=7,
    num_casts=24,
    strands=2,
    casts_per_heat=2,
    min_steps=100,
    max_steps=240,
    missing_share=0.02,
    defect_share=0.4,
    label_delay_s=(60.0, 300.0),
)
T0 = 1_767_225_600_000

READINGS = f"""cast_id,strand,ts,level,temp
A,1,{T0},1.5,20
A,1,{T0 + 1000},,21
B,2,{T0 + 1000},7,30
A,1,{T0 + 2000},1.7,22
B,2,{T0 + 2000},8,31
C,,{T0 + 9000},9,40
"""
LABELS = f"""cast_id,defect,inspected_at,from_ts,to_ts,segment,note
B,0,{T0 + 9000},,,S2,
A,1,{T0 + 1500},{T0},{T0 + 1000},S1,early
A,0,{T0 + 1200},,,S1,
gone,1,{T0 + 99000},,,S9,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "readings.csv").write_text(READINGS)
    (tmp_path / "labels.csv").write_text(LABELS)
    return tmp_path


def messages(recording: Recording, **options: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(event.sent_at - T0, msgspec.json.decode(event.value)) for event in recording.events(**options)]


def test_it_knows_sensors_casts_readings_and_labels(folder: Path) -> None:
    recording = Recording.open(folder)
    assert recording.sensors == ("level", "temp")
    assert (recording.num_casts, recording.num_readings, recording.period_ms) == (3, 6, 1000)
    assert [(cast.cast_id, cast.group, cast.defect) for cast in recording.casts] == [
        ("A", "S1", True),
        ("B", "S2", False),
        ("C", None, None),
    ]
    assert recording.labels() == (
        Label("A", False, T0 + 1200, group="S1"),
        Label("A", True, T0 + 1500, T0, T0 + 1000, group="S1"),
        Label("B", False, T0 + 9000, group="S2"),
        Label("gone", True, T0 + 99000, group="S9"),
    )


def test_everything_is_sent_at_its_time_the_end_after_the_last_row_the_label_when_inspected(
    folder: Path,
) -> None:
    sent = messages(Recording.open(folder))
    assert [
        (at, message["cast_id"], message.get("event") or message.get("defect", "row")) for at, message in sent
    ] == [
        (0, "A", "row"),
        (1000, "A", "row"),
        (1000, "B", "row"),
        (1200, "A", False),
        (1500, "A", True),
        (2000, "A", "row"),
        (2000, "A", "cast_end"),
        (2000, "B", "row"),
        (2000, "B", "cast_end"),
        (9000, "C", "row"),
        (9000, "C", "cast_end"),
        (9000, "B", False),
        (99000, "gone", True),
    ]
    bodies = [message for _, message in sent]
    assert bodies[1] == {"cast_id": "A", "strand": 1, "ts": T0 + 1000, "level": None, "temp": 21.0}
    assert bodies[4] == {
        **{"cast_id": "A", "defect": True, "inspected_at": T0 + 1500},
        **{"from_ts": T0, "to_ts": T0 + 1000, "group": "S1"},
    }
    assert bodies[6] == {"cast_id": "A", "ts": T0 + 2000, "event": "cast_end", "group": "S1"}
    assert bodies[9] == {"cast_id": "C", "ts": T0 + 9000, "level": 9.0, "temp": 40.0}
    assert bodies[10] == {"cast_id": "C", "ts": T0 + 9000, "event": "cast_end"}


def test_chunks_carry_rows_a_period_apart_and_never_wait_for_a_gap_to_end(tmp_path: Path) -> None:
    #  step 0 1 2 3 4 5 . . . 9 10        chunks of 4: [0 1 2 3] [4 5] [9 10]
    rows = "".join(f"A,1,{T0 + step * 1000},{step}\n" for step in (0, 1, 2, 3, 4, 5, 9, 10))
    (tmp_path / "readings.csv").write_text("cast_id,strand,ts,x\n" + rows)
    (tmp_path / "labels.csv").write_text("cast_id,defect,inspected_at\n")
    sent = messages(Recording.open(tmp_path), chunk_rows=4)
    assert [(at, message.get("values")) for at, message in sent] == [
        (3000, [[0], [1], [2], [3]]),
        (6000, [[4], [5]]),
        (10_000, [[9], [10]]),
        (10_000, None),
    ]


@pytest.mark.parametrize(("share", "held"), [(0.0, ""), (0.1, "C"), (0.5, "BC"), (0.7, "ABC"), (1.0, "ABC")])
def test_the_last_casts_are_held_back(folder: Path, share: float, held: str) -> None:
    recording = Recording.open(folder)
    assert "".join(cast.cast_id for cast in recording.held_back_casts(share)) == held
    back = recording.held_back(share)
    assert [label.cast_id for label in back] == [
        label.cast_id for label in recording.labels() if label.cast_id in held
    ]
    sent = [m["cast_id"] for _, m in messages(recording, hold_back_labels=share) if "defect" in m]
    assert sorted([*sent, *(label.cast_id for label in back)]) == ["A", "A", "B", "gone"]


def test_a_group_is_held_back_as_a_whole() -> None:
    recording = Recording.open(ASSET)
    held = recording.held_back_casts(0.21)
    # 0.21 of 24 casts is 6, of heats of two; the first of the six is the second of its heat when 0.2 asks for 5.
    assert len(held) == 6
    assert len(recording.held_back_casts(0.2)) == 6
    groups = {cast.group for cast in held}
    assert all((cast in held) == (cast.group in groups) for cast in recording.casts)
    sent = {event.key.decode() for event in recording.events(hold_back_labels=0.2) if event.kind == "labels"}
    assert sent.isdisjoint(cast.cast_id for cast in held)
    ends = [m for _, m in messages(recording, hold_back_labels=0.2) if m.get("event") == "cast_end"]
    assert {end["group"] for end in ends} >= groups


def test_a_verdict_on_a_cast_without_rows_is_held_back_with_its_group(folder: Path) -> None:
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("S9", "S2"))
    recording = Recording.open(folder)
    assert [label.cast_id for label in recording.held_back(0.5)] == ["B", "gone"]
    assert "gone" not in {message["cast_id"] for _, message in messages(recording, hold_back_labels=0.5)}


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(folder: Path, share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        Recording.open(folder).held_back(share)


def test_the_asset_is_what_the_simulator_writes(tmp_path: Path) -> None:
    write_recording(tmp_path, Simulator(ASSET_CONFIG).casts())
    # Unpacked: another zlib may pack the same bytes in another way.
    packed, unpacked = (gzip.decompress((d / "readings.csv.gz").read_bytes()) for d in (tmp_path, ASSET))
    assert packed == unpacked
    assert (tmp_path / "labels.csv").read_bytes() == (ASSET / "labels.csv").read_bytes()


def test_the_same_casts_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_recording(tmp_path / name, Simulator(ASSET_CONFIG).casts())
    for name in ("readings.csv.gz", "labels.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_written_recording_reads_back_as_it_was_simulated() -> None:
    recording, casts = Recording.open(ASSET), list(Simulator(ASSET_CONFIG).casts())
    assert recording.sensors == Simulator.sensors
    assert recording.num_readings == sum(int(cast.sent_T.sum()) for cast in casts)
    rows: dict[str, list[list[float | None]]] = {cast.cast_id: [] for cast in casts}
    for event in recording.events():
        message = msgspec.json.decode(event.value)
        if event.num_readings:
            rows[message["cast_id"]].append([message[name] for name in recording.sensors])
    for cast in casts:
        got_KF = np.array(rows[cast.cast_id], dtype=np.float32)
        np.testing.assert_array_equal(got_KF, cast.values_TF[cast.sent_T])
    verdicts = {
        (x.cast_id, x.inspected_at, x.defect, x.from_ts, x.to_ts, x.group) for x in recording.labels()
    }
    assert verdicts == {
        (x.cast_id, x.inspected_at, x.defect, x.from_ts, x.to_ts, x.group) for c in casts for x in c.labels
    }


def test_events_are_in_time_order_in_chunks_as_in_single_rows() -> None:
    recording = Recording.open(ASSET)
    for chunk_rows in (1, 10):
        events = list(recording.events(chunk_rows))
        assert all(first.sent_at <= second.sent_at for first, second in itertools.pairwise(events))
        assert sum(event.num_readings for event in events) == recording.num_readings


def test_rows_are_not_held_in_memory(tmp_path: Path) -> None:
    rows = (f"C{step // 500},1,{T0 + step * 1000},{step},2,3\n" for step in range(6_000))
    (tmp_path / "readings.csv").write_text("cast_id,strand,ts,a,b,c\n" + "".join(rows))
    (tmp_path / "labels.csv").write_text("cast_id,defect,inspected_at\n")
    tracemalloc.start()
    num_readings = sum(event.num_readings for event in Recording.open(tmp_path).events(chunk_rows=10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_readings == 6_000
    assert peak < 250_000


def in_readings(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: _replace(folder / "readings.csv", old, new)


def in_labels(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: _replace(folder / "labels.csv", old, new)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _both(folder: Path) -> None:
    (folder / "readings.csv.gz").write_bytes(gzip.compress(READINGS.encode()))


def _torn(folder: Path) -> None:
    (folder / "readings.csv").unlink()
    (folder / "readings.csv.gz").write_bytes(gzip.compress(READINGS.encode())[:-12])


def _not_gzip(folder: Path) -> None:
    (folder / "readings.csv").rename(folder / "readings.csv.gz")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "readings.csv").unlink(), r"readings\.csv: no such file"),
        (lambda folder: (folder / "labels.csv").unlink(), r"labels\.csv: no such file"),
        (_both, r"both readings\.csv and readings\.csv\.gz; keep one"),
        (_torn, r"readings\.csv\.gz: not UTF-8 CSV"),
        (_not_gzip, r"readings\.csv\.gz: not UTF-8 CSV"),
        (lambda folder: (folder / "readings.csv").write_text(""), r"readings\.csv:1: the file is empty"),
        (lambda folder: (folder / "readings.csv").write_bytes(b"\xff\xfe"), r"not UTF-8 CSV"),
        (in_readings(READINGS[READINGS.index("\n") + 1 :], ""), r"readings\.csv:2: no rows"),
        (in_readings("cast_id,", "castid,"), r"readings\.csv:1: column cast_id: no such column"),
        (in_readings("level", "temp"), r"readings\.csv:1: column temp: stands twice"),
        (in_readings("level", "event"), r"readings\.csv:1: column event: is a field of the messages"),
        (in_readings("level", " level"), r'readings\.csv:1: column " level": begins or ends with a blank'),
        (
            in_readings("level", '"le\nvel"'),
            r'readings\.csv:\d: column "le\\nvel": holds U\+000A, which does not',
        ),
        (in_readings("level", "le\u0301 x,l\u00e9 x"), r'readings\.csv:1: column "l\u00e9 x": stands twice'),
        (in_readings("cast_id,", '"cast,id",'), r'no such column among "cast,id", strand'),
        (in_readings(f"A,1,{T0},", "A,1,noon,"), r"readings\.csv:2: column ts: 'noon' is not a whole number"),
        (in_readings(f"A,1,{T0},", "A,1,1767225600,"), r":2: column ts: 1767225600 lies outside 1990"),
        (in_readings(f"{T0 + 9000}", f"{T0}"), r"readings\.csv:7: column ts: \d+ is before the row above"),
        (in_readings(f"B,2,{T0 + 1000}", f"A,1,{T0 + 1000}"), r":4: column ts: a second row of A at"),
        (in_readings("B,2", "B/1,2"), r"readings\.csv:4: column cast_id: 'B/1' cannot be a key"),
        (in_readings("B,2", "B,two"), r"readings\.csv:4: column strand: 'two'"),
        (in_readings("1.7", "1,7"), r"readings\.csv:5: 6 cells, the header has 5"),
        (in_readings("1.7", "high"), r"readings\.csv:5: column level: 'high' is not a number"),
        (in_readings("1.7", "inf"), r"readings\.csv:5: column level: 'inf' is not a number"),
        (in_readings(",21", ",nan"), r"readings\.csv:3: column temp: 'nan' is not a number; leave the cell"),
        (in_labels("defect", "verdict"), r"labels\.csv:1: column defect: no such column"),
        (in_labels("B,0", "B,good"), r"labels\.csv:2: column defect: 'good' is not a verdict; write 1"),
        (in_labels("B,0", "B 1,0"), r"labels\.csv:2: column cast_id: 'B 1' cannot be a key"),
        (in_labels(f"B,0,{T0 + 9000}", "B,0,"), r"labels\.csv:2: column inspected_at: '' is not a whole"),
        (in_labels(f"{T0},{T0 + 1000}", f"{T0},"), r"labels\.csv:3: column from_ts: only one of from_ts and"),
        (
            in_labels(f"{T0},{T0 + 1000}", f"{T0 + 1},{T0}"),
            r"labels\.csv:3: column from_ts: \d+ is after to_ts",
        ),
        (in_labels("S1,early", "S3,early"), r"labels\.csv:4: column segment: 'S1' for a cast that had 'S3'"),
    ],
)
def test_a_fault_is_named_by_file_line_column_and_mend(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(RecordingError, match=said):
        Recording.open(folder)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nowhere: no such folder"):
        Recording.open(tmp_path / "nowhere")


def test_a_byte_order_mark_and_an_empty_last_line_are_no_fault(folder: Path) -> None:
    (folder / "readings.csv").write_text("\ufeff" + READINGS + "\n", encoding="utf-8")
    assert Recording.open(folder).num_readings == 6


def test_the_order_of_columns_does_not_matter(folder: Path) -> None:
    (folder / "readings.csv").write_text(f"x,ts,cast_id,y,strand\n1,{T0},A,2,\n")
    recording = Recording.open(folder)
    assert recording.sensors == ("x", "y")
    assert messages(recording)[0][1] == {"cast_id": "A", "ts": T0, "x": 1.0, "y": 2.0}


def test_a_column_may_have_any_name(folder: Path) -> None:
    with (folder / "readings.csv").open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(("cast_id", "strand", "ts", *ODD_NAMES))
        writer.writerow(("A", 1, T0, *range(len(ODD_NAMES))))
    recording = Recording.open(folder)
    assert recording.sensors == ODD_NAMES
    row = messages(recording)[0][1]
    assert [row[name] for name in ODD_NAMES] == list(range(len(ODD_NAMES)))


def test_a_column_is_composed(folder: Path) -> None:
    in_readings("level", "Gie\u0301en")(folder)
    assert Recording.open(folder).sensors == ("Gi\u00e9en", "temp")


if __name__ == "__main__":
    sys.exit(write_recording(ASSET, Simulator(ASSET_CONFIG).casts()))
