"""Boosted trees on window statistics, fitted by scikit-learn (Ke et al. 2017, "LightGBM", is what it implements).

Values are replaced by the number of their bin before scikit-learn sees them: infinities are then numbers like others,
and with weights it would search for bins for minutes where this takes a fraction of a second.

Shapes: N windows, S statistics, G groups, M nodes of all trees, E edges between the bins of a statistic; 2: good and
defective.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.members.trees import LARGEST, LEAF, Bools, Floats, Trees

LEARNING_RATE = 0.1
# One leaf more for so many windows, between the bounds below. More leaves: few windows are learnt by heart. Fewer:
# defects that show in several statistics at once take more trees than there are.
WINDOWS_OF_A_LEAF = 100
LEAVES = (6, 15)
# One window of so many is enough for a leaf, between the bounds below. Smaller leaves: chance is learnt. Larger: what
# rare defects have in common is not.
SHARE_OF_A_LEAF = 10
LEAF_WINDOWS = (3, 20)
# Smaller: leaves of few windows are too sure. Larger: they say little.
L2 = 1.0
# Smaller: levels that lie close together cannot be told apart. Larger: more than scikit-learn takes.
MAX_BINS = 255
# Of the statistics, drawn anew for each split. More: where two of them tell only together, a split that tells nothing
# by itself is taken by luck alone (docs/model.md). Fewer: splits that tell are missed.
SHARE_OF_STATISTICS = 0.5
# Smaller: newest windows that are few end the fit before it has begun. Larger: few windows are learnt by heart.
MIN_TREES = 60
MAX_TREES = 200
# Trees between two looks at the newest windows, and how many looks in a row without a better one end the search.
STEP_TREES = 20
PATIENCE = 3
# In AUC-ROC, from which a look is a better one. Smaller: chance adds trees. Larger: trees that tell are left out.
LEAST_GAIN = 0.002
# The newest windows are at least and at most these shares of all, and hold so many of each class, as do the others.
NEWEST_SHARE = (0.2, 0.4)
LEAST_OF_A_CLASS = 5
# scikit-learn's own bound: the middle between two such values is finite.
LARGEST_FITTED = 1e300

log = structlog.get_logger()


def fit_trees(
    stats_NS: Floats,
    y_N: Bools,
    weight_N: Floats | None,
    group_order_N: npt.NDArray[np.int64],
    *,
    seed: int,
    max_bytes: int,
    num_trees: int | None = None,
) -> Trees:
    """Fits trees to all windows; as many as rank the newest groups best when only the others are fitted.

    The same input gives the same bits on one kind of processor: one thread computes all sums.

    Args:
        stats_NS: NaN = missing.
        y_N: True = defective.
        weight_N: What each window counts; one that counts 0 is left out. None: all the same.
        group_order_N: Rank in time of the group of each window: a group is never split.
        max_bytes: Of the tensors; the last trees are left out where they would be larger.
        num_trees: As many; None: as many as rank the newest groups best.

    Raises:
        NotEnoughDataError: Of the windows that count, none is defective, or all are.
        ModelInputError: Shapes do not fit, or a weight is negative or not finite.
    """
    _check(stats_NS, y_N, weight_N, group_order_N)
    if weight_N is not None and len(weight_N):
        weight_N = weight_N / (weight_N.max() or 1.0)
        counts_N = weight_N > 0
        stats_NS, y_N, group_order_N = stats_NS[counts_N], y_N[counts_N], group_order_N[counts_N]
        # Penalty and least curvature of a leaf are made for windows that count 1.
        weight_N = weight_N[counts_N] / weight_N[counts_N].mean() if counts_N.any() else None
    num_defects = int(y_N.sum())
    if num_defects in (0, len(y_N)):
        raise NotEnoughDataError(
            f"trees need both classes, got {num_defects} defective of {len(y_N)} windows that count"
        )
    edges = [bin_edges(value_N) for value_N in stats_NS.T]
    bin_NS = binned(stats_NS, edges)
    # Several threads beside a busy process take many times longer, and sums could differ by their order.
    with threadpool_limits(1):
        num_trees = num_trees or _num_trees(bin_NS, y_N, weight_N, group_order_N, seed)
        booster = _booster(len(y_N), seed).set_params(max_iter=num_trees).fit(bin_NS, y_N, weight_N)
    return _within(trees_of(booster, edges), max_bytes)


def bin_edges(value_N: Floats) -> Floats:
    """edge_E, rising: bins of one value each where there are few values, of as many windows each otherwise."""
    sorted_N = np.clip(np.sort(value_N[~np.isnan(value_N)]), -LARGEST_FITTED, LARGEST_FITTED)
    if len(distinct := np.unique(sorted_N)) <= MAX_BINS:
        return (distinct[:-1] + distinct[1:]) / 2
    cut_E = np.linspace(0, len(sorted_N), MAX_BINS + 1)[1:-1].astype(np.intp)
    return np.unique((sorted_N[cut_E - 1] + sorted_N[cut_E]) / 2)


def binned(stats_NS: Floats, edges: Sequence[Floats]) -> Floats:
    """bin_NS: how many edges each value is above; NaN stays, but where there is nothing else it is 0."""
    bin_NS = np.empty_like(stats_NS)
    for statistic, edge_E in enumerate(edges):
        value_N = stats_NS[:, statistic]
        is_missing_N = np.isnan(value_N)
        bin_NS[:, statistic] = np.searchsorted(edge_E, value_N)
        bin_NS[is_missing_N, statistic] = 0 if is_missing_N.all() else np.nan
    return bin_NS


def newest_groups(y_N: Bools, group_order_N: npt.NDArray[np.int64]) -> Bools | None:
    """is_newest_N: the fewest newest groups with enough windows, or None where there are none.

    Both they and the others hold `LEAST_OF_A_CLASS` windows of each class.
    """
    group_G, place_N = np.unique(group_order_N, return_inverse=True)
    num_G2 = np.stack(
        [np.bincount(place_N[y_N == label], minlength=len(group_G)) for label in (0, 1)], axis=1
    )
    newest_G2 = num_G2[::-1].cumsum(axis=0)[::-1]
    share_G = newest_G2.sum(axis=1) / len(y_N)
    is_enough_G = np.minimum(newest_G2, newest_G2[0] - newest_G2).min(axis=1) >= LEAST_OF_A_CLASS
    is_enough_G &= (share_G >= NEWEST_SHARE[0]) & (share_G <= NEWEST_SHARE[1])
    return np.asarray(group_order_N >= group_G[is_enough_G][-1]) if is_enough_G.any() else None


def trees_of(booster: Any, edges: Sequence[Floats]) -> Trees:
    """The trees of a classifier of two classes that was fitted to bins.

    Raises:
        ArtifactError: scikit-learn made trees that `Trees` cannot hold.
    """
    trees = [predictor.nodes for (predictor,) in booster._predictors]
    nodes = np.concatenate([tree[_preorder(tree)] for tree in trees])
    is_split_M = nodes["is_leaf"] == 0
    number_M = nodes["value"].astype(np.float64)
    number_M[is_split_M] = [
        # An infinite threshold tells NaN from all values.
        edges[feature][int(threshold)] if np.isfinite(threshold) else LARGEST
        for feature, threshold in nodes[["feature_idx", "num_threshold"]][is_split_M]
    ]
    smallest = np.int16 if len(edges) <= np.iinfo(np.int16).max else np.int32
    tensors = {
        "baseline": np.array(booster._baseline_prediction.item(), dtype=np.float64),
        "feature_M": np.where(is_split_M, nodes["feature_idx"], LEAF).astype(smallest),
        "missing_left_M": (is_split_M & (nodes["missing_go_to_left"] > 0)).astype(np.uint8),
        "number_M": number_M,
    }
    return Trees.from_tensors(tensors, len(edges))


def _preorder(nodes: npt.NDArray[Any]) -> list[int]:
    order: list[int] = []
    ahead = [0]
    while ahead:
        place = ahead.pop()
        order.append(place)
        if not nodes["is_leaf"][place]:
            ahead += [int(nodes["right"][place]), int(nodes["left"][place])]
    return order


def _num_trees(
    bin_NS: Floats, y_N: Bools, weight_N: Floats | None, group_order_N: npt.NDArray[np.int64], seed: int
) -> int:
    """How many trees rank the newest windows best; not by the loss, which grows as the rate of defects drifts."""
    is_newest_N = newest_groups(y_N, group_order_N)
    if is_newest_N is None:
        return MIN_TREES  # nothing tells how many are best
    weight_of = [None if weight_N is None else weight_N[side_N] for side_N in (~is_newest_N, is_newest_N)]
    older_NS, newest_NS = bin_NS[~is_newest_N], bin_NS[is_newest_N]
    # A statistic that only the newest windows have: scikit-learn fits to none without a value.
    is_new_S = np.isnan(older_NS).all(axis=0)
    older_NS[:, is_new_S] = newest_NS[:, is_new_S] = 0
    booster = _booster(len(y_N), seed).set_params(warm_start=True)
    best, best_rank, looks_since = MIN_TREES, 0.0, 0
    for num_trees in range(MIN_TREES, MAX_TREES + 1, STEP_TREES):
        booster.set_params(max_iter=num_trees).fit(older_NS, y_N[~is_newest_N], weight_of[0])
        logit_N = booster.decision_function(newest_NS)
        rank = float(roc_auc_score(y_N[is_newest_N], logit_N, sample_weight=weight_of[1]))
        looks_since += 1
        if rank > best_rank + LEAST_GAIN:
            best, best_rank, looks_since = num_trees, rank, 0
        if looks_since == PATIENCE:
            break
    return best


def _booster(num_windows: int, seed: int) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=LEARNING_RATE,
        max_leaf_nodes=int(np.clip(num_windows // WINDOWS_OF_A_LEAF, *LEAVES)),
        min_samples_leaf=int(np.clip(num_windows // SHARE_OF_A_LEAF, *LEAF_WINDOWS)),
        l2_regularization=L2,
        max_features=SHARE_OF_STATISTICS,
        max_bins=MAX_BINS,
        early_stopping=False,
        random_state=seed,
    )


def _within(trees: Trees, max_bytes: int) -> Trees:
    if trees.num_bytes <= max_bytes:
        return trees
    sizes = [trees.first(num).num_bytes for num in range(trees.num_trees)]
    kept = trees.first(max(0, bisect_right(sizes, max_bytes) - 1))
    log.warning(
        "the last trees are left out: all would be too large",
        num_trees=kept.num_trees,
        fitted=trees.num_trees,
        fitted_bytes=trees.num_bytes,
        max_bytes=max_bytes,
    )
    return kept


def _check(
    stats_NS: Floats, y_N: Bools, weight_N: Floats | None, group_order_N: npt.NDArray[np.int64]
) -> None:
    if stats_NS.ndim != 2 or stats_NS.shape[1] < 1:
        raise ModelInputError(f"expected statistics [N, S], got shape {stats_NS.shape}")
    if y_N.dtype != np.bool_:
        raise ModelInputError(f"expected labels of type bool, got {y_N.dtype}")
    for name, each_N in (("labels", y_N), ("groups", group_order_N), ("weights", weight_N)):
        if each_N is not None and each_N.shape != stats_NS.shape[:1]:
            raise ModelInputError(f"expected {len(stats_NS)} {name}, got shape {each_N.shape}")
    if weight_N is not None and not ((weight_N >= 0) & (weight_N < np.inf)).all():
        raise ModelInputError("a weight is negative or not finite")
