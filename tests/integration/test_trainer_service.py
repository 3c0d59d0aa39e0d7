"""The trainer as processes: its commands, its signals, its exit codes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from plants import Plant, casts
from trainers import MODEL, Process, settings

from streamer.config import KafkaConfig, RedisConfig
from streamer.embedded import EmbeddedBroker, free_port
from streamer.process import StopRequest
from trainer.app import run_cycle_once
from trainer.config import TrainerSettings
from trainer.cycle.journal import CycleJournal
from trainer.errors import NotEnoughDataError
from trainer.learn.config import EarlyStoppingConfig, ModelSettings
from trainer.release import ModelSubscriber, Registry

PATIENCE_S = 60.0
# Of any file: the state of a cycle and the log fit, a training does not.
ROOM_BYTES = 60_000
MAIN = "from trainer.cli import main; main()"

Start = Callable[..., Process]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CASTING_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def write_config(folder: Path, config: TrainerSettings, model: ModelSettings = MODEL) -> None:
    for name, part in (("trainer.yaml", config), ("model_config.yaml", model)):
        (folder / name).write_text(yaml.safe_dump(part.model_dump(mode="json")))


def trained_for(max_epochs: int) -> ModelSettings:
    training = MODEL.training.model_copy(update={"max_epochs": max_epochs})
    stopping = EarlyStoppingConfig(patience=10_000)
    return MODEL.model_copy(update={"training": training, "early_stopping": stopping})


@pytest.fixture
def config(config: TrainerSettings, tmp_path: Path) -> TrainerSettings:
    write_config(tmp_path, config)
    return config


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def make(command: str, **options: bool) -> Process:
        started.append(Process(tmp_path, command, **options))
        return started[-1]

    yield make
    for process in started:
        process.close()


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_stopped_and_killed_in_training_and_after_it_one_cycle_gives_one_version(
    plant: Plant, config: TrainerSettings, tmp_path: Path, start: Start
) -> None:
    plant.write(casts(range(60)))
    write_config(tmp_path, config, trained_for(100_000))
    stopped = start("run")
    stopped.wait_for("epoch", epoch=3)
    asked_at = time.monotonic()
    assert stopped.end(signal.SIGTERM) == 143
    assert time.monotonic() - asked_at < 5
    assert stopped.count("stopped in training") == 1

    killed = start("run")
    killed.wait_for("going on", cycle=1)
    first = killed.wait_for("epoch")
    assert first["epoch"] > 3
    killed.wait_for("epoch", epoch=first["epoch"] + 2)
    assert killed.end(signal.SIGKILL) == -9

    write_config(tmp_path, config, trained_for(first["epoch"]))  # enough: what is left is the decision
    assert start("run", dies_after_register=True).end() == -9
    registry = Registry(config.registry)
    assert [(event.kind, event.version) for event in registry.events()] == [("trained", 1)]

    last = start("run")
    last.wait_for("going on", cycle=1)
    last.wait_for("published", what="promoted", version=1)
    assert last.count("epoch") == 0
    port = last.wait_for("http")["port"]
    while "casting_model_version 1.0" not in (metrics := get(port, "metrics")):
        time.sleep(0.05)
    assert f"casting_model_auc_pr {registry.manifest(1).scores['auc_pr']}" in metrics
    assert (get(port, "livez"), get(port, "readyz")) == ("ok\n", "ok\n")

    # A cycle that is wanted now is asked of the trainer that runs.
    once = start("once")
    assert once.end() == 0, once.text()
    assert once.count("a trainer runs already: it is asked for the cycle") == 1
    last.wait_for("cycle begins", cycle=2, trigger="manual")
    decided = registry.events()[-1]
    shown = [line.split()[-1] for line in once.text().splitlines() if line.split()[:1] == ["decision"]]
    assert shown == [decided.kind]

    assert last.end(signal.SIGTERM) == 143
    assert [(event.kind, event.version) for event in registry.events()][:2] == [
        ("trained", 1),
        ("promoted", 1),
    ]
    state = CycleJournal(registry.folder).state
    assert (state.last_number, state.in_progress) == (2, None)


def test_once_models_and_watch_tell_of_the_same_model(
    plant: Plant, config: TrainerSettings, tmp_path: Path
) -> None:
    def trainer(*arguments: str) -> str:
        command = [sys.executable, "-c", MAIN, *arguments, "-c", str(tmp_path / "trainer.yaml")]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    plant.write(casts(range(60)))
    once = json.loads(trainer("once", "--json"))
    assert (once["number"], once["trigger"], once["version"], once["decision"]) == (
        1,
        "manual",
        1,
        "promoted",
    )
    assert (once["windows"], once["defects"], once["epochs"]) == (120, 60, 8)
    (model,) = json.loads(trainer("models", "--json"))
    assert (model["version"], model["state"], model["champion"]) == (1, "promoted", True)
    assert (model["auc_pr"], model["reasons"]) == (once["scores"]["auc_pr"], once["reasons"])
    update = json.loads(trainer("watch", "--json", "--count", "1"))
    assert (update["version"], update["model"], update["auc_pr"]) == (1, "defect-lstm", model["auc_pr"])
    assert (model["baselines"], model["baseline_gap"]) == (once["baselines"], once["baseline_gap"])
    assert set(model["baselines"]) == {"logistic_regression", "hist_gradient_boosting"}
    assert update["baseline_gap"] == model["baseline_gap"]
    assert trainer("models").splitlines()[1].split()[7] == f"{model['baseline_gap']:+.3f}"
    assert trainer("models").splitlines()[1].split()[:5] == ["1", "-", "champion", "120", "60"]


def test_a_broker_that_is_away_is_said_once_and_gets_the_decision_with_the_same_id_later(
    plant: Plant, redis: RedisConfig, tmp_path: Path, start: Start
) -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaConfig(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1_000)
        config = settings(redis, tmp_path / "registry", kafka)
        write_config(tmp_path, config)
        alone = start("run")
        alone.wait_for("watching")
        broker.kill()
        plant.write(casts(range(60)))
        alone.wait_for("promoted", version=1)
        port = alone.wait_for("http")["port"]
        said = alone.wait_for("waiting")
        assert broker.bootstrap_servers in said["error"]
        while "casting_trainer_unpublished_events 2.0" not in get(port, "metrics"):
            time.sleep(0.05)
        time.sleep(4)  # long enough for a second try to fail
        assert alone.count("waiting") == 1
        assert alone.end(signal.SIGTERM) == 143
        registry = Registry(config.registry)
        waiting = registry.outbox()
        assert [event.kind for event in waiting] == ["trained", "promoted"]
        broker.start()
        start("run").wait_for("published", what="promoted", version=1)
        assert registry.outbox() == []
        with ModelSubscriber(kafka, config.topics.models) as models:
            update = models.poll(PATIENCE_S)
        assert update is not None
        assert (update.version, update.ce_id) == (1, waiting[1].update_ce_id)


@pytest.mark.parametrize("missing", ["kafka", "redis"])
def test_a_server_that_is_not_there_is_waited_for_and_said_once(
    config: TrainerSettings, tmp_path: Path, start: Start, missing: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    gone = {
        "kafka": {"kafka": KafkaConfig(bootstrap_servers=address, request_timeout_ms=1_000)},
        "redis": {"redis": config.redis.model_copy(update={"url": f"redis://{address}/0"})},
    }
    write_config(tmp_path, config.model_copy(update=gone[missing]))
    trainer = start("run")
    said = trainer.wait_for("waiting")
    assert missing in said["error"].lower()
    assert address.rpartition(":")[2] in said["error"]
    port = trainer.wait_for("http")["port"]
    assert get(port, "livez") == "ok\n"
    if missing == "kafka":  # training goes on without it
        trainer.wait_for("watching")
        assert get(port, "readyz") == "ok\n"
    else:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(port, "readyz")
    time.sleep(1)
    assert (
        sum(missing in line["error"].lower() for line in trainer.lines() if line["event"] == "waiting") == 1
    )
    assert trainer.end(signal.SIGTERM) == 143


def test_a_disk_that_takes_no_more_is_waited_for_and_nothing_is_trained_meanwhile(
    plant: Plant, config: TrainerSettings, start: Start
) -> None:
    trainer = start("run")
    port = trainer.wait_for("http")["port"]
    trainer.wait_for("watching")
    unlimited = resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, unlimited[1]))
    plant.write(casts(range(60)))
    said = trainer.wait_for("waiting", server="disk")
    assert "File too large" in said["error"]
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(port, "readyz")
    while "casting_trainer_write_failures_total 0.0" in (metrics := get(port, "metrics")):
        time.sleep(0.05)
    assert "casting_trainer_ready 0.0" in metrics
    time.sleep(1)  # long enough for more turns
    assert (trainer.count("training"), trainer.count("epoch"), trainer.count("waiting")) == (0, 0, 1)
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, unlimited)
    trainer.wait_for("promoted", version=1)
    trainer.wait_for("recovered", server="disk")
    assert trainer.count("epoch") == 8
    assert trainer.end(signal.SIGTERM) == 143


def test_an_empty_namespace_says_what_to_do(config: TrainerSettings, start: Start) -> None:
    once = start("once")
    assert once.end() == 1
    assert f"error: namespace {config.redis.namespace} is empty: start the streamer on it" in once.text()


@pytest.mark.parametrize(
    ("defects", "number", "message"),
    [
        ((), 0, "no window is labelled yet"),
        ((), 2, "2 groups of casts cannot be split into train, validation and gate; wait for 3"),
        ((), 60, "0 of 4 defective casts .* wait for 4 more defective casts"),
        (range(60), 60, "0 of 4 good casts; wait for 4 more good casts"),
        ((57, 58), 60, "2 of 4 defective casts .* wait for 2 more defective casts"),
    ],
)
def test_windows_that_do_not_suffice_name_what_is_missing(
    plant: Plant, config: TrainerSettings, defects: range, number: int, message: str
) -> None:
    plant.write([replace(cast, defect=n in defects) for n, cast in enumerate(casts(range(number)))])
    with pytest.raises(NotEnoughDataError, match=message):
        run_cycle_once(config, MODEL, StopRequest())
    assert Registry(config.registry).events() == []


def test_windows_of_another_name_are_named(plant: Plant, config: TrainerSettings) -> None:
    plant.write(casts(range(3)))
    dataset = config.dataset.model_copy(update={"windows": "short"})
    with pytest.raises(
        NotEnoughDataError, match=r"has no windows short: .* mend redis.namespace and dataset"
    ):
        run_cycle_once(config.model_copy(update={"dataset": dataset}), MODEL, StopRequest())
