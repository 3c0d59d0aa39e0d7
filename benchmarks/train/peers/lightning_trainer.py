"""PyTorch Lightning: Trainer with its defaults; it writes no files and prints nothing, as none of the others does."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.train.job import Clock, Job
from benchmarks.train.peers.plain_model import Data, PlainLSTM


class Defects(lightning.LightningModule):  # type: ignore[misc]  # it lives in the peers' environment
    """The plain LSTM as a module of Lightning."""

    def __init__(self, model: PlainLSTM, pos_weight: Tensor, learning_rate: float) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = nn.BCEWithLogitsLoss(pos_weight=pos_weight)
        self.learning_rate = learning_rate
        self.scored: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        x_NTF, y_N = batch
        loss: Tensor = self.loss_fn(self.model(x_NTF), y_N)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> None:
        x_NTF, y_N = batch
        logits_N = self.model(x_NTF)
        self.log("val_loss", self.loss_fn(logits_N, y_N))
        self.scored.append((logits_N, y_N))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


class Target(Callback):  # type: ignore[misc]  # it lives in the peers' environment
    """Ends the training when the job's target is reached."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.auc_E: list[float] = []

    def on_validation_epoch_end(self, trainer: Any, pl_module: Defects) -> None:
        logits_N, y_N = (torch.cat(parts) for parts in zip(*pl_module.scored, strict=True))
        pl_module.scored.clear()
        if trainer.sanity_checking or self._job.target_auc is None:
            return
        self.auc_E.append(float(roc_auc_score(y_N.numpy(), logits_N.numpy())))
        trainer.should_stop = self._job.is_reached(self.auc_E)


def main() -> None:
    job = Job.from_arguments()
    data = Data(job)
    model = Defects(data.model(), data.pos_weight, job.learning_rate)
    target = Target(job)
    clock = Clock()
    trainer = lightning.Trainer(
        max_epochs=job.max_epochs,
        gradient_clip_val=job.grad_clip_norm,
        callbacks=[target],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, *data.loaders())
    val_loss = float(trainer.callback_metrics["val_loss"])
    print(clock.report(torch_version=torch.__version__, val_loss=val_loss, auc_E=target.auc_E))


if __name__ == "__main__":
    main()
