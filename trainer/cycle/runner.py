"""One cycle: frozen data set -> split -> fine-tune -> score beside baselines -> register -> gate -> decide.

Every step can be repeated: a cycle that was killed goes on with the same data set, the same champion and the
same checkpoints, and what the registry has recorded for this cycle is not done twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import structlog
import torch

from streamer.errors import CastingError, ConfigError
from streamer.kafka import MAX_REQUEST_BYTES
from trainer.config import TrainerSettings
from trainer.cycle.baseline_gap import score_beside, warn_if_behind
from trainer.cycle.journal import CurrentCycle
from trainer.data.config import DatasetConfig
from trainer.data.dataset import Dataset, LabelledWindows
from trainer.data.split import Split, require_classes, split_by_time
from trainer.gate.policy import GateDecision, decide, require_enough_casts
from trainer.learn.config import ModelSettings
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model.network import SteelDefectLSTM, build_model
from trainer.learn.report.training_metrics import EpochResult
from trainer.learn.scores.evaluate import best_threshold, evaluate, predict
from trainer.release.client.artifact import Artifact, DatasetInfo, Manifest, write_artifact
from trainer.release.registry.event import ModelEvent
from trainer.release.registry.versions import Registry
from trainer.release.scorer import Scorer
from trainer.triggers import Trigger

log = structlog.get_logger()

# Refused before hours of training, not after: the model file is one record, with a manifest and headers.
MAX_MODEL_BYTES = MAX_REQUEST_BYTES - 1024 * 1024

MS_A_DAY = 86_400_000

Probabilities = npt.NDArray[np.float64]


class CycleStoppedError(CastingError):
    """A stop was asked for during training; the cycle goes on from its checkpoint at the next start."""


@dataclass(frozen=True, slots=True)
class CycleResult:
    """A finished cycle, as it is told to people, metrics and the event log.

    Attributes:
        windows: Labelled windows of the data set.
        seconds: From the start of the cycle to the decision, with any time between a kill and the restart.
        scores: Of the challenger on the gate windows.
        champion_scores: Of the champion on the same windows, None without one.
        baselines: Scores of simple models, fitted on the same training part, on the same windows.
        baseline_gap: AUC-ROC of the challenger less that of the better baseline.
    """

    number: int
    trigger: Trigger
    version: int
    parent: int | None
    windows: int
    defects: int
    seconds: float
    epochs: int
    decision: Literal["promoted", "refused"]
    reasons: tuple[str, ...]
    scores: dict[str, float]
    champion_scores: dict[str, float] | None
    # A cycle that was decided before there were baselines has none.
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    baseline_gap: float | None = None


class CycleRunner:
    """Runs cycles against one registry.

    Args:
        on_epoch: Told of each epoch: cycle number, result.
        should_stop: Asked after each training step.
        now: The clock.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        model_settings: ModelSettings,
        registry: Registry,
        *,
        on_epoch: Callable[[int, EpochResult], None],
        should_stop: Callable[[], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._model_settings = model_settings
        self._registry = registry
        self._on_epoch = on_epoch
        self._should_stop = should_stop
        self._now = now

    def check(self, dataset: LabelledWindows, config: DatasetConfig) -> Split:
        """Splits windows and checks that a training on it could be decided.

        Raises:
            NotEnoughDataError: The message says what is missing.
        """
        split = split_by_time(dataset.groups, dataset.end_N, config)
        gate_N = split.gate_N
        casts_N = np.asarray(dataset.casts)[gate_N]
        require_enough_casts(dataset.y_N[gate_N], casts_N, self._settings.gate)
        require_classes(split, dataset.y_N)
        return split

    def run(self, cycle: CurrentCycle, dataset: Dataset, run_dir: Path) -> CycleResult:
        """Runs a cycle, or what is left of it.

        Raises:
            NotEnoughDataError: The data set cannot be split.
            TrainingDivergedError: The training failed; the champion stays.
            CycleStoppedError: `should_stop` said so.
        """
        split = self.check(dataset, cycle.config)
        if "trained" not in self._recorded(cycle):
            self._train_and_register(cycle, dataset, split, run_dir)
        trained = self._recorded(cycle)["trained"]
        return self.result(cycle) or _result(self._decide(cycle, trained, dataset, split))

    def result(self, cycle: CurrentCycle) -> CycleResult | None:
        """What a cycle came to, None before its decision."""
        recorded = self._recorded(cycle)
        decided = recorded.get("promoted") or recorded.get("refused")
        return None if decided is None else _result(decided)

    def give_up(self, cycle: CurrentCycle, reason: str) -> None:
        """Refuses the version that a cycle has registered and that can no longer be decided."""
        trained = self._recorded(cycle).get("trained")
        if trained is not None and self.result(cycle) is None:
            manifest = self._registry.manifest(trained.version)
            details = self._details(cycle, trained, manifest, champion_scores=None)
            self._registry.refuse(trained.version, [reason], details)

    def _recorded(self, cycle: CurrentCycle) -> dict[str, ModelEvent]:
        """Its events by kind; a cycle that was begun anew bears the same number and has another data set."""
        events = self._registry.events()
        return {
            event.kind: event for event in events if _cycle_of(event) == (cycle.number, cycle.manifest.id)
        }

    def _train_and_register(self, cycle: CurrentCycle, dataset: Dataset, split: Split, run_dir: Path) -> None:
        champion = self._champion_for(dataset)
        model, parent = self._starting_model(champion, dataset)
        log.info(
            "training",
            cycle=cycle.number,
            trigger=cycle.trigger,
            windows=len(dataset.y_N),
            defects=int(dataset.y_N.sum()),
            train=len(split.train_N),
            validation=len(split.validation_N),
            gate=len(split.gate_N),
            fine_tuned_from=parent,
        )
        self._warn_of_silent_sensors(dataset, split)
        trainer = LSTMTrainer(model, self._model_settings)
        result = trainer.train(
            *self._loaders(dataset, split),
            run_dir=run_dir,
            tensorboard_dir=self._tensorboard_dir(cycle),
            on_epoch=lambda epoch: self._on_epoch(cycle.number, epoch),
            should_stop=self._should_stop,
            resume=True,
            progress=False,
        )
        if result.stop_reason == "stopped":
            raise CycleStoppedError(f"cycle {cycle.number} was stopped after {len(result.epochs)} epochs")
        data = self._artifact(model, parent, dataset, split)
        details = {
            "cycle": cycle.number,
            "dataset": dataset.manifest.id,
            "epochs": len(result.epochs),
            "best_epoch": result.best_epoch,
            "linear_share": result.linear_share,
            "stop_reason": result.stop_reason,
            "seconds": round(sum(epoch.seconds for epoch in result.epochs), 3),
        }
        files = {
            "metrics.csv": (run_dir / "metrics.csv").read_bytes(),
            "dataset.json": dataset.manifest.model_dump_json().encode(),
        }
        self._registry.register(data, files=files, details=details)

    def _tensorboard_dir(self, cycle: CurrentCycle) -> Path | None:
        folder = self._settings.model.tensorboard_dir
        return None if folder is None else folder / self._registry.model_name / f"cycle-{cycle.number:05d}"

    def _warn_of_silent_sensors(self, dataset: Dataset, split: Split) -> None:
        silent = [
            name
            for f, name in enumerate(dataset.manifest.data.sensor_names)
            if np.isnan(dataset.x_NTF[split.train_N, :, f]).all()
        ]
        if silent:
            log.warning(
                "sensors never seen",
                sensors=silent,
                mend="the model ignores them; check their names in data.sensors against what the gateways send",
            )

    def _champion_for(self, dataset: Dataset) -> Artifact | None:
        """The champion, if it can score these windows."""
        champion = self._registry.champion()
        if champion is None:
            return None
        manifest, frozen = champion.manifest, dataset.manifest
        same = (manifest.sensors, manifest.period_ms, manifest.window.size_steps) == (
            frozen.data.sensors,
            frozen.data.period_ms,
            frozen.spec.size_steps,
        )
        if not same:
            log.warning("champion has other inputs", version=manifest.version, decided_as="first model")
        return champion if same else None

    def _starting_model(
        self, champion: Artifact | None, dataset: Dataset
    ) -> tuple[SteelDefectLSTM, int | None]:
        architecture = self._model_settings.architecture
        seed = self._model_settings.training.seed
        model = build_model(architecture, len(dataset.manifest.data.sensors), seed)
        _require_record_size(model)
        if champion is None:
            return model, None
        if champion.manifest.architecture != architecture.model_dump(mode="json"):
            log.warning(
                "champion has another architecture", version=champion.manifest.version, start="scratch"
            )
            return model, None
        model.load_state_dict({name: torch.tensor(each) for name, each in champion.tensors.items()})
        return model, champion.manifest.version

    def _loaders(self, dataset: Dataset, split: Split) -> tuple[WindowLoader, WindowLoader]:
        """The training part, in which newer windows may count more, and the validation part."""
        training = self._model_settings.training
        half_life = self._model_settings.loss.recency_half_life_days
        arrays = dataset.x_NTF, dataset.mask_NT, dataset.y_N
        return (
            WindowLoader(
                *arrays,
                index_N=split.train_N,
                batch_size=training.batch_size,
                shuffle=True,
                seed=training.seed,
                weight_N=None if half_life is None else recency_weights(dataset, split.train_N, half_life),
            ),
            WindowLoader(*arrays, index_N=split.validation_N, batch_size=training.batch_size),
        )

    def _artifact(self, model: SteelDefectLSTM, parent: int | None, dataset: Dataset, split: Split) -> bytes:
        val_N, gate_N = split.validation_N, split.gate_N
        threshold = best_threshold(dataset.y_N[val_N], self._predict(model, dataset, val_N))
        scores = evaluate(dataset.y_N[gate_N], self._predict(model, dataset, gate_N), threshold)
        frozen = dataset.manifest
        manifest = Manifest(
            model_name=self._registry.model_name,
            version=self._registry.next_version(),
            parent=parent,
            created_at=self._now(),
            architecture=self._model_settings.architecture.model_dump(mode="json"),
            sensors=frozen.data.sensors,
            period_ms=frozen.data.period_ms,
            grid_phase_ms=frozen.data.grid_phase_ms,
            window=frozen.spec,
            threshold=threshold,
            dataset=DatasetInfo(
                id=frozen.id, num_windows=len(dataset.y_N), num_defects=int(dataset.y_N.sum())
            ),
            scores={name: float(value) for name, value in dataclasses.asdict(scores).items()},
            baselines=score_beside(dataset, split, self._model_settings.training.seed),
        )
        tensors = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
        return write_artifact(tensors, manifest)

    def _predict(
        self, model: SteelDefectLSTM, dataset: Dataset, index_N: npt.NDArray[np.int64]
    ) -> Probabilities:
        threads = self._model_settings.training.num_threads
        return predict(model, dataset.x_NTF, dataset.mask_NT, index_N=index_N, num_threads=threads)

    def _decide(self, cycle: CurrentCycle, trained: ModelEvent, dataset: Dataset, split: Split) -> ModelEvent:
        champion = self._champion_for(dataset)
        challenger = self._registry.artifact(trained.version)
        decision = decide(
            dataset.y_N[split.gate_N],
            np.asarray(dataset.casts)[split.gate_N],
            self._score(challenger, dataset, split),
            None if champion is None else self._score(champion, dataset, split),
            self._settings.gate,
        )
        details = self._details(cycle, trained, challenger.manifest, _champion_scores(decision))
        record = self._registry.promote if decision.promote else self._registry.refuse
        event = record(trained.version, decision.reasons, details)
        log.info(event.kind, cycle=cycle.number, version=event.version, reasons=event.reasons)
        warn_if_behind(challenger.manifest, decision=event.kind)
        return event

    def _details(
        self,
        cycle: CurrentCycle,
        trained: ModelEvent,
        manifest: Manifest,
        champion_scores: dict[str, float] | None,
    ) -> dict[str, Any]:
        return {
            "cycle": cycle.number,
            "dataset": cycle.manifest.id,
            "trigger": cycle.trigger,
            "parent": manifest.parent,
            "windows": manifest.dataset.num_windows,
            "defects": manifest.dataset.num_defects,
            "seconds": round((self._now() - cycle.started_at).total_seconds(), 3),
            "epochs": trained.details["epochs"],
            "scores": manifest.scores,
            "champion_scores": champion_scores,
            "baselines": manifest.baselines,
            "baseline_gap": manifest.baseline_gap,
        }

    def _score(self, artifact: Artifact, dataset: Dataset, split: Split) -> Probabilities:
        scorer = Scorer(artifact, num_threads=self._model_settings.training.num_threads)
        return scorer.score(dataset.x_NTF, dataset.mask_NT, index_N=split.gate_N)


def recency_weights(
    dataset: Dataset, index_N: npt.NDArray[np.int64], half_life_days: float
) -> npt.NDArray[np.float64]:
    """What some windows count in the loss: half for each half-life before the newest of them, 1 on average."""
    end_N = dataset.end_N[index_N]
    age_days_N = (end_N.max() - end_N) * dataset.manifest.data.period_ms / MS_A_DAY
    weight_N = np.exp2(-age_days_N / half_life_days)
    return np.asarray(weight_N / weight_N.mean())


def _require_record_size(model: SteelDefectLSTM) -> None:
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > MAX_MODEL_BYTES:
        raise ConfigError(
            f"architecture: a model of {size:,} bytes does not fit into one record of {MAX_MODEL_BYTES:,} bytes; "
            "lower hidden_size or num_layers"
        )


def _cycle_of(event: ModelEvent) -> tuple[int | None, str | None]:
    return event.details.get("cycle"), event.details.get("dataset")


def _champion_scores(decision: GateDecision) -> dict[str, float] | None:
    return None if decision.champion is None else dataclasses.asdict(decision.champion)


def _result(decided: ModelEvent) -> CycleResult:
    fields = {name: value for name, value in decided.details.items() if name not in ("cycle", "dataset")}
    return CycleResult(
        number=decided.details["cycle"],
        version=decided.version,
        decision="promoted" if decided.kind == "promoted" else "refused",
        reasons=decided.reasons,
        **fields,
    )
