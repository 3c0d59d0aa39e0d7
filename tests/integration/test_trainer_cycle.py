"""One cycle with a real training: what is let through, what it starts from, what it is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from defect_models import ALONE
from plants import DATA, Plant, casts
from prometheus_client import generate_latest
from structlog.testing import capture_logs
from trainers import MODEL, Life, Turns, life

from streamer.config import RedisConfig, SensorConfig, WindowsConfig
from streamer.errors import ConfigError
from streamer.schema import Label
from trainer.config import TrainerSettings
from trainer.cycle.result import CycleResult
from trainer.data.config import DatasetConfig
from trainer.errors import InputsChangedError, NotEnoughDataError
from trainer.learn.config import EarlyStoppingConfig, ModelSettings
from trainer.learn.model.network import build_model
from trainer.release.publish.events import model_event


def cycle(trainer: Life, plant: Plant) -> CycleResult:
    result = trainer.daemon.run_cycle(plant.reader(), "manual")
    assert result is not None
    return result


def test_the_first_model_that_beats_the_base_rate_is_promoted(plant: Plant, config: TrainerSettings) -> None:
    plant.write(casts(range(60)))
    curves = Path(config.registry.path).parent / "curves"
    config = config.model_copy(update={"model": config.model.model_copy(update={"tensorboard_dir": curves})})
    with life(plant, config) as trainer:
        result = cycle(trainer, plant)
        assert (result.decision, result.version, result.parent) == ("promoted", 1, None)
        assert (result.windows, result.defects, result.champion_scores) == (120, 60, None)
        assert result.scores["auc_pr"] > 0.9
        assert "first model" in result.reasons[0]
        artifact = trainer.registry.champion()
        assert artifact is not None
        manifest = artifact.manifest
        assert (manifest.sensors, manifest.window, manifest.period_ms) == (DATA.sensors, plant.spec, 1000)
        # The whole data set, of which the gate's windows gave the scores.
        assert (manifest.dataset.num_windows, manifest.scores["num_windows"]) == (120, 24)
        assert_beside_baselines(trainer, result)
        folder = trainer.registry.models()[0].folder
        assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + result.epochs
        assert manifest.dataset.id in (folder / "dataset.json").read_text()
        assert list((curves / config.registry.model_name / "cycle-00001").glob("events.*"))
        assert plant.client.exists(plant.keys.dataset(manifest.dataset.id))


def assert_beside_baselines(trainer: Life, result: CycleResult) -> None:
    """Result, manifest and event tell the same of the baselines."""
    assert set(result.baselines) == {"logistic_regression", "hist_gradient_boosting"}
    for scores in result.baselines.values():
        assert set(scores) == {"auc_roc", "auc_pr", "f1"}
    better = max(scores["auc_roc"] for scores in result.baselines.values())
    assert result.baseline_gap == result.scores["auc_roc"] - better
    manifest = trainer.registry.manifest(result.version)
    assert (manifest.baselines, manifest.baseline_gap) == (result.baselines, result.baseline_gap)
    event = trainer.registry.events()[-1]
    assert (event.details["baselines"], event.details["baseline_gap"]) == (
        result.baselines,
        result.baseline_gap,
    )
    told = model_event(event, manifest.model_name, manifest, source="castloop").data
    assert isinstance(told, dict)
    assert (told["baselines"], told["baseline_gap"]) == (result.baselines, result.baseline_gap)


def test_baselines_are_fitted_to_all_but_the_gate_part_and_a_model_behind_them_is_told(
    plant: Plant, config: TrainerSettings
) -> None:
    untrained = MODEL.model_copy(
        update={
            "architecture": MODEL.architecture.model_copy(update=ALONE),
            "training": MODEL.training.model_copy(update={"max_epochs": 1}),
            "optimizer": MODEL.optimizer.model_copy(update={"learning_rate": 1e-6}),
        }
    )
    plant.write(casts(range(60)))
    with life(plant, config, untrained) as trainer, capture_logs() as logs:
        first = cycle(trainer, plant)
        assert_beside_baselines(trainer, first)
        # The gate's casts are all told apart wrongly by now: a baseline fitted on them would not be.
        plant.label([Label(f"C{n:05d}", n % 2 == 1, inspected_at=2) for n in range(48, 60)])
        second = cycle(trainer, plant)
    assert first.baselines["logistic_regression"]["auc_roc"] > 0.95
    assert second.baselines["logistic_regression"]["auc_roc"] < 0.05
    assert first.baseline_gap is not None
    assert first.baseline_gap < -0.01
    said = [line for line in logs if line["event"] == "behind a baseline"]
    assert (said[0]["version"], said[0]["decision"], said[0]["log_level"]) == (1, first.decision, "warning")
    assert said[0]["baseline_gap"] == round(first.baseline_gap, 4)
    assert said[0]["baseline"] in first.baselines


def test_a_model_of_whole_casts_is_trained_and_goes_on_from_its_champion(
    redis: RedisConfig, config: TrainerSettings
) -> None:
    plant = Plant(redis, spec=WindowsConfig(size_steps="cast"))
    plant.write([cast for number in range(60) for cast in casts([number], num_steps=30 + number % 11)])
    with life(plant, config) as trainer:
        assert (first := cycle(trainer, plant)).decision == "promoted"
        assert (first.windows, first.parent) == (60, None)
        # Longer casts than the champion has seen are no other inputs.
        plant.write(casts(range(60, 70), num_steps=55))
        second = cycle(trainer, plant)
        assert (second.windows, second.parent) == (70, 1)
        assert second.champion_scores is not None
    plant.close()


def shuffle(plant: Plant, num_casts: int, seed: int, inspected_at: int) -> None:
    """Deals the verdicts of the first casts out anew."""
    verdicts = np.random.default_rng(seed).permutation([number % 2 == 0 for number in range(num_casts)])
    plant.label([Label(f"C{n:05d}", bool(verdict), inspected_at) for n, verdict in enumerate(verdicts)])


def test_a_challenger_trained_on_shuffled_labels_is_refused_and_the_champion_stays(
    plant: Plant, config: TrainerSettings
) -> None:
    # Verdicts of training and validation mean nothing from here on; those of the newest casts still do.
    # Patient, so that the challenger forgets what it had from the champion.
    patient = MODEL.model_copy(
        update={
            "training": MODEL.training.model_copy(update={"max_epochs": 15}),
            "early_stopping": EarlyStoppingConfig(monitor="val_loss", patience=15),
        }
    )
    plant.write(casts(range(120)))
    with life(plant, config, patient) as trainer:
        assert cycle(trainer, plant).decision == "promoted"
        plant.write(casts(range(120, 150)))
        for seed in range(3):
            shuffle(plant, 120, seed, inspected_at=2 + seed)
            result = cycle(trainer, plant)
            assert (result.decision, result.version, result.parent) == ("refused", 2 + seed, 1)
            assert result.champion_scores is not None
            assert result.champion_scores["auc_pr"] > result.scores["auc_pr"]
            assert trainer.registry.champion_version() == 1
            event = trainer.registry.events()[-1]
            assert (event.kind, event.update_ce_id) == ("refused", None)
            assert any("below" in reason for reason in event.reasons)


def test_a_cycle_that_waits_for_windows_goes_by_a_configuration_that_was_changed_meanwhile(
    plant: Plant, config: TrainerSettings
) -> None:
    plant.write(casts(range(60)))
    few_windows = config.model_copy(update={"dataset": DatasetConfig(max_windows=12)})
    with life(plant, few_windows) as trainer, pytest.raises(NotEnoughDataError):
        trainer.daemon.run_once()
    with life(plant, config) as trainer:
        result = trainer.daemon.run_once()
        assert result is not None
        assert result.scores["num_windows"] == 24
        ended = trainer.journal.state.cycle
        assert ended is not None
        assert (ended.config, ended.configuration) == (config.dataset, trainer.runner.configuration)


def test_a_first_model_trained_on_shuffled_labels_is_refused(plant: Plant, config: TrainerSettings) -> None:
    plant.write(casts(range(240)))
    with life(plant, config) as trainer:
        for seed in range(3):
            shuffle(plant, 240, seed, inspected_at=2 + seed)
            result = cycle(trainer, plant)
            assert (result.decision, result.parent) == ("refused", None)
            assert "not above 0.100" in result.reasons[0]
        assert trainer.registry.champion() is None


def test_fine_tuning_starts_from_the_champion(plant: Plant, config: TrainerSettings) -> None:
    standing = MODEL.model_copy(
        update={
            "training": MODEL.training.model_copy(update={"max_epochs": 1}),
            "optimizer": MODEL.optimizer.model_copy(update={"learning_rate": 1e-6}),
        }
    )
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        cycle(trainer, plant)
        champion = trainer.registry.champion()
        assert champion is not None
        last = min(epoch.val_loss for _, epoch in trainer.epochs)
    with life(plant, config, standing) as trainer:
        result = cycle(trainer, plant)
        assert (result.parent, result.epochs) == (1, 1)
        assert trainer.epochs[0][1].val_loss == pytest.approx(last, abs=1e-3)
        challenger = trainer.registry.artifact(2)
    for name, tensor in champion.tensors.items():
        if name.startswith("lstm."):
            np.testing.assert_allclose(challenger.tensors[name], tensor, atol=1e-4)
    scratch = build_model(MODEL.architecture, 2, MODEL.training.seed).lstm[0].weight_ih_l0.detach().numpy()
    assert np.abs(champion.tensors["lstm.lstm.0.weight_ih_l0"] - scratch).max() > 1e-2


def test_another_architecture_starts_from_scratch_and_is_held_against_the_champion(
    plant: Plant, config: TrainerSettings
) -> None:
    wider = MODEL.architecture.model_copy(update={"hidden_size": 12, **ALONE})
    untrained = MODEL.model_copy(
        update={
            "architecture": wider,
            "training": MODEL.training.model_copy(update={"max_epochs": 1}),
            "optimizer": MODEL.optimizer.model_copy(update={"learning_rate": 1e-6}),
        }
    )
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        cycle(trainer, plant)
    with life(plant, config, untrained) as trainer:
        result = cycle(trainer, plant)
        assert (result.parent, result.decision) == (None, "refused")
        assert result.champion_scores is not None
        assert trainer.registry.champion_version() == 1
        trained = [event.details["members"] for event in trainer.registry.events() if event.kind == "trained"]
    assert set(trained[0]) == {"lstm", "linear", "trees"}
    assert trained[1] == {"lstm": 1.0}


def test_a_model_too_large_for_one_record_is_refused_before_the_training(
    plant: Plant, config: TrainerSettings
) -> None:
    large = MODEL.architecture.model_copy(update={"hidden_size": 512, "num_layers": 4})
    plant.write(casts(range(60)))
    with (
        life(plant, config, MODEL.model_copy(update={"architecture": large})) as trainer,
        pytest.raises(ConfigError, match=r"does not fit into a model file.*smaller: hidden_size"),
    ):
        cycle(trainer, plant)


def test_a_sensor_never_seen_is_named_and_the_model_does_without(
    plant: Plant, config: TrainerSettings
) -> None:
    silent = casts(range(60))
    for cast in silent:
        cast.x_TF[:, 1] = np.nan
    plant.write(silent)
    with life(plant, config) as trainer, capture_logs() as logs:
        result = cycle(trainer, plant)
    assert [line["sensors"] for line in logs if line["event"] == "sensors never seen"] == [["casting_speed"]]
    assert result.decision == "promoted"


def test_windows_of_other_inputs_are_trained_on_only_where_somebody_has_agreed(
    plant: Plant, config: TrainerSettings, redis: RedisConfig
) -> None:
    plant.write(casts(range(60)))
    with life(plant, config) as trainer:
        cycle(trainer, plant)
    more = DATA.model_copy(update={"sensors": (*DATA.sensors, SensorConfig(name="superheat", unit="degC"))})
    other = redis.model_copy(update={"namespace": f"{redis.namespace}-more"})
    renewed = Plant(other, more)
    renewed.write(casts(range(60), num_sensors=3))
    config = config.model_copy(update={"redis": other})
    with life(renewed, config) as trainer:
        with pytest.raises(InputsChangedError, match=r"superheat degC.*registry.accept_new_inputs"):
            cycle(trainer, renewed)
        with pytest.raises(InputsChangedError):
            trainer.daemon.run_once()
        trainer.daemon.run(Turns(3))
        assert "superheat" in str(trainer.health.why_not_ready())
        assert 'failures_total{error="InputsChangedError"} 1.0' in exposed(trainer)
        assert trainer.epochs == []
        assert trainer.registry.last_version() == 1
    agreed = config.registry.model_copy(update={"accept_new_inputs": True})
    with life(renewed, config.model_copy(update={"registry": agreed})) as trainer:
        result = cycle(trainer, renewed)
        assert (result.version, result.parent, result.champion_scores) == (2, None, None)
        assert result.decision == "promoted"
        assert "the champion could not score: version 1 has other inputs" in result.reasons[-1]
        assert trainer.registry.champion_version() == 2
    renewed.close()


def exposed(trainer: Life) -> str:
    return generate_latest(trainer.metrics.registry).decode()


@pytest.mark.parametrize("monitor", ["val_loss", "val_auc_pr"])
def test_the_threshold_is_chosen_on_validation_and_the_scores_on_the_gate(
    plant: Plant, config: TrainerSettings, monitor: str
) -> None:
    # The gate's casts are all told apart wrongly: a threshold or an epoch chosen on them would look better.
    model = ModelSettings.model_validate(
        MODEL.model_dump() | {"early_stopping": {"monitor": monitor, "patience": 8}}
    )
    plant.write(casts(range(60)))
    plant.label([Label(f"C{n:05d}", n % 2 == 1, inspected_at=2) for n in range(48, 60)])
    with life(plant, config, model) as trainer:
        result = cycle(trainer, plant)
        assert result.decision == "refused"
        assert result.scores["auc_roc"] < 0.1
        assert trainer.epochs[-1][1].val_auc_roc > 0.9
