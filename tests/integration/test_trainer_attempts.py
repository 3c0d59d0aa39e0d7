"""A cycle that fails in the same place each time ends; one that was ended from outside does not count it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from plants import DATA, SPEC, Plant, casts
from prometheus_client import generate_latest
from structlog.testing import capture_logs
from trainers import Clock, Life, Turns, life

from streamer.schema import Label
from streamer.store.reading import WindowReader
from streamer.store.requests import CycleRequests
from streamer.windows import Address
from trainer.config import TrainerSettings
from trainer.cycle import candidate, phases
from trainer.cycle.config import CycleConfig
from trainer.errors import ArtifactError, AttemptFailedError, NotEnoughDataError
from trainer.learn.report.training_metrics import EpochResult
from trainer.release import Artifact, Registry, read_artifact, write_artifact


@pytest.fixture
def config(config: TrainerSettings) -> TrainerSettings:
    cycle = CycleConfig(max_attempts=3, backoff_s=100, max_backoff_s=150)
    return config.model_copy(update={"cycle": cycle})


class Killed(BaseException):
    """What SIGKILL would do at this point: nothing below it runs any more."""


def exposed(trainer: Life) -> list[str]:
    return generate_latest(trainer.metrics.registry).decode().splitlines()


def break_scoring(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[int]:
    """Lets the candidate's scores fail; how often that was tried."""
    tried: list[int] = []

    def failing(*_: object, **__: object) -> object:
        tried.append(len(tried) + 1)
        raise error

    monkeypatch.setattr(candidate, "score_baselines", failing)
    return tried


class TestTheSameFaultEachTime:
    def test_ends_the_cycle_after_three_attempts_and_its_windows_are_tried_again_later(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant.write(casts(range(60)))
        clock = Clock()
        with life(plant, config, clock=clock) as trainer:
            with monkeypatch.context() as patch:
                tried = break_scoring(patch, RuntimeError("tensors of two minds"))
                trainer.daemon.run(Turns(6))
                assert tried == [1, 2, 3]
                cycle = trainer.journal.state.cycle
                assert cycle is not None
                assert (cycle.ending, cycle.phase) == ("failed", "frozen")
                assert "3 attempts failed: RuntimeError: tensors of two minds" in cycle.reasons[0]
                assert len(trainer.epochs) == 8  # the training went on from its end, not anew
                told = trainer.registry.events()
                assert [(event.kind, event.version) for event in told] == [("failed", None)]
                assert 'casting_trainer_failures_total{error="RuntimeError"} 3.0' in exposed(trainer)
                assert 'casting_trainer_cycles_total{decision="failed"} 1.0' in exposed(trainer)
                clock.move(99)
                trainer.daemon.run(Turns(2))
                assert tried == [1, 2, 3]
                clock.move(1)
                trainer.daemon.run(Turns(6))
                assert tried == [1, 2, 3, 4, 5, 6]
                since = [
                    line for line in exposed(trainer) if "due_since" in line and not line.startswith("#")
                ]
                assert float(since[0].split()[-1]) > 0
            clock.move(149)
            trainer.daemon.run(Turns(1))
            assert trainer.registry.last_version() == 0
            clock.move(1)  # twice the first wait, up to the most
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.version, result.windows) == (3, 1, 120)
            trainer.daemon.run(Turns(1))
            assert "casting_trainer_cycle_due_since_timestamp_seconds 0.0" in exposed(trainer)

    def test_counts_over_restarts_when_the_process_is_killed_without_a_word(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant.write(casts(range(60)))
        with monkeypatch.context() as patch:
            tried = break_scoring(patch, Killed())
            for _ in range(4):  # the first has left the checkpoints of a whole training behind
                with life(plant, config) as trainer, pytest.raises(Killed):
                    trainer.daemon.run_once()
            with life(plant, config) as trainer:
                assert trainer.daemon.run_once() is None
                assert tried == [1, 2, 3, 4]
                state = trainer.journal.state
                assert state.cycle is not None
                assert "killed, or out of memory" in state.cycle.reasons[0]
                assert trainer.daemon.run_once() is None  # it waits

    def test_is_forgiven_by_what_was_reached_since(self, plant: Plant, config: TrainerSettings) -> None:
        plant.write(casts(range(60)))

        def dies_at(number: int) -> Callable[[EpochResult], None]:
            def die(epoch: EpochResult) -> None:
                if epoch.epoch == number:
                    raise Killed

            return die

        for epoch in range(1, 8):
            with life(plant, config, on_epoch=dies_at(epoch)) as trainer, pytest.raises(Killed):
                trainer.daemon.run_once()
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.decision, result.epochs) == (1, "promoted", 8)

    def test_a_stop_is_no_attempt(self, plant: Plant, config: TrainerSettings) -> None:
        plant.write(casts(range(60)))
        for _ in range(5):
            with life(plant, config, should_stop=lambda: True) as trainer:
                trainer.daemon.run(Turns(1))
                assert trainer.journal.state.in_progress is not None
                assert trainer.journal.state.in_progress.attempts == 0
        with life(plant, config) as trainer:
            assert trainer.daemon.run_once() is not None

    def test_an_attempt_says_which_it_was_and_why(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant.write(casts(range(60)))
        with monkeypatch.context() as patch, life(plant, config) as trainer:
            break_scoring(patch, ArtifactError("no such layer"))
            with pytest.raises(AttemptFailedError, match=r"cycle 1, attempt 1 of 3 .* no such layer"):
                trainer.daemon.run_once()

    def test_a_version_that_cannot_be_decided_is_refused_with_the_reason(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*_: object) -> object:
            raise ArtifactError("it cannot score")

        plant.write(casts(range(60)))
        monkeypatch.setattr(phases, "judge", failing)
        with life(plant, config) as trainer:
            trainer.daemon.run(Turns(5))
            told = [(event.kind, event.version) for event in trainer.registry.events()]
            assert told == [("trained", 1), ("refused", 1), ("failed", None)]
            assert "it cannot score" in trainer.registry.events()[1].reasons[0]
            assert len(trainer.registry.models()) == 1  # not a version an attempt


def other_champion(registry: Registry, make: Callable[[Artifact], bytes]) -> None:
    """Puts another file in the place of the champion's."""
    version = registry.champion_version()
    assert version is not None
    for name in ("model.safetensors", "judged.safetensors"):
        path = registry.models()[-1].folder / name
        path.write_bytes(make(read_artifact(path.read_bytes())))


def lacking_a_key(champion: Artifact) -> bytes:
    architecture = {
        key: value for key, value in champion.manifest.architecture.items() if key != "linear_path"
    }
    return write_artifact(
        champion.tensors, champion.manifest.model_copy(update={"architecture": architecture})
    )


def of_other_names(champion: Artifact) -> bytes:
    tensors = {f"former.{name}": tensor for name, tensor in champion.tensors.items()}
    return write_artifact(tensors, champion.manifest)


def damaged(champion: Artifact) -> bytes:
    return write_artifact(champion.tensors, champion.manifest)[:-7]


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lacking_a_key, "its architecture does not say linear_path"),
        (of_other_names, "statistics.pairs: expected float64"),
        (damaged, "model.safetensors"),
    ],
)
def test_a_champion_that_cannot_score_is_told_and_the_challenger_judged_as_a_first_model(
    plant: Plant, config: TrainerSettings, make: Callable[[Artifact], bytes], fault: str
) -> None:
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        trainer.daemon.run_once()
        other_champion(trainer.registry, make)
        plant.write(casts(range(60, 120)))
        with capture_logs() as logs:
            result = trainer.daemon.run_once()
        assert result is not None
        assert (result.version, result.parent, result.decision) == (2, None, "promoted")
        assert fault in result.reasons[-1]
        assert "first model" in result.reasons[0]
        assert [line["event"] for line in logs].count("champion cannot score") == 1
        assert trainer.registry.champion_version() == 2


def test_a_champion_whose_judged_file_is_damaged_is_held_against_the_challenger_as_it_is_published(
    plant: Plant, config: TrainerSettings
) -> None:
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        trainer.daemon.run_once()
        path = trainer.registry.models()[-1].folder / "judged.safetensors"
        path.write_bytes(path.read_bytes()[:-7])
        plant.write(casts(range(60, 120)))
        with capture_logs() as logs:
            result = trainer.daemon.run_once()
    assert result is not None
    assert not any("first model" in reason for reason in result.reasons)
    assert [line["event"] for line in logs].count("the champion is judged as it is published") == 1


def test_what_the_gate_looked_at_says_its_own_threshold_and_weights(
    plant: Plant, config: TrainerSettings
) -> None:
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        trainer.daemon.run_once()
        folder = trainer.registry.models()[-1].folder
    for name in ("model.safetensors", "judged.safetensors"):
        artifact = read_artifact((folder / name).read_bytes())
        weights = {
            member: artifact.tensors[f"combination.{member}"][2] for member in artifact.manifest.members
        }
        assert weights == artifact.manifest.members
    judged, published = (
        read_artifact((folder / name).read_bytes()).manifest
        for name in ("judged.safetensors", "model.safetensors")
    )
    assert judged.threshold != published.threshold
    assert judged.scores == published.scores


class TestUndoingAMistake:
    def strict(self, config: TrainerSettings) -> TrainerSettings:
        gate = config.gate.model_copy(update={"min_first_lift": 0.99})
        return config.model_copy(update={"gate": gate})

    def test_a_gate_loosened_again_lets_the_same_windows_be_decided_anew(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        plant.write(casts(range(60)))
        with life(plant, self.strict(config)) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert result.decision == "refused"
            assert trainer.daemon.run_once() is None  # not again, as long as nothing has changed
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.version, result.decision, result.epochs) == (2, 2, "promoted", 8)
            assert trainer.daemon.run_once() is None

    def test_a_cycle_given_up_under_a_stricter_gate_is_decided_under_the_old_one(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object) -> object:
            raise Killed

        plant.write(casts(range(60)))
        with monkeypatch.context() as patch, life(plant, config) as trainer:
            patch.setattr(phases, "judge", die)
            with pytest.raises(Killed):
                trainer.daemon.run_once()
        more = config.gate.model_copy(update={"min_defective_casts": 8, "min_good_casts": 8})
        with life(plant, config.model_copy(update={"gate": more})) as trainer:
            trainer.daemon.run(Turns(3))
            assert trainer.registry.events()[-1].kind == "refused"
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.version, result.decision, result.epochs, result.windows) == (2, "promoted", 8, 120)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_killed_while_it_gives_up_the_windows_are_still_news(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        def die(*_: object, **__: object) -> object:
            raise Killed

        plant.write(casts(range(60)))
        with monkeypatch.context() as patch, life(plant, config) as trainer:
            patch.setattr(phases, "judge", die)
            with pytest.raises(Killed):
                trainer.daemon.run_once()
        more = config.gate.model_copy(update={"min_defective_casts": 8, "min_good_casts": 8})
        with monkeypatch.context() as patch, life(plant, config.model_copy(update={"gate": more})) as trainer:
            decide = Registry.decide

            def dying(*args: Any, **kwargs: Any) -> None:
                if when == "after":
                    decide(*args, **kwargs)
                raise Killed

            patch.setattr(Registry, "decide", dying)
            with pytest.raises(Killed):
                trainer.daemon.run(Turns(3))
        with life(plant, config) as trainer:
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.version, result.decision) == (2, "promoted")


def test_a_cycle_goes_on_under_the_trigger_that_it_was_begun_with(
    plant: Plant, config: TrainerSettings
) -> None:
    def die(epoch: EpochResult) -> None:
        raise Killed

    plant.write(casts(range(60)))
    with life(plant, config, on_epoch=die) as trainer, pytest.raises(Killed):
        trainer.daemon.run_cycle(plant.reader(), "manual")
    with life(plant, config) as trainer:
        result = trainer.daemon.run_once()
        assert result is not None
        assert result.trigger == "manual"


def test_after_a_restart_with_a_due_cycle_all_gauges_are_filled_before_it_begins(
    plant: Plant, config: TrainerSettings
) -> None:
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        trainer.daemon.run_once()
    plant.write(casts(range(60, 120)))
    with life(plant, config) as trainer:
        trainer.daemon.run(Turns(0))
        scores = trainer.registry.manifest(1).scores
        for line in (
            "casting_trainer_ready 1.0",
            "casting_model_version 1.0",
            f"casting_model_auc_pr {scores['auc_pr']}",
            f"casting_model_newest_auc_pr {scores['auc_pr']}",
        ):
            assert line in exposed(trainer)
        promoted_at = next(line for line in exposed(trainer) if line.startswith("casting_model_promoted"))
        assert float(promoted_at.split()[-1]) > 0


def test_the_champion_is_scored_on_the_newest_gate_windows_with_each_decision(
    plant: Plant, config: TrainerSettings
) -> None:
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        trainer.daemon.run_once()
        # From here on inspection calls the other half defective: the champion ranks the newest windows wrongly.
        plant.write([dataclasses.replace(cast, defect=None) for cast in casts(range(60, 120))])
        plant.label([Label(f"C{n:05d}", n % 2 == 1, inspected_at=2) for n in range(60, 120)])
    unreachable = config.gate.model_copy(update={"min_median": 1.0})
    with life(plant, config.model_copy(update={"gate": unreachable})) as trainer:
        result = trainer.daemon.run_once()
        assert result is not None
        assert result.champion_scores is not None
        assert result.decision == "refused"
        trainer.daemon.run(Turns(0))
        assert f"casting_model_newest_auc_pr {result.champion_scores['auc_pr']}" in exposed(trainer)
        at_promotion = trainer.registry.manifest(1).scores["auc_pr"]
        assert f"casting_model_auc_pr {at_promotion}" in exposed(trainer)
        assert result.champion_scores["auc_pr"] < at_promotion - 0.2


class TestNotStandingStill:
    """Ways in which a trainer that waits would wait for ever."""

    def test_labels_that_come_while_it_looks_are_looked_at_in_the_next_turn(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        plant.write(casts(range(50)))
        scarce = config.gate.model_copy(update={"min_defective_casts": 6, "min_good_casts": 6})
        more = iter([casts(range(50, 70))])

        class Late(WindowReader):
            def labelled(self) -> list[tuple[Address, bool]]:
                found = super().labelled()
                plant.write(next(more, []))
                return found

        def open_reader() -> WindowReader:
            return Late(plant.client, plant.keys, DATA, SPEC)

        with life(plant, config.model_copy(update={"gate": scarce}), open_reader=open_reader) as trainer:
            trainer.daemon.run(Turns(3))
            assert [event.kind for event in trainer.registry.events()] == ["trained", "promoted"]

    def test_a_cycle_that_failed_by_time_is_tried_again_after_its_back_off(
        self, plant: Plant, config: TrainerSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        plant.write(casts(range(45)))  # fewer than the trigger wants
        with life(plant, config, clock=clock) as trainer:
            clock.move(3_600)
            with monkeypatch.context() as patch:
                break_scoring(patch, RuntimeError("of the driver"))
                trainer.daemon.run(Turns(4))
                assert trainer.journal.state.failures == 1
            clock.move(100)
            result = trainer.daemon.run_once()
            assert result is not None
            assert (result.number, result.trigger) == (2, "interval")

    def test_time_spent_waiting_for_windows_is_not_due(self, plant: Plant, config: TrainerSettings) -> None:
        clock = Clock()
        plant.write(casts(range(10)))
        with life(plant, config, clock=clock) as trainer:
            clock.move(3_600)
            trainer.daemon.run(Turns(1))
            assert trainer.journal.state.in_progress is not None
            clock.move(3 * 86_400)
            plant.write(casts(range(10, 60)))
            result = trainer.daemon.run_once()
            assert result is not None
            assert result.seconds == 0.0  # by the clock of the test

    def test_a_champion_whose_file_is_missing_is_told_like_any_that_cannot_score(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        plant.write(casts(range(60)))
        with life(plant, config) as trainer:
            trainer.daemon.run_once()
            (trainer.registry.models()[0].folder / "model.safetensors").unlink()
            plant.write(casts(range(60, 120)))
            result = trainer.daemon.run_once()
            assert result is not None
            assert "model.safetensors: it is missing" in result.reasons[-1]
            assert trainer.registry.champion_version() == 2

    def test_a_request_is_answered_also_where_no_streamer_has_written_yet(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        def open_reader() -> WindowReader:
            raise NotEnoughDataError("namespace n is empty: start the streamer on it")

        with life(plant, config, open_reader=open_reader) as trainer:
            requests = CycleRequests(plant.client, plant.keys, config.registry.model_name)
            requests.ask("a")
            trainer.daemon.run(Turns(1))
            assert b"namespace n is empty" in (requests.take_answer("a") or b"")

    def test_a_version_of_a_former_life_is_not_taken_for_that_of_a_new_cycle(
        self, plant: Plant, config: TrainerSettings
    ) -> None:
        plant.write(casts(range(60)))
        with life(plant, config) as trainer:
            trainer.daemon.run_once()
        shutil.rmtree(config.registry.path / config.registry.model_name / "cycle")
        with life(plant, config) as trainer:
            trainer.daemon.run(Turns(1))
            assert trainer.registry.last_version() == 2
            assert len(trainer.epochs) == 8
