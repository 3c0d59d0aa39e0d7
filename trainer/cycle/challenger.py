"""The challenger: what it starts from, what it is trained on, and its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
import torch

from streamer.errors import ConfigError
from streamer.kafka import MAX_REQUEST_BYTES
from trainer.data.dataset import Dataset
from trainer.data.split import Split
from trainer.disk import require_room
from trainer.errors import CycleStoppedError
from trainer.learn.config import ModelSettings
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model import SteelDefectLSTM, build_model
from trainer.learn.report.training_metrics import EpochResult, TrainingResult
from trainer.release.client.artifact import Artifact
from trainer.release.client.inputs import ModelInputs

log = structlog.get_logger()

# Refused before hours of training, not after: the model file is one record, with a manifest and headers.
MAX_MODEL_BYTES = MAX_REQUEST_BYTES - 1024 * 1024
# Of a model: two complete states with the moments of Adam, the best weights in each, the one being written, and the
# weights of the best epochs. Smaller: a full disk is found after the first epoch and not before it.
STATES_OF_A_MODEL = 16

MS_A_DAY = 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class Challenger:
    """A trained model that is not yet a version.

    Attributes:
        parent: The version whose weights it started from, None from scratch.
    """

    model: SteelDefectLSTM
    parent: int | None
    training: TrainingResult


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
    model, parent = starting_model(champion, settings, ModelInputs.of(frozen.data, frozen.spec))
    require_room(run_dir, STATES_OF_A_MODEL * model_bytes(model))
    _warn_of_silent_sensors(dataset, split)
    log.info(
        "training",
        cycle=cycle,
        windows=len(dataset.y_N),
        defects=int(dataset.y_N.sum()),
        train=len(split.train_N),
        validation=len(split.validation_N),
        gate=len(split.gate_N),
        fine_tuned_from=parent,
    )
    result = LSTMTrainer(model, settings).train(
        *loaders(dataset, split, settings),
        run_dir=run_dir,
        tensorboard_dir=tensorboard_dir,
        on_epoch=on_epoch,
        should_stop=should_stop,
        resume=True,
        progress=False,
    )
    if result.stop_reason == "stopped":
        raise CycleStoppedError(f"cycle {cycle} was stopped after {len(result.epochs)} epochs")
    return Challenger(model, parent, result)


def starting_model(
    champion: Artifact | None, settings: ModelSettings, inputs: ModelInputs
) -> tuple[SteelDefectLSTM, int | None]:
    """A model with the weights of the champion where they fit, else with new ones; and whose weights they are.

    Raises:
        ConfigError: The model does not fit into one record.
    """
    architecture = settings.architecture
    num_sensors = len(inputs.sensors)
    model = build_model(architecture, num_sensors, settings.training.seed)
    _require_record_size(model)
    if champion is None:
        return model, None
    version = champion.manifest.version
    if differing := inputs.differences(champion.manifest.inputs):
        log.warning("champion has other inputs", version=version, start="scratch", differing=differing)
    elif champion.manifest.architecture != architecture.model_dump(mode="json"):
        log.warning("champion has another architecture", version=version, start="scratch")
    elif fault := _load_weights(model, champion):
        log.warning("champion cannot be gone on from", version=version, start="scratch", error=fault)
    else:
        return model, version
    return build_model(architecture, num_sensors, settings.training.seed), None


def loaders(dataset: Dataset, split: Split, settings: ModelSettings) -> tuple[WindowLoader, WindowLoader]:
    """The training part, in which newer windows may count more, and the validation part."""
    training = settings.training
    half_life = settings.loss.recency_half_life_days
    arrays = dataset.x_NTF, dataset.mask_NT, dataset.y_N  # shared: a part is places in them
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


def recency_weights(
    dataset: Dataset, index_N: npt.NDArray[np.int64], half_life_days: float
) -> npt.NDArray[np.float64]:
    """What some windows count in the loss: half for each half-life before the newest of them, 1 on average."""
    end_N = dataset.end_N[index_N]
    age_days_N = (end_N.max() - end_N) * dataset.manifest.data.period_ms / MS_A_DAY
    weight_N = np.exp2(-age_days_N / half_life_days)
    return np.asarray(weight_N / weight_N.mean())


def model_bytes(model: SteelDefectLSTM) -> int:
    """Size of the tensors of a model."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _load_weights(model: SteelDefectLSTM, champion: Artifact) -> str | None:
    """Loads weights; what does not fit, None if all do."""
    try:
        model.load_state_dict({name: torch.tensor(each) for name, each in champion.tensors.items()})
    except RuntimeError as exc:
        return str(exc)
    return None


def _require_record_size(model: SteelDefectLSTM) -> None:
    size = model_bytes(model)
    if size > MAX_MODEL_BYTES:
        raise ConfigError(
            f"architecture: a model of {size:,} bytes does not fit into one record of {MAX_MODEL_BYTES:,} bytes; "
            "lower hidden_size or num_layers"
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
