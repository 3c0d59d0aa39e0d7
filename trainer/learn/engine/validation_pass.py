"""Loss and scores on the validation part.

Shapes: N windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.errors import NotEnoughDataError, TrainingDivergedError
from trainer.learn.engine.batch import Batch
from trainer.learn.engine.feed import Feed
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.engine.workers import Workers
from trainer.learn.model.network import SteelDefectLSTM
from trainer.learn.scores.evaluate import Scores, evaluate, probability_histogram

THRESHOLD = 0.5
# In memory at once. Smaller: workers wait for each other more often. Larger: a copy of the validation part.
BATCHES_A_WORKER = 8


@dataclass(frozen=True, slots=True)
class Validation:
    """How the model does on the validation part.

    Attributes:
        loss: Mean over the windows, weighted as in training but for their age.
        scores: At a probability of 0.5.
        histogram: Windows by probability, in ten bins of 0.1.
    """

    loss: float
    scores: Scores
    histogram: tuple[int, ...]

    def figures(self) -> dict[str, float]:
        """What can be monitored, under the names of the configuration."""
        scores = self.scores
        return {
            "val_loss": self.loss,
            "val_auc_roc": scores.auc_roc,
            "val_auc_pr": scores.auc_pr,
            "val_f1": scores.f1,
            "val_precision": scores.precision,
            "val_recall": scores.recall,
            "val_accuracy": scores.accuracy,
            "val_brier": scores.brier,
            "val_ece": scores.ece,
        }


@torch.no_grad()
def validate(workers: Workers, feed: Feed, loss: DefectLoss, device: torch.device) -> Validation:
    """Scores all batches of a feed, several at once.

    Raises:
        NotEnoughDataError: The feed handed out nothing this time.
        TrainingDivergedError: The loss is not finite.
    """
    workers.train(False)
    logits, labels = list[Tensor](), list[Tensor]()
    batches = feed.batches(0)
    while some := list(itertools.islice(batches, BATCHES_A_WORKER * len(workers))):
        logits += workers.run([_scoring(batch, device) for batch in some])
        labels += [batch.y_N for batch in some]
    if not labels:
        raise NotEnoughDataError("the validation part handed out no window")
    logits_N, y_N = torch.cat(logits), torch.cat(labels).to(device)
    mean_loss = float(loss(logits_N, y_N).mean())
    if not math.isfinite(mean_loss):
        raise TrainingDivergedError(f"the validation loss is {mean_loss}: lower the learning rate")
    prob_N = torch.sigmoid(logits_N.double()).cpu().numpy()
    scores = evaluate(y_N.cpu().numpy(), prob_N, threshold=THRESHOLD)
    return Validation(mean_loss, scores, probability_histogram(prob_N))


def _scoring(batch: Batch, device: torch.device) -> Callable[[SteelDefectLSTM], Tensor]:
    @torch.no_grad()  # a thread has a flag of its own
    def score(replica: SteelDefectLSTM) -> Tensor:
        here = batch.to(device)
        logits_N: Tensor = replica(here.x_NTF, here.mask_NT)
        return logits_N

    return score
