"""Test-then-train: each chunk is scored by the model in use, then time goes on to the next one.

Shape suffixes: N windows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.continual.campaign import Campaign, Known
from benchmarks.continual.method import Method
from benchmarks.continual.product import NeverRetrained, Ours
from benchmarks.continual.rivals import BaselineFits, Refitted, TrainedLSTM
from benchmarks.labelled import Ints
from trainer.errors import NotEnoughDataError
from trainer.learn.config import ArchitectureConfig, ModelSettings
from trainer.learn.scores.evaluate import Probabilities, evaluate

METHODS = (
    "ours",
    "never_retrained",
    "logistic_regression",
    "hist_gradient_boosting",
    "naive_finetune",
    "lstm_refit",
)
FIGURES = ("auc_roc", "auc_pr", "brier", "ece")

Report = dict[str, Any]


@contextmanager
def methods_of(
    campaign: Campaign, settings: ModelSettings, seed: int, names: Collection[str]
) -> Iterator[dict[str, Method]]:
    """The methods by name, ours first; a registry lives as long as they do.

    Args:
        settings: Of ours; the rivals have the defaults.
    """
    training = settings.training.model_copy(update={"seed": seed, "num_workers": 1})
    settings = settings.model_copy(update={"training": training})
    fits = BaselineFits(campaign, seed)
    with tempfile.TemporaryDirectory(prefix="castloop-continual-") as folder:
        ours = Ours(campaign, settings, Path(folder))
        try:
            all_of_them: dict[str, Method] = {
                "ours": ours,
                "never_retrained": NeverRetrained(campaign, ours),
                "logistic_regression": Refitted("logistic_regression", fits),
                "hist_gradient_boosting": Refitted("hist_gradient_boosting", fits),
                "naive_finetune": TrainedLSTM(campaign, ArchitectureConfig(), seed, carries_on=True),
                "lstm_refit": TrainedLSTM(
                    campaign, ArchitectureConfig(preset="standard"), seed, carries_on=False
                ),
            }
            yield {name: method for name, method in all_of_them.items() if name in names}
        finally:
            ours.close()


def test_then_train(
    campaign: Campaign, methods: Mapping[str, Method], num_chunks: int, say: Callable[[str], None]
) -> dict[str, Report]:
    """Works a campaign off.

    A method learns from what is labelled when a chunk begins, and scores the chunk before the next one begins. As
    long as it has no model, its score is the base rate.

    Returns:
        For each method the figures over all scored windows, and what they cost.

    Raises:
        NotEnoughDataError: There are too few groups, or all scored windows are of one class.
    """
    chunks = campaign.chunks(num_chunks)
    prob_N = {name: np.full(len(campaign), np.nan) for name in methods}
    unscored = dict.fromkeys(methods, 0)
    for number, chunk_N in enumerate(chunks, start=1):
        known = campaign.known(int(campaign.start_ms_N[chunk_N].min()))
        head = f"chunk {number}/{len(chunks)}: {len(known.index_N)} known, {len(chunk_N)} to score"
        for name, method in methods.items():
            before = method.cost.seconds
            told = method.update(known)
            spent = method.cost.seconds - before
            scores_N = method.score(chunk_N)
            if scores_N is None:
                unscored[name] += len(chunk_N)
                scores_N = np.full(len(chunk_N), _base_rate(known))
            prob_N[name][chunk_N] = scores_N
            say(f"{head}: {name} {spent:.1f} s, {_of_chunk(campaign, chunk_N, scores_N)}: {told}")
    scored_N = np.concatenate(chunks)
    return {
        name: _figures(campaign, scored_N, prob_N[name][scored_N])
        | {
            "seconds": method.cost.seconds,
            "cpu_seconds": method.cost.cpu_seconds,
            "published": method.cost.published,
            "refused": method.cost.refused,
            "unscored": unscored[name],
        }
        for name, method in methods.items()
    }


def _base_rate(known: Known) -> float:
    return float(known.y_N.mean()) if len(known.y_N) else 0.5


def _figures(campaign: Campaign, index_N: Ints, prob_N: Probabilities) -> Report:
    scores = evaluate(campaign.y_N[index_N], prob_N, 0.5)
    return {figure: getattr(scores, figure) for figure in FIGURES}


def _of_chunk(campaign: Campaign, chunk_N: Ints, prob_N: Probabilities) -> str:
    try:
        figures = _figures(campaign, chunk_N, prob_N)
    except NotEnoughDataError:
        return f"{int(campaign.y_N[chunk_N].sum())} of {len(chunk_N)} defective"
    return "AUC-ROC {auc_roc:.3f}, AUC-PR {auc_pr:.3f}, Brier {brier:.3f}".format(**figures)
