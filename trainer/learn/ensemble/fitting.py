"""Fits what stands beside a trained LSTM: the linear model, the trees, what each counts, and the calibration.

Linear model and trees are fitted in seconds, so each window can be scored by ones that have not seen it
(cross-fitting: five stretches of time, whole groups). What the two count is chosen on all windows so. The LSTM is
trained once; what it counts beside them is chosen on the windows that its weights did not learn from, and halved.

Shapes: N windows, S statistics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.learn.config import ModelSettings
from trainer.learn.ensemble.defect_model import DefectModel, model_bytes
from trainer.learn.members.calibration import Calibration, fit_calibration, fit_correction
from trainer.learn.members.combination import Combination, Share, choose_weights
from trainer.learn.members.labelled import LabelledPart, ranks_through
from trainer.learn.members.linear import LinearModel, fit_linear
from trainer.learn.members.part_statistics import PartStatistics
from trainer.learn.members.tree_fitting import fit_trees
from trainer.learn.members.trees import Trees
from trainer.learn.model.network import SteelDefectLSTM
from trainer.learn.scores.evaluate import best_threshold, both_classes, network_logits

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NUM_FOLDS = 5
# Of a model file: manifest, names and shapes of the tensors.
HEADER_BYTES = 100_000
# Where many groups do not tell the linear model apart from the trees, those count; where there are few, half of each
# (docs/model.md).
LINEAR, TREES = "linear", "trees"
# Where nothing tells the LSTM apart from the two, they count: they are fitted to more, and are cheaper to score.
BESIDE, LSTM = "beside", "lstm"
LSTM_PRIOR = {BESIDE: 1.0, LSTM: 0.0}
# Of what the LSTM was found to count. Its best epoch was chosen on the windows that it is weighed by, and those are
# one stretch of time: it looks better there than it is on the next one (docs/model.md).
LSTM_TRUST = 0.5
# Standard errors that count as chance.
TOLERANCE = 1.0
# Defective windows that weights, calibration and threshold rest on; with fewer the report says so.
FEW_DEFECTS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A model, and how it was fitted.

    Attributes:
        threshold: Probability with the highest F1 on the windows that calibrated it.
        num_defects: Defective windows among those.
        seconds: That fitting what stands beside the LSTM took.
    """

    model: DefectModel
    threshold: float
    num_defects: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """All windows to fit to, those first that the network was trained on."""

    stats_NS: Floats
    y_N: Bools
    group_N: Ints
    fold_N: Ints
    weight_N: Floats
    is_new_N: Bools  # to the network


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    """Linear model and trees, and what was said of each window by ones that had not seen it."""

    linear: LinearModel | None
    trees: Trees | None
    held_out: Mapping[str, Floats]

    def logits(self, stats_NS: Floats) -> dict[str, Floats]:
        """Of windows by their statistics."""
        paths = {LINEAR: self.linear, TREES: self.trees}
        return {name: path.logits(stats_NS) for name, path in paths.items() if path is not None}


def fit_ensemble(
    network: SteelDefectLSTM,
    parts: Sequence[LabelledPart],
    *,
    settings: ModelSettings,
    statistics: PartStatistics,
    weight_N: Floats | None = None,
    lstm_weight: float | None = None,
) -> Fitted:
    """Fits linear model and trees to all parts, then what each member counts, and the calibration.

    The same input gives the same bits on one kind of processor.

    Args:
        network: The LSTM.
        parts: Of the same windows; the first one is what the LSTM was trained on, the others are new to it.
        weight_N: What each window counts, part by part; None: all the same.
        lstm_weight: What the LSTM counts, if that was chosen before.

    Raises:
        NotEnoughDataError: The first part, or all others together, have one class only.
        ModelInputError: Shapes do not fit.
    """
    started = time.perf_counter()
    seed, threads = settings.training.seed, settings.training.num_threads
    windows = _windows(parts, statistics, weight_N)
    beside = _fit_beside(windows, settings, model_bytes(network))
    is_new_N = windows.is_new_N
    network_N = np.concatenate(
        [
            network_logits(network, part.x_NTF, part.mask_NT, index_N=part.index_N, num_threads=threads)
            for part in parts[1:]
        ]
    )
    if beside.held_out:
        combination, score_N = _weigh(windows, beside, network_N, lstm_weight, seed)
    else:
        of_lstm = fit_calibration(network_N, windows.y_N[is_new_N])
        combination, score_N = Combination({LSTM: Share(of_lstm, 1.0)}), np.full(len(is_new_N), np.nan)
        score_N[is_new_N] = of_lstm.log_odds(network_N)
    rows_N = np.isfinite(score_N)
    num_groups = len(np.unique(windows.group_N[rows_N]))
    calibration = fit_correction(score_N[rows_N], windows.y_N[rows_N], num_groups)
    model = DefectModel(network, statistics.statistics, beside.linear, beside.trees, combination, calibration)
    threshold = best_threshold(windows.y_N[rows_N], calibration(score_N[rows_N]))
    return Fitted(model, threshold, int(windows.y_N[rows_N].sum()), time.perf_counter() - started)


def folds_in_time(rank_N: Ints, y_N: Bools, num_folds: int = NUM_FOLDS) -> Ints:
    """fold_N: stretches of whole groups in time, fewer where there are few groups.

    A stretch has about the same share of the defective and of the good windows together: defects come in stretches
    of their own, and the windows outside of a fold must have some.

    Args:
        rank_N: Rank in time of the group of each window.
        y_N: True = defective; both classes.
    """
    _, group_N, size_G = np.unique(rank_N, return_inverse=True, return_counts=True)
    mass_G = np.bincount(group_N, weights=np.where(y_N, 0.5 / y_N.sum(), 0.5 / (~y_N).sum()))
    num_folds = min(num_folds, len(size_G))
    fold_G = np.minimum(((np.cumsum(mass_G) - mass_G / 2) * num_folds).astype(np.int64), num_folds - 1)
    if len(np.unique(fold_G)) < 2:  # one group has nearly all windows
        fold_G = np.minimum(np.arange(len(size_G)), num_folds - 1)
    return np.asarray(fold_G[group_N], dtype=np.int64)


def _windows(parts: Sequence[LabelledPart], statistics: PartStatistics, weight_N: Floats | None) -> _Windows:
    for part, name in ((parts[0], "members"), *((part, "weights of members") for part in parts[1:])):
        both_classes(part.labels, name)
    y_N = np.concatenate([part.labels for part in parts]).astype(np.bool_)
    rank_N = ranks_through(parts)
    is_new_N = np.arange(len(y_N)) >= len(parts[0].labels)
    return _Windows(
        stats_NS=np.concatenate([statistics(part) for part in parts]),
        y_N=y_N,
        group_N=np.asarray(np.unique(rank_N, return_inverse=True)[1], dtype=np.int64),
        fold_N=folds_in_time(rank_N, y_N),
        weight_N=np.ones(len(y_N)) if weight_N is None else weight_N,
        is_new_N=is_new_N,
    )


def _fit_beside(windows: _Windows, settings: ModelSettings, network_bytes: int) -> _Beside:
    architecture, seed = settings.architecture, settings.training.seed
    # Of the linear model: three numbers a statistic.
    others = network_bytes + HEADER_BYTES + 3 * 8 * windows.stats_NS.shape[1]
    max_bytes = max(0, settings.training.max_model_bytes - others)
    linear = trees = None
    held_out: dict[str, Floats] = {}
    if architecture.linear_path:
        linear, held_out[LINEAR] = fit_linear(windows.stats_NS, windows.y_N, windows.weight_N, windows.fold_N)
    if architecture.tree_path:
        trees, held_out[TREES] = _fit_trees(windows, seed, max_bytes)
    return _Beside(linear, trees, held_out)


def _fit_trees(windows: _Windows, seed: int, max_bytes: int) -> tuple[Trees, Floats]:
    def fitted(is_kept_N: Bools, num_trees: int | None = None) -> Trees:
        return fit_trees(
            windows.stats_NS[is_kept_N],
            windows.y_N[is_kept_N],
            windows.weight_N[is_kept_N],
            windows.group_N[is_kept_N],
            seed=seed,
            max_bytes=max_bytes,
            num_trees=num_trees,
        )

    trees = fitted(np.ones(len(windows.y_N), np.bool_))
    held_out_N = np.full(len(windows.y_N), np.nan)
    for fold in np.unique(windows.fold_N):
        is_kept_N = windows.fold_N != fold
        kept_N = windows.y_N[is_kept_N & (windows.weight_N > 0)]
        if kept_N.any() and not kept_N.all():
            some_N = np.flatnonzero(~is_kept_N)
            held_out_N[some_N] = fitted(is_kept_N, trees.num_trees).logits(windows.stats_NS[some_N])
    return trees, held_out_N


def _weigh(
    windows: _Windows, beside: _Beside, network_N: Floats, lstm_weight: float | None, seed: int
) -> tuple[Combination, Floats]:
    """What each member counts, and score_N of the windows that may calibrate it, NaN of the others."""
    y_N, group_N = windows.y_N, windows.group_N
    held_out = dict(beside.held_out)
    known_N = np.isfinite(np.sum(list(held_out.values()), axis=0))
    if not _has_both(y_N[known_N]):  # defects of one group alone: nothing is left to fit to without it
        held_out, known_N = beside.logits(windows.stats_NS), np.ones(len(y_N), np.bool_)
    if beside.trees is not None and not beside.trees.num_trees and LINEAR in held_out:
        paths = {LINEAR: 1.0, TREES: 0.0}  # there was no room for a tree in the file
    else:
        paths = choose_weights(
            {name: held_out_N[known_N] for name, held_out_N in held_out.items()},
            y_N[known_N],
            group_N[known_N],
            prior={name: float(name == TREES or TREES not in held_out) for name in held_out},
            few={name: 1 / len(held_out) for name in held_out},
            tolerance=TOLERANCE,
            seed=seed,
        )
    beside_N = np.asarray(sum(weight * held_out[name] for name, weight in paths.items()))
    # All windows that are new to the LSTM, whether or not the others can be held out there.
    of_lstm = fit_calibration(network_N, y_N[windows.is_new_N])
    held_out[LSTM] = np.full(len(y_N), np.nan)
    held_out[LSTM][windows.is_new_N] = network_N
    both_N = known_N & windows.is_new_N
    if lstm_weight is None and _has_both(y_N[both_N]):
        log_odds = {BESIDE: beside_N[both_N], LSTM: of_lstm.log_odds(held_out[LSTM][both_N])}
        chosen = choose_weights(
            log_odds,
            y_N[both_N],
            group_N[both_N],
            prior=LSTM_PRIOR,
            few=LSTM_PRIOR,
            tolerance=TOLERANCE,
            seed=seed,
        )
        lstm_weight = LSTM_TRUST * chosen[LSTM]
    lstm_weight = lstm_weight or 0.0
    shares = {LSTM: Share(of_lstm, lstm_weight)}
    shares |= {name: Share(Calibration(), (1 - lstm_weight) * weight) for name, weight in paths.items()}
    combination = Combination(shares)
    rows_N = both_N if lstm_weight else known_N
    if not _has_both(y_N[rows_N]):
        rows_N = windows.is_new_N
        held_out |= beside.logits(windows.stats_NS)
    score_N = np.full(len(y_N), np.nan)
    score_N[rows_N] = combination({name: each_N[rows_N] for name, each_N in held_out.items()})
    return combination, score_N


def _has_both(y_N: Bools) -> bool:
    return bool(y_N.any()) and not y_N.all()
