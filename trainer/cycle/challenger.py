"""The challenger: the trainings of its network, and what is fitted beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from streamer.errors import ConfigError
from trainer.cycle.members import Members, recency_weights
from trainer.cycle.start import starts
from trainer.data.dataset import Dataset
from trainer.data.split import Split
from trainer.disk import require_room
from trainer.errors import CycleStoppedError
from trainer.learn.config import ModelSettings, Start
from trainer.learn.engine.early_stopping import is_better
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.ensemble.defect_model import model_bytes
from trainer.learn.ensemble.fitting import FEW_DEFECTS, HEADER_BYTES, Fitted
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model import SteelDefectLSTM
from trainer.learn.report.training_metrics import EpochResult, TrainingResult
from trainer.release.client.artifact import Artifact
from trainer.release.client.inputs import ModelInputs

log = structlog.get_logger()

# Of a model: two complete states with the moments of Adam, the best weights in each, the one being written, and the
# weights of the best epochs. Smaller: a full disk is found after the first epoch and not before it.
STATES_OF_A_MODEL = 16


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """A network, and its training.

    Attributes:
        start: What it started from.
        parent: The version whose weights it started from, None from scratch.
        folder: Of its run.
    """

    network: SteelDefectLSTM
    start: Start
    parent: int | None
    training: TrainingResult
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class Challenger:
    """A trained model that is not yet a version.

    Attributes:
        judged: Fitted without the gate part: what the gate looks at.
        published: What is published when the gate lets it through.
        members: What was fitted, and to which parts.
        seconds: All trainings and fits, also before a restart.
    """

    judged: Fitted
    published: Fitted
    trained: TrainedNetwork
    members: Members
    seconds: float


def train_challenger(
    dataset: Dataset,
    split: Split,
    champion: Artifact | None,
    settings: ModelSettings,
    *,
    cycle: int,
    run_dir: Path,
    tensorboard_dir: Path | None,
    on_epoch: Callable[[EpochResult], None],
    should_stop: Callable[[], bool],
) -> Challenger:
    """Trains a challenger, or goes on with its training where `run_dir` has a checkpoint.

    Raises:
        ConfigError: The model does not fit into one record.
        DiskUnavailableError: The folder of the run cannot be written; told before the first step.
        CheckpointError: What the folder holds cannot be gone on from.
        TrainingDivergedError: Loss or gradient is not finite.
        CycleStoppedError: `should_stop` said so.
    """
    frozen = dataset.manifest
    candidates = starts(champion, settings, ModelInputs.of(frozen.data, frozen.spec))
    size = model_bytes(candidates[0][1])
    _require_record_size(size, settings.training.max_model_bytes)
    require_room(run_dir, len(candidates) * STATES_OF_A_MODEL * size)
    _warn_of_silent_sensors(dataset, split)
    log.info(
        "training",
        cycle=cycle,
        windows=len(dataset.y_N),
        defects=int(dataset.y_N.sum()),
        train=len(split.train_N),
        validation=len(split.validation_N),
        gate=len(split.gate_N),
        starts=[start for start, *_ in candidates],
        fine_tuned_from=candidates[0][2],
    )
    trained = []
    for start, network, parent in candidates:
        folder = run_dir / start
        result = LSTMTrainer(network, settings).train(
            *loaders(dataset, split, settings),
            run_dir=folder,
            tensorboard_dir=tensorboard_dir / start
            if tensorboard_dir and len(candidates) > 1
            else tensorboard_dir,
            on_epoch=on_epoch,
            should_stop=should_stop,
            resume=True,
            progress=False,
        )
        if result.stop_reason == "stopped":
            raise CycleStoppedError(f"cycle {cycle} was stopped after {len(result.epochs)} epochs")
        trained.append(TrainedNetwork(network, start, parent, result, folder))

    def stop_if_asked() -> None:
        if should_stop():
            raise CycleStoppedError(f"cycle {cycle} was stopped while members were fitted")

    return _challenger(Members(dataset, split, settings), trained, settings, cycle, stop_if_asked)


def _challenger(
    members: Members,
    trained: list[TrainedNetwork],
    settings: ModelSettings,
    cycle: int,
    stop_if_asked: Callable[[], None],
) -> Challenger:
    best = trained[0]
    for each in trained[1:]:
        if is_better(each.training.best_value, best.training.best_value, settings.early_stopping.monitor):
            best = each
    judged = members.fit(best.network)
    published, seconds = judged, judged.seconds
    stop_if_asked()
    if settings.training.refit_on_all and (refit := members.refit(judged.model)):
        published, seconds = refit, seconds + refit.seconds
    stop_if_asked()
    seconds += sum(epoch.seconds for each in trained for epoch in each.training.epochs)
    weights = published.model.combination.weights
    log.info(
        "members",
        cycle=cycle,
        start=best.start,
        weights={name: round(weight, 2) for name, weight in weights.items()},
        seconds=round(seconds, 3),
    )
    if judged.num_defects < FEW_DEFECTS:
        log.warning("few defects to calibrate with", defects=judged.num_defects, enough=FEW_DEFECTS)
    return Challenger(judged, published, best, members, seconds)


def loaders(dataset: Dataset, split: Split, settings: ModelSettings) -> tuple[WindowLoader, WindowLoader]:
    """The training part, in which newer windows may count more, and the validation part."""
    training = settings.training
    arrays = dataset.x_NTF, dataset.mask_NT, dataset.y_N  # shared: a part is places in them
    return (
        WindowLoader(
            *arrays,
            index_N=split.train_N,
            batch_size=training.batch_size,
            shuffle=True,
            seed=training.seed,
            weight_N=recency_weights(dataset, split.train_N, settings),
        ),
        WindowLoader(*arrays, index_N=split.validation_N, batch_size=training.batch_size),
    )


def _require_record_size(size: int, most: int) -> None:
    if size + HEADER_BYTES > most:
        raise ConfigError(
            f"architecture: an LSTM of {size:,} bytes does not fit into a model file of {most:,} bytes; raise "
            "training.max_model_bytes and, for more than 1 MB, max.message.bytes of the models' topic, or make the "
            "LSTM smaller: hidden_size and num_layers, with many sensors stem_channels and window_statistics"
        )


def _warn_of_silent_sensors(dataset: Dataset, split: Split) -> None:
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
