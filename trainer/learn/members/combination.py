"""How much each member counts in the score of a window.

Each member gives log-odds of its own. They are summed up with weights that are not negative and sum to 1; a stacking
that is free to subtract one member from another ranks worse on new data.

Shapes: N windows, K members, W weightings, G groups, R resamples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.learn.members.calibration import Calibration

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
# Shares that are tried: tenths. Finer: more tries than some hundred windows can tell apart.
TENTHS = 10
NUM_RESAMPLES = 50
# Groups with a defect that a choice needs. With fewer, resampled groups call a difference real that is chance: an
# LSTM chosen by six experiments of a rig ranked the next ones like a coin.
MIN_DEFECTIVE_GROUPS = 10


@dataclass(frozen=True, slots=True)
class Share:
    """Of one member.

    Attributes:
        calibration: From its logits to log-odds; an LSTM is trained with defects weighed up.
        weight: What it counts, 0 to 1.
    """

    calibration: Calibration
    weight: float


@dataclass(frozen=True, slots=True)
class Combination:
    """The shares of the members by name."""

    shares: Mapping[str, Share]

    @property
    def weights(self) -> dict[str, float]:
        """What each member counts."""
        return {name: share.weight for name, share in self.shares.items()}

    @property
    def counting(self) -> tuple[str, ...]:
        """The members that count; the others need not be asked."""
        return tuple(name for name, share in self.shares.items() if share.weight > 0)

    def __call__(self, logits: Mapping[str, Floats]) -> Floats:
        """Returns log-odds, score_N, of the logits of the members that count."""
        return np.asarray(
            sum(
                share.weight * share.calibration.log_odds(logits[name])
                for name, share in self.shares.items()
                if share.weight > 0
            )
        )


def choose_weights(
    log_odds: Mapping[str, Floats],
    y_N: Bools,
    group_N: Ints,
    *,
    prior: Mapping[str, float],
    few: Mapping[str, float],
    tolerance: float,
    seed: int,
) -> dict[str, float]:
    """Chooses the weights by how they rank windows that no member was fitted to.

    Among the weightings that rank at least as well as the best single member, and no worse than the best weighting by
    what chance may do (`tolerance` standard errors of the difference, over resampled groups), the one nearest to the
    prior is taken. Ranks are judged by the mean of AUC-ROC and AUC-PR. With fewer than `MIN_DEFECTIVE_GROUPS` groups
    with a defect nothing is chosen.

    Args:
        log_odds: Of each member.
        y_N: True = defective; both classes.
        group_N: Number of the group of each window, from 0; windows of one group are no independent evidence.
        prior: Weights that sum to 1, by member.
        few: The same: what is taken where there are too few groups to choose by.
        tolerance: A weighting that is so many standard errors behind the best one may as well be as good.
        seed: Of the resamples.
    """
    if len(np.unique(group_N[y_N])) < MIN_DEFECTIVE_GROUPS:
        return dict(few)
    score_NK = np.column_stack(list(log_odds.values()))
    prior_K = np.array([prior[name] for name in log_odds])
    weight_K = _choose(score_NK, y_N, group_N, prior_K, tolerance=tolerance, seed=seed)
    return {name: float(weight) for name, weight in zip(log_odds, weight_K, strict=True)}


def _choose(
    score_NK: Floats, y_N: Bools, group_N: Ints, prior_K: Floats, *, tolerance: float, seed: int
) -> Floats:
    tried_WK = _weightings(score_NK.shape[1])
    score_NW = score_NK @ tried_WK.T
    counts_RN = _resamples(group_N, y_N, seed)
    quality_RW = rank_qualities(score_NW, y_N, counts_RN)
    quality_W, resampled_RW = quality_RW[0], quality_RW[1:]
    best = int(np.argmax(quality_W))
    error_W = (resampled_RW[:, [best]] - resampled_RW).std(axis=0)
    single = max(quality_W[np.flatnonzero(tried_WK.max(axis=1) == 1)])
    allowed_W = (quality_W >= single) & (quality_W >= quality_W[best] - tolerance * error_W)
    distance_W = np.where(allowed_W, np.abs(tried_WK - prior_K).sum(axis=1), np.inf)
    nearest = np.flatnonzero(distance_W <= distance_W.min() + 1e-9)
    weight_K: Floats = tried_WK[nearest[np.argmax(quality_W[nearest])]]
    return weight_K


def rank_qualities(score_NW: Floats, y_N: Bools, counts_RN: Floats) -> Floats:
    """quality_RW: mean of AUC-ROC and AUC-PR of each scoring, with each window counted so often."""
    quality_RW = np.empty((len(counts_RN), score_NW.shape[1]))
    for w, score_N in enumerate(score_NW.T):
        order_N = np.argsort(-score_N, kind="stable")
        # Equal scores are one step of the curves.
        last_N = np.append(np.diff(score_N[order_N]) != 0, True)
        counts = counts_RN[:, order_N]
        hits_RN = np.cumsum(counts * y_N[order_N], axis=1)[:, last_N]
        seen_RN = np.cumsum(counts, axis=1)[:, last_N]
        num_hits, num_seen = hits_RN[:, -1:], seen_RN[:, -1:]
        gained_RN = np.diff(hits_RN, axis=1, prepend=0)
        precision_RN = hits_RN / np.maximum(seen_RN, 1)
        auc_pr = (gained_RN * precision_RN).sum(axis=1) / num_hits[:, 0]
        misses_RN = seen_RN - hits_RN
        missed_RN = np.diff(misses_RN, axis=1, prepend=0)
        area = (missed_RN * (hits_RN - gained_RN / 2)).sum(axis=1)
        auc_roc = area / (num_hits * (num_seen - num_hits))[:, 0]
        quality_RW[:, w] = (auc_pr + auc_roc) / 2
    return quality_RW


def _weightings(num_members: int) -> Floats:
    """All splits of 1 into tenths."""
    tenths = [
        each for each in itertools.product(range(TENTHS + 1), repeat=num_members) if sum(each) == TENTHS
    ]
    return np.array(tenths) / TENTHS


def _resamples(group_N: Ints, y_N: Bools, seed: int) -> Floats:
    """counts_RN: once each window as it is, then groups drawn with replacement, each draw with both classes.

    Groups with a defect and without one are drawn apart, as the gate does it.
    """
    num_groups = int(group_N.max()) + 1
    defective_G = np.zeros(num_groups, np.bool_)
    np.logical_or.at(defective_G, group_N, y_N)
    dice = np.random.default_rng(seed)
    counts_RG = np.zeros((NUM_RESAMPLES, num_groups))
    for kind in (np.flatnonzero(defective_G), np.flatnonzero(~defective_G)):
        if len(kind):
            drawn_RG = dice.integers(0, len(kind), (NUM_RESAMPLES, len(kind)))
            for r, drawn_G in enumerate(drawn_RG):
                counts_RG[r, kind] = np.bincount(drawn_G, minlength=len(kind))
    counts_RN = counts_RG[:, group_N]
    both_R = (counts_RN @ y_N > 0) & (counts_RN @ ~y_N > 0)
    return np.vstack([np.ones(len(y_N)), counts_RN[both_R]])
