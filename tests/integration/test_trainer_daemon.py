"""The trainer's loop against a real Redis and a real broker: when it works, when it waits, what survives a kill."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from defect_models import ALONE
from plants import DATA, SPEC, Plant, casts
from prometheus_client import generate_latest
from trainers import MODEL, Clock, Life, Turns, life, settings

from streamer.config import KafkaConfig, RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.kafka import TopicReader, ensure_topics
from streamer.records import Record
from streamer.schema import Label
from streamer.store.reading import WindowReader
from streamer.windows import Address
from trainer.config import TrainerSettings
from trainer.cycle import candidate
from trainer.cycle.journal import CycleJournal
from trainer.cycle.members import Members
from trainer.errors import NotEnoughDataError
from trainer.learn.config import ModelSettings, OptimizerConfig
from trainer.learn.report.training_metrics import EpochResult
from trainer.release import (
    DatasetInfo,
    Manifest,
    ModelSubscriber,
    Publisher,
    Registry,
    release_topics,
    write_artifact,
)

PATIENCE_S = 20.0
QUIET_S = 0.3


def records(config: TrainerSettings, topic: str) -> list[Record]:
    found: list[Record] = []
    with TopicReader(config.kafka, topic) as reader:
        while batch := reader.poll(QUIET_S if found else PATIENCE_S):
            found += batch
    return found


def phase(trainer: Life) -> str | None:
    cycle = trainer.journal.state.cycle
    return cycle.phase if cycle else None


def decisions(registry: Registry) -> list[tuple[str, int]]:
    return [(event.kind, event.version) for event in registry.events()]


class TestTriggers:
    def test_enough_new_windows_start_a_cycle_and_the_same_ones_never_again(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        with life(plant, config) as trainer:
            plant.write(casts(range(49)))
            assert trainer.daemon.run_once() is None
            plant.write(casts(range(49, 60)))
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.trigger, result.windows) == (1, "new-windows", 120)
            assert trainer.daemon.run_once() is None

    def test_time_starts_one_when_at_least_one_window_is_new(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        clock = Clock()
        with life(plant, config, clock=clock) as trainer:
            plant.write(casts(range(60)))
            trainer.daemon.run_once()
            clock.move(3_600)
            assert trainer.daemon.run_once() is None
            plant.write(casts([60]))
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.trigger) == (2, "interval")

    def test_time_goes_on_while_the_trainer_is_down(self, plant: Plant, config: TrainerSettings) -> None:
        clock = Clock()
        with life(plant, config, clock=clock) as trainer:
            plant.write(casts(range(60)))
            trainer.daemon.run_once()
        plant.write(casts([60]))
        clock.move(3_599)
        with life(plant, config, clock=clock) as trainer:
            assert trainer.daemon.run_once() is None
            clock.move(1)
            assert trainer.daemon.run_once() is not None


class Counting(WindowReader):
    """Counts how often the data set was read."""

    num_reads = 0

    def labelled(self) -> list[tuple[Address, bool]]:
        Counting.num_reads += 1
        return super().labelled()


class TestNotEnough:
    def test_it_says_once_what_is_missing_and_reads_nothing_until_there_is_news(
        self, plant: Plant, config: TrainerSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def open_reader() -> WindowReader:
            return Counting(plant.client, plant.keys, DATA, SPEC)

        Counting.num_reads = 0
        plant.write([dataclasses.replace(cast, defect=False) for cast in casts(range(60))])
        with life(plant, config, open_reader=open_reader) as trainer:
            trainer.daemon.run(Turns(6))
            said = capsys.readouterr().out
            assert said.count("waiting") == 1
            assert "0 of 4 defective casts and 12 of 4 good casts; wait for 4 more defective casts" in said
            assert Counting.num_reads == 1
            assert trainer.health.why_not_ready() is None
            assert not list(plant.client.scan_iter(plant.keys.dataset("*")))
            plant.label([Label(f"C{n:05d}", True, inspected_at=2) for n in range(0, 60, 2)])
            trainer.daemon.run(Turns(2))
            assert decisions(trainer.registry)[0] == ("trained", 1)

    def test_another_shortage_is_said_again(
        self, plant: Plant, config: TrainerSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = [dataclasses.replace(cast, defect=False) for cast in casts(range(70))]
        plant.write(made[:60])
        with life(plant, config) as trainer:
            trainer.daemon.run(Turns(2))
            plant.write([dataclasses.replace(cast, defect=True) for cast in made[60:61]])
            trainer.daemon.run(Turns(2))
        said = capsys.readouterr().out
        assert "wait for 4 more defective casts" in said
        assert "wait for 3 more defective casts" in said
        assert said.count("waiting") == 2


class Killed(BaseException):
    """What SIGKILL would do at this point: nothing below it runs any more."""


def die_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, when: str, nth: int = 1) -> None:
    real: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1, 1_000))

    def dying(*args: object, **kwargs: object) -> object:
        if next(calls) < nth:
            return real(*args, **kwargs)
        if when == "after":
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, name, dying)


# The state is written when a cycle begins, with each attempt and at the end of each phase: eight times.
KILLS = [
    (CycleJournal, "write", "before", 1),
    *((CycleJournal, "write", "after", nth) for nth in range(1, 9)),
    (CycleJournal, "freeze", "before", 1),
    (CycleJournal, "freeze", "after", 1),
    (Registry, "register", "before", 1),
    (Registry, "register", "after", 1),
    (Registry, "decide", "before", 1),
    (Registry, "decide", "after", 1),
    (Publisher, "publish_model", "after", 1),
    (Registry, "confirm", "before", 1),
    (Registry, "confirm", "after", 1),
]


@pytest.fixture(scope="module")
def undisturbed(redis_url: str, kafka: KafkaConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the weights that a cycle without a kill trains."""
    redis = RedisConfig(url=redis_url, namespace=f"undisturbed-{tmp_path_factory.getbasetemp().name}")
    config = settings(redis, tmp_path_factory.mktemp("undisturbed"), kafka, redis.namespace)
    ensure_topics(kafka, release_topics(config.topics))
    plant = Plant(redis)
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        trainer.daemon.run_once()
        digest = trainer.registry.manifest(1).weights_sha256
    plant.close()
    return digest


class TestKills:
    def go_on(self, plant: Plant, config: TrainerSettings, weights: str) -> None:
        """The next life finishes the same cycle, once, with the same model, and publishes it."""
        with life(plant, config) as trainer:
            while trainer.daemon.run_once() is not None:
                pass
            assert decisions(trainer.registry) == [("trained", 1), ("promoted", 1)]
            assert (trainer.journal.state.last_number, trainer.journal.state.in_progress) == (1, None)
            assert phase(trainer) == "published"
            assert trainer.registry.manifest(1).weights_sha256 == weights
            assert trainer.registry.outbox() == []
            promoted = trainer.registry.events()[1]
        updates = records(config, config.topics.models)
        assert {dict(update.headers)["ce_id"] for update in updates} == {str(promoted.update_ce_id).encode()}
        with ModelSubscriber(config.kafka, config.topics.models) as models:
            update = models.poll(PATIENCE_S)
            assert update is not None
            assert update.version == 1
            assert models.poll(QUIET_S) is None
        told = [json.loads(record.value or b"") for record in records(config, config.topics.model_events)]
        assert list(dict.fromkeys(event["type"] for event in told)) == [
            "io.castloop.model.trained",
            "io.castloop.model.promoted",
        ]
        assert len({event["id"] for event in told}) == 2

    @pytest.mark.parametrize(
        ("owner", "name", "when", "nth"), KILLS, ids=[f"{when}-{name}-{nth}" for _, name, when, nth in KILLS]
    )
    def test_a_cycle_goes_on_where_it_was(
        self,
        plant: Plant,
        config: TrainerSettings,
        monkeypatch: pytest.MonkeyPatch,
        undisturbed: str,
        owner: type,
        name: str,
        when: str,
        nth: int,
    ) -> None:
        plant.write(casts(range(60)))
        with monkeypatch.context() as patch, life(plant, config) as trainer:
            die_at(patch, owner, name, when, nth)
            with pytest.raises(Killed):
                trainer.daemon.run_once()
        self.go_on(plant, config, undisturbed)

    def test_a_training_goes_on_after_its_last_whole_epoch(
        self, plant: Plant, config: TrainerSettings, undisturbed: str
    ) -> None:
        def die(epoch: EpochResult) -> None:
            if epoch.epoch == 3:
                raise Killed

        plant.write(casts(range(60)))
        with life(plant, config, on_epoch=die) as trainer, pytest.raises(Killed):
            trainer.daemon.run_once()
        # Inspection and plant go on meanwhile; the cycle goes on with what was frozen.
        plant.label([Label(f"C{n:05d}", n % 2 == 1, inspected_at=2) for n in range(60)])
        plant.write(casts(range(60, 70)))
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.windows, result.epochs) == (1, 120, 8)
            assert trainer.epochs[0][1].epoch == 4
            assert trainer.registry.manifest(1).weights_sha256 == undisturbed
            # What came meanwhile is the next cycle's.
            again = trainer.daemon.run_once()
            assert again is not None
            assert (again.number, again.windows) == (2, 140)

    def test_a_stop_in_training_keeps_the_cycle(
        self, plant: Plant, config: TrainerSettings, undisturbed: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plant.write(casts(range(60)))
        steps = iter(range(1_000))
        with life(plant, config, should_stop=lambda: next(steps) > 20) as trainer:
            trainer.daemon.run(Turns(1))
            assert decisions(trainer.registry) == []
            assert phase(trainer) == "frozen"
        assert "cycle 1 was stopped after" in capsys.readouterr().out
        self.go_on(plant, config, undisturbed)

    def test_a_stop_while_members_are_fitted_keeps_the_cycle(
        self,
        plant: Plant,
        config: TrainerSettings,
        undisturbed: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plant.write(casts(range(60)))
        fitted = []
        real = Members.fit
        with monkeypatch.context() as patch, life(plant, config, should_stop=lambda: bool(fitted)) as trainer:
            patch.setattr(Members, "fit", lambda self, network: fitted.append(network) or real(self, network))
            trainer.daemon.run(Turns(1))
            assert decisions(trainer.registry) == []
            assert phase(trainer) == "frozen"
        assert "cycle 1 was stopped while members were fitted" in capsys.readouterr().out
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert result.number == 1
            assert trainer.registry.manifest(1).weights_sha256 == undisturbed


class TestMidCycle:
    """What changes between the kill and the restart."""

    def killed_after(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        plant.write(casts(range(60)))
        with monkeypatch.context() as patch, life(plant, config) as trainer:
            die_at(patch, Registry, name, "after")
            with pytest.raises(Killed):
                trainer.daemon.run_once()

    def test_rows_that_are_gone_end_the_cycle_and_the_next_one_trains_anew(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.killed_after(plant, config, monkeypatch, "register")
        self.lose(plant, "C00000")
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.trigger, result.version) == ("new-windows", 2)
            assert decisions(trainer.registry) == [
                ("trained", 1),
                ("refused", 1),
                ("trained", 2),
                ("promoted", 2),
            ]
            assert "rows in Redis are not those" in trainer.registry.events()[1].reasons[0]
            assert trainer.registry.events()[1].details["cycle"] == 1

    def test_baselines_are_not_fitted_again_for_the_decision(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.killed_after(plant, config, monkeypatch, "register")
        die_at(monkeypatch, candidate, "score_baselines", "before")
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert set(result.baselines) == {"logistic_regression", "hist_gradient_boosting"}
            assert result.baseline_gap == trainer.registry.manifest(1).baseline_gap

    def test_a_decision_stands_even_if_its_rows_are_gone(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.killed_after(plant, config, monkeypatch, "decide")
        self.lose(plant, "C00000")
        with life(plant, config) as trainer:
            assert trainer.daemon.run_once() is None
            assert decisions(trainer.registry) == [("trained", 1), ("promoted", 1)]
            assert (trainer.registry.outbox(), phase(trainer)) == ([], "published")
            assert trainer.journal.state.last_number == 1

    def lose(self, plant: Plant, cast_id: str) -> None:
        """Takes a cast away as eviction would: its rows, its labels, its windows."""
        plant.label([Label(cast_id, None, inspected_at=9)])
        for key in plant.client.scan_iter(f"{plant.keys.cast(cast_id)}:rows:*"):
            plant.client.delete(key)

    def test_a_gate_made_stricter_ends_the_cycle_instead_of_the_trainer(
        self,
        plant: Plant,
        config: TrainerSettings,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.killed_after(plant, config, monkeypatch, "register")
        gate = config.gate.model_copy(update={"min_defective_casts": 8, "min_good_casts": 8})
        stricter = config.model_copy(update={"gate": gate})
        with life(plant, stricter) as trainer:
            trainer.daemon.run(Turns(4))
            assert decisions(trainer.registry) == [("trained", 1), ("refused", 1)]
            assert (trainer.journal.state.last_number, phase(trainer)) == (2, "waiting")
            plant.write(casts(range(60, 90)))
            assert trainer.daemon.run_once() is not None
        assert capsys.readouterr().out.count("wait for 2 more defective casts and 2 more good casts") == 1

    def test_shares_changed_meanwhile_do_not_move_the_parts(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.killed_after(plant, config, monkeypatch, "register")
        shares = config.dataset.model_copy(update={"train_share": 0.8, "validation_share": 0.15})
        with life(plant, config.model_copy(update={"dataset": shares})) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            # Three casts in the gate, as configured now, could decide nothing.
            assert (result.version, result.decision) == (1, "promoted")

    def test_another_model_configuration_starts_the_training_anew(
        self, plant: Plant, config: TrainerSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def die(epoch: EpochResult) -> None:
            if epoch.epoch == 3:
                raise Killed

        plant.write(casts(range(60)))
        with life(plant, config, on_epoch=die) as trainer, pytest.raises(Killed):
            trainer.daemon.run_once()
        wider = MODEL.architecture.model_copy(update={"hidden_size": 12})
        with life(plant, config, MODEL.model_copy(update={"architecture": wider})) as trainer:
            trainer.daemon.run(Turns(2))
            assert decisions(trainer.registry) == [("trained", 1), ("promoted", 1)]
            assert trainer.epochs[0][1].epoch == 1
        assert "architecture.hidden_size: 8 in the file, 12 now" in capsys.readouterr().out


class TestFailures:
    def diverging(self) -> ModelSettings:
        # Adam divides by the root of a squared gradient: nothing is left of eps where the gradient is zero.
        optimizer = OptimizerConfig(learning_rate=1.0, eps=1e-300, weight_decay=0)
        return MODEL.model_copy(update={"optimizer": optimizer})

    def test_a_training_that_diverges_fails_its_cycle_and_the_champion_stays(
        self, plant: Plant, config: TrainerSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = casts(range(130))
        for cast in made:
            cast.x_TF[:, 1] = 1.2  # a dead sensor: its weights never get a gradient
        plant.write(made[:60])
        with life(plant, config) as trainer:
            trainer.daemon.run_once()
        plant.write(made[60:120])
        with life(plant, config, self.diverging()) as trainer:
            trainer.daemon.run(Turns(4))
            assert decisions(trainer.registry) == [("trained", 1), ("promoted", 1), ("failed", None)]
            assert trainer.registry.champion_version() == 1
            assert trainer.journal.state.last_number == 2
            for line in (
                'failures_total{error="TrainingDivergedError"} 1.0',
                'cycles_total{decision="failed"} 1.0',
            ):
                assert line in exposed(trainer)
            told = [json.loads(record.value or b"") for record in records(config, config.topics.model_events)]
            assert (told[-1]["type"], told[-1]["data"]["details"]["cycle"]) == ("io.castloop.model.failed", 2)
            assert "lower the learning rate" in told[-1]["data"]["reasons"][0]
        assert capsys.readouterr().out.count("cycle failed") == 1
        with life(plant, config) as trainer:  # mended: its windows are still news, and nothing is waited for
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.version, result.windows) == (3, 2, 240)

    def test_an_outage_of_redis_is_said_once_and_the_next_one_again(
        self, config: TrainerSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with EmbeddedRedis() as server:
            redis = RedisConfig(url=server.url, namespace="outage", timeout_s=1)
            plant = Plant(redis)
            ready: list[str | None] = []

            def run(trainer: Life) -> None:
                note = {turn: lambda: ready.append(trainer.health.why_not_ready()) for turn in (4, 7)}
                plan = {2: server.kill, 5: server.start, 8: server.kill, **note}
                trainer.daemon.run(Turns(10, plan))

            with life(plant, config.model_copy(update={"redis": redis})) as trainer:
                run(trainer)
            plant.close()
        said = capsys.readouterr().out
        assert said.count("waiting") == 2
        assert said.count("recovered") == 1
        assert "Redis" in str(ready[0])
        assert ready[1] is None


def test_each_promoted_version_reaches_a_subscriber_once_and_the_metrics(
    plant: Plant, config: TrainerSettings
) -> None:
    with (
        ModelSubscriber(config.kafka, config.topics.models) as models,
        life(plant, config) as trainer,
    ):
        assert models.poll(QUIET_S) is None
        seen = []
        for begin in (0, 60):
            plant.write(casts(range(begin, begin + 60)))
            trainer.daemon.run(Turns(2))
            update = models.poll(PATIENCE_S)
            assert update is not None
            seen.append((update.version, update.manifest.parent))
        assert models.poll(QUIET_S) is None
        assert seen == [(1, None), (2, 1)]
        text = generate_latest(trainer.metrics.registry).decode()
        scores = trainer.registry.manifest(2).scores
        for line in (
            "casting_model_version 2.0",
            f"casting_model_auc_roc {scores['auc_roc']}",
            f"casting_model_auc_pr {scores['auc_pr']}",
            f"casting_model_baseline_gap {trainer.registry.manifest(2).baseline_gap}",
            'casting_trainer_cycles_total{decision="promoted"} 2.0',
            "casting_trainer_new_labelled_windows 0.0",
            "casting_trainer_unpublished_events 0.0",
            "casting_trainer_cycle_in_progress 0.0",
            "casting_trainer_ready 1.0",
        ):
            assert line in text.splitlines()
        # A new process shows the champion before it has run a cycle.
    with life(plant, config, untrained()) as trainer:
        trainer.daemon.run(Turns(1))
        assert shown(trainer) == "casting_model_version 2.0"
        plant.write(casts(range(120, 180)))
        trainer.daemon.run(Turns(1))
        assert trainer.registry.events()[-1].kind == "refused"
        assert shown(trainer) == "casting_model_version 2.0"


@pytest.mark.parametrize(
    ("gap", "metric", "warnings"), [(-0.25, "-0.25", 1), (0.125, "0.125", 0), (None, "NaN", 0)]
)
def test_a_new_process_shows_and_tells_how_far_the_champion_is_ahead(
    plant: Plant,
    config: TrainerSettings,
    capsys: pytest.CaptureFixture[str],
    gap: float | None,
    metric: str,
    warnings: int,
) -> None:
    better = {"hist_gradient_boosting": {"auc_roc": 0.75, "auc_pr": 0.8, "f1": 0.7}}
    manifest = Manifest(
        model_name=config.registry.model_name,
        version=1,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture={},
        sensors=DATA.sensors,
        period_ms=1000,
        window=SPEC,
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
        scores={"auc_roc": 0.75 + (gap or 0), "auc_pr": 0.5},
        baselines={} if gap is None else better,
    )
    with Registry(config.registry) as registry:
        registry.register(write_artifact({"w": np.zeros(2, np.float32)}, manifest))
        registry.promote(1)
    with life(plant, config) as trainer:
        trainer.daemon.run(Turns(3))
        assert (
            f"casting_model_baseline_gap {metric}"
            in generate_latest(trainer.metrics.registry).decode().splitlines()
        )
    said = capsys.readouterr().out
    assert said.count("baseline_gap=") == warnings
    assert said.count("hist_gradient_boosting") == warnings


def test_a_champion_without_scores_shows_none_and_stops_nothing(
    plant: Plant, config: TrainerSettings
) -> None:
    manifest = Manifest(
        model_name=config.registry.model_name,
        version=1,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture={},
        sensors=DATA.sensors,
        period_ms=1000,
        window=SPEC,
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
        baselines={"hist_gradient_boosting": {"auc_roc": 0.75}},
    )
    with Registry(config.registry) as registry:
        registry.register(write_artifact({"w": np.zeros(2, np.float32)}, manifest))
        registry.promote(1)
    with life(plant, config) as trainer:
        trainer.daemon.run(Turns(2))
        lines = generate_latest(trainer.metrics.registry).decode().splitlines()
    assert {f"casting_model_{name} NaN" for name in ("auc_roc", "auc_pr", "baseline_gap")} <= set(lines)
    assert "casting_model_version 1.0" in lines


def exposed(trainer: Life) -> str:
    return generate_latest(trainer.metrics.registry).decode()


def shown(trainer: Life) -> str:
    text = generate_latest(trainer.metrics.registry).decode()
    return next(line for line in text.splitlines() if line.startswith("casting_model_version "))


def untrained() -> ModelSettings:
    """A model that starts from scratch and stays there."""
    changes = {
        "architecture": {"hidden_size": 12, **ALONE},
        "training": {"max_epochs": 1},
        "optimizer": {"learning_rate": 1e-6},
    }
    return MODEL.model_copy(
        update={name: getattr(MODEL, name).model_copy(update=change) for name, change in changes.items()}
    )


def test_a_namespace_that_no_streamer_has_written_is_waited_for(
    plant: Plant, config: TrainerSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_reader() -> WindowReader:
        raise NotEnoughDataError("namespace n is empty: start the streamer on it")

    with life(plant, config, open_reader=open_reader) as trainer:
        trainer.daemon.run(Turns(5))
    assert capsys.readouterr().out.count("namespace n is empty") == 1
