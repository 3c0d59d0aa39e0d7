"""The streamer as processes: its commands, its signals, its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from streamer_harness import PATIENCE_S, Plant, contents, make_settings, member, story

from streamer.app import have_topics
from streamer.config import KafkaConfig, RedisConfig, StreamerSettings
from streamer.embedded import EmbeddedBroker
from streamer.plant.recording import Recording
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore

ROOT = Path(__file__).parents[2]
MAIN = "from streamer.cli import main; main()"


class Process:
    """`streamer ...` as a child; its log is read from a file."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CASTING_")}
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", MAIN, *arguments],
                cwd=ROOT,
                env=kept | environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.popen.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of the service's own pages."""
        self.wait_for(lambda: self.events("http"))
        url = f"http://127.0.0.1:{self.events('http')[0]['port']}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits; the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(15)

    def finish(self) -> tuple[int, str]:
        """Waits for the end; exit code and stdout."""
        out, _ = self.popen.communicate(timeout=PATIENCE_S)
        return self.popen.returncode, out.decode()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes: list[Process] = []

    def start(*arguments: str, **environment: str) -> Process:
        processes.append(Process(tmp_path, *arguments, **environment))
        return processes[-1]

    yield start
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


@pytest.fixture
def settings(kafka: KafkaConfig, redis: RedisConfig, unique: str) -> StreamerSettings:
    return make_settings(kafka, redis, unique, max_poll_records=50)


def write(settings: StreamerSettings, path: Path) -> str:
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return str(path)


def num_consumed(settings: StreamerSettings) -> int:
    client = connect(settings.redis)
    try:
        positions = PositionStore(client, Keys(settings.redis.namespace)).load_all()
        return sum(position.offset for position in positions.values())
    finally:
        client.close()


def test_a_process_killed_in_the_middle_leaves_what_a_calm_run_leaves(
    settings: StreamerSettings, start: Start, tmp_path: Path
) -> None:
    have_topics(settings)
    plant = Plant(settings)
    # Behind the end of the last cast: else it ends while the test looks, by the seconds waited.
    log = [*story(plant, num_casts=60), *plant.time_passes(800)]
    plant.feed(log)
    config = write(settings, tmp_path / "s.yaml")
    first = start("run", "-c", config)
    first.wait_for(lambda: num_consumed(settings) > 0)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    killed_at = num_consumed(settings)
    assert 0 < killed_at < len(log)

    second = start("run", "-c", config)
    calm = settings.model_copy(
        update={
            "redis": settings.redis.model_copy(update={"namespace": f"{settings.redis.namespace}-calm"}),
            "consumer": settings.consumer.model_copy(
                update={"group_id": f"{settings.consumer.group_id}-calm"}
            ),
        }
    )
    with member(calm) as one:
        one.consume(len(log))
        expected = contents(one.client, calm)
        second.wait_for(lambda: num_consumed(settings) >= len(log))
        second.wait_for(lambda: contents(one.client, settings) == expected)
        assert one.num_consumed() == num_consumed(settings)

    code, out = start("status", "-c", config, "--json").finish()
    report = json.loads(out)
    assert code == 0
    assert report["casts"] == len(expected["listed"])
    assert report["sealed_windows"] == len(expected["windows"])
    assert report["labelled_windows"] == len(expected["defective"]) + len(expected["good"])
    assert report["defective_windows"] == len(expected["defective"])
    assert report["readings"] == sum(report["steps"].values())
    assert report["lag"] == 0
    assert report["dead_letters"] > 0
    assert second.get("readyz") == (200, "ok\n")
    assert second.end() == 143
    assert second.events("stopped")

    # What the namespace held is gone, and the group says that it was read.
    client = connect(settings.redis)
    for key in client.scan_iter(f"{settings.redis.namespace}:*"):
        client.delete(key)
    client.close()
    third = start("run", "-c", config)
    assert third.finish()[0] == 1
    assert "knows nothing of it" in third.log()
    assert "Traceback" not in third.log()


def test_a_broker_that_is_not_there_is_waited_for_and_told_of_once(
    redis: RedisConfig, unique: str, start: Start, tmp_path: Path
) -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaConfig(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1000)
        settings = make_settings(kafka, redis, unique)
        broker.kill()
        process = start("run", "-c", write(settings, tmp_path / "s.yaml"))
        process.wait_for(lambda: process.events("waiting"))
        told = time.monotonic()
        assert process.get("livez") == (200, "ok\n")
        assert process.get("readyz")[0] == 503
        assert broker.bootstrap_servers in process.get("readyz")[1]
        process.wait_for(lambda: time.monotonic() > told + 2)
        assert len(process.events("waiting")) == 1
        broker.start()
        process.wait_for(lambda: process.get("readyz")[0] == 200)
        Plant(settings).feed(Plant(settings).reading("A", step) for step in range(3))
        process.wait_for(lambda: num_consumed(settings) == 3)
        process.wait_for(lambda: 'records_total{kind="applied"} 3.0' in process.get("metrics")[1])
        status, metrics = process.get("metrics")
        assert status == 200
        assert "casting_streamer_ready 1.0" in metrics
        assert process.end() == 143
    assert len(process.events("recovered")) == 1
    assert "Traceback" not in process.log()


def test_a_stop_while_waiting_is_obeyed(
    redis: RedisConfig, unique: str, start: Start, tmp_path: Path
) -> None:
    kafka = KafkaConfig(bootstrap_servers="127.0.0.1:1", request_timeout_ms=1000)
    process = start("run", "-c", write(make_settings(kafka, redis, unique), tmp_path / "s.yaml"))
    process.wait_for(lambda: process.events("waiting"))
    began = time.monotonic()
    assert process.end(signal.SIGINT) == 130
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("content", "environment", "told"),
    [
        ("data: {sensors: [{name: a}]}\nkafak: {}\n", {}, "s.yaml:2: kafak: "),
        ("data: {sensors: [{name: a}]}\n", {"CASTING_HTTP__PORT": "x"}, "environment: CASTING_HTTP__PORT: "),
        (
            "data: {sensors: [{name: a}]}\nredis: {password_file: /nowhere}\n",
            {},
            "/nowhere: cannot read the secret",
        ),
    ],
)
def test_a_wrong_configuration_ends_with_2(
    start: Start, tmp_path: Path, content: str, environment: dict[str, str], told: str
) -> None:
    (tmp_path / "s.yaml").write_text(content)
    process = start("run", "-c", str(tmp_path / "s.yaml"), **environment)
    assert process.finish() == (2, "")
    assert told in process.log()
    assert "Traceback" not in process.log()


@pytest.mark.parametrize(
    "arguments", [["run", "-c"], ["run", "--nope"], ["nope"], ["simulate", "--casts", "0"]]
)
def test_a_usage_error_ends_with_2(start: Start, arguments: list[str]) -> None:
    assert start(*arguments).finish() == (2, "")


def test_a_recording_and_a_simulated_plant_are_fed(
    settings: StreamerSettings, start: Start, tmp_path: Path
) -> None:
    plain = yaml.safe_load((ROOT / "configs" / "streamer.yaml").read_text())
    own = settings.model_dump(mode="json")
    config = tmp_path / "s.yaml"
    config.write_text(yaml.safe_dump(own | {"data": plain["data"]}))
    folder = str(ROOT / "tests" / "assets" / "recording")
    recording = Recording.open(Path(folder))
    replay = start("replay", folder, "-c", str(config), "--speed", "0")
    code, out = replay.finish()
    assert code == 0, replay.log()
    replayed = json.loads(out)
    assert replayed["readings"] == recording.num_readings
    simulate = start(
        "simulate",
        "-c",
        str(config),
        *("--casts", "3", "--max-steps", "100", "--min-steps", "60"),
        *("--speed", "0"),
    )
    code, out = simulate.finish()
    assert code == 0, simulate.log()
    simulated = json.loads(out)
    code, out = start("status", "-c", str(config), "--json").finish()
    assert code == 0
    assert json.loads(out)["lag"] == replayed["records"] + simulated["records"]
    foreign = start(
        "replay", str(ROOT / "tests" / "assets" / "recording"), "-c", write(settings, tmp_path / "f.yaml")
    )
    assert foreign.finish() == (2, "")
    assert "data.sensors are speed, level; the recording" in foreign.log()
