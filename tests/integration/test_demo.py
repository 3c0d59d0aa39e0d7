"""The demo as a person runs it: a process of its own, which leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RECORDING = Path(__file__).parent.parent / "assets" / "recording"

STREAMER = """
redis: {namespace: demo}
data:
  sensors:
    - {name: casting_speed, unit: m/min}
    - {name: mold_temperature, unit: degC}
    - {name: mold_level, unit: mm}
    - {name: cooling_water_flow, unit: L/min}
    - {name: superheat, unit: degC}
event_time: {allowed_lateness_s: 1}
windows: {name: short, size_steps: 60, hop_steps: 30}
"""
TRAINER = """
redis: {namespace: demo}
dataset: {windows: short, train_share: 0.4, validation_share: 0.2}
triggers: {new_labelled_windows: 60, interval_s: null, poll_s: 0.5}
gate: {baseline: warn, min_defective_casts: 2, min_good_casts: 2, min_first_lift: 0.0, lower_quantile: 0.49}
"""
# The loop is what is tested: what 24 casts teach a linear model or trees is chance, and the gate refuses it.
MODEL = """
architecture: {num_layers: 1, hidden_size: 8, tree_path: false, linear_path: false}
training: {max_epochs: 30}
optimizer: {learning_rate: 0.01}
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, text in (("streamer", STREAMER), ("trainer", TRAINER), ("model_config", MODEL)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


@contextmanager
def demo(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the demo with a temporary folder of its own."""
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> dict[int, str]:
    """Process id and command line of each child."""
    found = {}
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found[int(number)] = Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def all_started(pid: int) -> bool:
    return len(children(pid)) == 6  # broker, Redis, streamer, trainer, subscriber, plant


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # an orphan that is dead may wait for init to take note


def assert_nothing_left(tmp_path: Path, pids: dict[int, str]) -> None:
    assert [command for pid, command in pids.items() if alive(pid)] == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_process_and_no_folder(tmp_path: Path, number: int, code: int) -> None:
    with demo(tmp_path) as process:
        wait_until(lambda: all_started(process.pid))
        pids = children(process.pid)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert_nothing_left(tmp_path, pids)


def test_a_failed_child_ends_the_demo_with_its_last_lines(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_until(lambda: all_started(process.pid))
        pids = children(process.pid)
        streamer = next(pid for pid, command in pids.items() if "streamer run" in command)
        os.kill(streamer, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the streamer ended with -9" in output
    assert_nothing_left(tmp_path, pids)


def test_a_demo_that_is_killed_takes_its_children_along(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_until(lambda: all_started(process.pid))
        pids = children(process.pid)
        process.kill()
        process.communicate(timeout=60)
    wait_until(lambda: not any(alive(pid) for pid in pids), timeout_s=10)


def test_a_demo_that_takes_too_long_ends_with_1(tmp_path: Path) -> None:
    with demo(tmp_path, "--timeout-s", "10") as process:
        wait_until(lambda: all_started(process.pid))
        pids = children(process.pid)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "not done in time" in output
    assert_nothing_left(tmp_path, pids)


def test_a_recording_goes_through_the_whole_loop(tmp_path: Path, configs: Path) -> None:
    report_file = tmp_path / "report.json"
    arguments = ["--recording", str(RECORDING), "--config", str(configs), "--json", str(report_file)]
    with demo(tmp_path, *arguments, "--replay-s", "5") as process:
        wait_until(lambda: all_started(process.pid))
        pids = children(process.pid)
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    report = json.loads(report_file.read_text())
    # 4,121 rows lie in the recording; each became a reading.
    assert report["readings"] == 4121
    assert report["labelled_windows"] < report["sealed_windows"]
    assert [cycle["decision"] for cycle in report["cycles"]] == ["promoted"] * len(report["models"])
    assert report["models"][0]["version"] == report["subscriber"][0]["version"] == 1
    assert report["subscriber"][0]["scored"] > 0
    # The last 20 % of 24 casts are 5, and the heat of the first of them has one more.
    assert report["holdout"]["casts"] == 6
    assert 0 <= report["holdout"]["auc_roc"] <= 1
    assert "Held back: 6 casts" in output
    assert_nothing_left(tmp_path, pids)


def test_a_demo_without_a_promotion_ends_with_1_and_lists_the_refusals(tmp_path: Path, configs: Path) -> None:
    # No lift above a base rate can be that large.
    (configs / "trainer.yaml").write_text(TRAINER.replace("min_first_lift: 0.0", "min_first_lift: 0.99"))
    arguments = ["--recording", str(RECORDING), "--config", str(configs), "--replay-s", "5"]
    with demo(tmp_path, *arguments) as process:
        wait_until(lambda: all_started(process.pid))
        pids = children(process.pid)
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 1, output
    assert "incomplete: 0 models were promoted" in output
    assert "windows: first model: lower 49% bound of AUC-PR above the base rate" in output
    assert_nothing_left(tmp_path, pids)


def test_sensors_that_do_not_fit_the_configuration_are_named(tmp_path: Path, configs: Path) -> None:
    (configs / "streamer.yaml").write_text("data: {sensors: [{name: pressure}]}\n")
    with demo(tmp_path, "--recording", str(RECORDING), "--config", str(configs)) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "casting_speed" in output
    assert "pressure" in output
