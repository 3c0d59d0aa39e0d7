"""Ours as a process of its own: `LSTMTrainer` on windows in memory. `python -m benchmarks.train.ours JOB`"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch._dynamo  # the first optimizer imports it, a second that others spend before their clock
from sklearn.metrics import roc_auc_score

from benchmarks.train.job import Clock, Job
from trainer.learn.config import (
    ArchitectureConfig,
    DataProcessingConfig,
    EarlyStoppingConfig,
    ModelSettings,
    OptimizerConfig,
    SchedulerConfig,
    TrainingConfig,
)
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model.network import SteelDefectLSTM, build_model
from trainer.learn.report.training_metrics import EpochResult
from trainer.learn.scores.evaluate import predict

# Larger than any value: the peers do not clip their inputs.
NO_CLIP = 1e6


def settings(job: Job) -> ModelSettings:
    """The defaults, or what makes ours the plain LSTM of the peers, with their optimizer and their inputs."""
    training = TrainingConfig(max_epochs=job.max_epochs, batch_size=job.batch_size, seed=job.seed)
    stopping = EarlyStoppingConfig()
    if job.target_auc is not None:  # a race ends at its target or with its last epoch
        stopping = EarlyStoppingConfig(patience=job.max_epochs)
    if job.readout is None:
        return ModelSettings(training=training, early_stopping=stopping)
    return ModelSettings(
        architecture=ArchitectureConfig(
            preset="standard", dropout=0.0, readout=job.readout, head_hidden_dims=()
        ),
        training=training.model_copy(update={"grad_clip_norm": job.grad_clip_norm}),
        optimizer=OptimizerConfig(learning_rate=job.learning_rate, weight_decay=0.0),
        scheduler=SchedulerConfig(name="constant"),
        early_stopping=stopping,
        data_processing=DataProcessingConfig(normalisation="zscore", clip=NO_CLIP),
    )


def load_first_weights(model: SteelDefectLSTM, arrays: dict[str, npt.NDArray[np.float32]]) -> None:
    """Takes over the plain LSTM's first weights: as many arrays in the same order, under names of their own.

    Raises:
        ValueError: The model has other parameters than the plain LSTM.
    """
    weights = [
        torch.from_numpy(array) for name, array in arrays.items() if name.startswith(("lstm.", "head."))
    ]
    if not weights:
        return
    parameters = list(model.parameters())
    if [p.shape for p in parameters] != [w.shape for w in weights]:
        raise ValueError(f"not the plain LSTM: {[name for name, _ in model.named_parameters()]}")
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(weight)


class Part:
    """The windows of one part of the file."""

    def __init__(self, arrays: dict[str, npt.NDArray[np.float32]], name: str) -> None:
        self.x_NTF, self.y_N = arrays[f"x_{name}"], arrays[f"y_{name}"]
        self.mask_NT = np.ones(self.x_NTF.shape[:2], dtype=np.bool_)

    def loader(self, job: Job, *, shuffle: bool) -> WindowLoader:
        """Its batches."""
        return WindowLoader(
            self.x_NTF, self.mask_NT, self.y_N, batch_size=job.batch_size, shuffle=shuffle, seed=job.seed
        )

    def auc(self, model: SteelDefectLSTM) -> float:
        """AUC-ROC of a model that was trained."""
        return float(roc_auc_score(self.y_N, predict(model, self.x_NTF, self.mask_NT)))


def main() -> None:
    """Trains as the job says and prints what came of it."""
    job = Job.from_arguments()
    with np.load(job.data) as file:
        arrays = dict(file)
    train, val = Part(arrays, "train"), Part(arrays, "val")
    model = build_model(settings(job).architecture, arrays["x_train"].shape[2], job.seed)
    load_first_weights(model, arrays)
    more: dict[str, object] = {}
    if job.champion:
        model.load_state_dict(torch.load(job.champion, weights_only=True))
        more["champion_auc"] = val.auc(model)
    epochs: list[EpochResult] = []
    clock = Clock()
    result = LSTMTrainer(model, settings(job)).train(
        train.loader(job, shuffle=True),
        val.loader(job, shuffle=False),
        on_epoch=epochs.append,
        should_stop=lambda: job.is_reached([epoch.val_auc_roc for epoch in epochs]),
    )
    told = clock.report(
        torch_version=torch.__version__,
        val_loss=epochs[-1].val_loss,
        auc_E=[epoch.val_auc_roc for epoch in epochs],
        pos_weight=result.pos_weight,
        **more,
    )
    if job.save_to:
        torch.save(model.state_dict(), job.save_to)
    print(told)


if __name__ == "__main__":
    main()
