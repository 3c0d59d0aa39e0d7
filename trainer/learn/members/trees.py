"""Boosted trees as plain arrays: checked and scored with numpy alone.

Nodes stand in preorder: behind a split comes all of its left side, then all of its right side, then the next tree. So
which nodes are leaves says whose child each node is, and no file can hold a node that is reached twice or never.

Shapes: N windows, B windows of a pass, S statistics, K trees, M nodes of all trees, P pairs of a tree and a window of
the pass, A of them still on their way to a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.errors import ArtifactError, ModelInputError

LEAF = -1
# Splits one below the other. Smaller: some that were fitted are refused. Larger: a foreign file scores slower.
MAX_DEPTH = 64
# Stands for infinity, which a model file does not hold, in thresholds and statistics: no value is larger.
LARGEST = float(np.finfo(np.float64).max)
# Bounds memory and changes no result. Smaller: more calls. Larger: what a pass computes counts beside the data.
VALUES_A_PASS = 262_144

# The types and the number of axes that a file may have each array in.
ARRAYS: dict[str, tuple[tuple[type[np.generic], ...], int]] = {
    "baseline": ((np.float64,), 0),
    "feature_M": ((np.int16, np.int32), 1),
    "missing_left_M": ((np.uint8,), 1),
    "number_M": ((np.float64,), 1),
}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """Trees whose leaf values add up to the logit of a defect; `from_tensors` makes them.

    Attributes:
        num_statistics: S.
        baseline: What the leaf values are added to.
        feature_M: The statistic that a split looks at, or `LEAF`.
        missing_left_M: Whether a split sends NaN to its left side.
        number_M: The threshold of a split, up to which values go to its left side; the value of a leaf.
        right_M: Where the right side of a split begins; its left side begins behind it.
        root_K: Where each tree begins.
    """

    num_statistics: int
    baseline: float
    feature_M: Ints
    missing_left_M: Bools
    number_M: Floats
    right_M: Ints
    root_K: Ints

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], num_statistics: int) -> Trees:
        """Reads what `tensors` wrote, in time and memory that its size bounds.

        Raises:
            ArtifactError: An array is missing, foreign, of another type or shape, or out of range, or the nodes do
                not make up trees.
        """
        _check_arrays(tensors)
        feature_M, missing_left_M, number_M = (
            tensors[name] for name in ("feature_M", "missing_left_M", "number_M")
        )
        baseline = float(tensors["baseline"])
        if len(feature_M) and not LEAF <= feature_M.min() <= feature_M.max() < num_statistics:
            raise ArtifactError(
                f"trees: a split looks at a statistic outside 0 to {num_statistics - 1}: "
                f"feature_M reaches from {feature_M.min()} to {feature_M.max()}"
            )
        # Not as bool: numpy counts on such bytes being 0 or 1.
        if (missing_left_M > 1).any():
            raise ArtifactError("trees: missing_left_M is neither 0 nor 1")
        right_M, root_K = _links(feature_M == LEAF)
        _check_sum(baseline, number_M[feature_M == LEAF])
        _check_depth(feature_M, right_M, root_K)
        return cls(
            num_statistics, baseline, feature_M, missing_left_M.astype(np.bool_), number_M, right_M, root_K
        )

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What a model file holds of them: finite, and of types that safetensors has."""
        return {
            "baseline": np.array(self.baseline),
            "feature_M": self.feature_M,
            "missing_left_M": self.missing_left_M.astype(np.uint8),
            "number_M": self.number_M,
        }

    @property
    def num_trees(self) -> int:
        """K."""
        return len(self.root_K)

    @property
    def num_bytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def first(self, num_trees: int) -> Trees:
        """Only the first so many trees, or all if there are fewer."""
        end = int(self.root_K[num_trees]) if num_trees < self.num_trees else len(self.feature_M)
        return replace(
            self,
            feature_M=self.feature_M[:end],
            missing_left_M=self.missing_left_M[:end],
            number_M=self.number_M[:end],
            right_M=self.right_M[:end],
            root_K=self.root_K[:num_trees],
        )

    def logits(self, stats_NS: npt.NDArray[np.floating[Any]]) -> Floats:
        """Scores windows; each as if it were alone.

        Args:
            stats_NS: NaN = missing; infinities are values like others.

        Returns:
            logit_N.

        Raises:
            ModelInputError: They are of other sensors.
        """
        if stats_NS.ndim != 2 or stats_NS.shape[1] != self.num_statistics:
            raise ModelInputError(
                f"expected {self.num_statistics} statistics a window, got shape {stats_NS.shape}: other sensors"
            )
        size = max(1, VALUES_A_PASS // max(1, self.num_trees, self.num_statistics))
        logit_N = np.full(len(stats_NS), self.baseline)
        for start in range(0, len(stats_NS), size):
            some = slice(start, start + size)
            # Tree by tree: a sum over an axis adds in an order that depends on how many windows there are.
            for leaf_B in self._leaves(np.minimum(stats_NS[some], LARGEST, dtype=np.float64)):
                logit_N[some] += self.number_M[leaf_B]
        return logit_N

    def _leaves(self, stats_BS: Floats) -> Ints:
        """leaf_KB: where each window ends in each tree."""
        num_windows = len(stats_BS)
        node_P = np.repeat(self.root_K, num_windows)
        pair_A = np.flatnonzero(self.feature_M[node_P] != LEAF)
        while len(pair_A):
            node_A = node_P[pair_A]
            value_A = stats_BS[pair_A % num_windows, self.feature_M[node_A]]
            is_left_A = np.where(
                np.isnan(value_A), self.missing_left_M[node_A], value_A <= self.number_M[node_A]
            )
            node_A = np.where(is_left_A, node_A + 1, self.right_M[node_A])
            node_P[pair_A] = node_A
            pair_A = pair_A[self.feature_M[node_A] != LEAF]
        return node_P.reshape(self.num_trees, num_windows)


def _check_arrays(tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    if tensors.keys() != ARRAYS.keys():
        raise ArtifactError(f"trees: expected the arrays {sorted(ARRAYS)}, got {sorted(tensors)}")
    for name, (types, num_axes) in ARRAYS.items():
        tensor = tensors[name]
        if tensor.dtype not in types or tensor.ndim != num_axes:
            raise ArtifactError(
                f"trees: expected {name} of {num_axes} axes and type {' or '.join(each.__name__ for each in types)}, "
                f"got shape {tensor.shape} and type {tensor.dtype}"
            )
        if not np.isfinite(tensor).all():
            raise ArtifactError(f"trees: {name} holds NaN or infinite values")
    lengths = {name: len(tensors[name]) for name, (_, num_axes) in ARRAYS.items() if num_axes}
    if len(set(lengths.values())) > 1:
        raise ArtifactError(f"trees: arrays of the nodes differ in length: {lengths}")


def _links(is_leaf_M: Bools) -> tuple[Ints, Ints]:
    """right_M and root_K: a split adds a side to those that are open, a leaf closes one, as does no other node."""
    change_M = np.where(is_leaf_M, -1, 1)
    num_trees = -int(change_M.sum())
    # Counts the node's own side and those of the trees to come: above 0 as long as there are nodes.
    open_M = num_trees + np.cumsum(change_M) - change_M
    if (open_M < 1).any():
        raise ArtifactError(
            f"trees: {len(is_leaf_M)} nodes, {int(is_leaf_M.sum())} of them leaves, do not make up trees: "
            "some are missing or too many"
        )
    # All of the left side has more sides open than its split, and the right side begins with as many.
    order_M = np.argsort(open_M, kind="stable")
    right_M = np.arange(len(is_leaf_M), dtype=np.int32)
    right_M[order_M[:-1]] = order_M[1:]
    first_open = np.unique(open_M, return_index=True)[1]
    return right_M, first_open[:num_trees][::-1].astype(np.int32)


def _check_sum(baseline: float, leaf_values: Floats) -> None:
    with np.errstate(over="ignore"):
        largest = abs(baseline) + np.abs(leaf_values).sum()
    if not np.isfinite(largest):
        raise ArtifactError("trees: leaf values add up to infinity")


def _check_depth(feature_M: Ints, right_M: Ints, root_K: Ints) -> None:
    node_A = root_K
    for _ in range(MAX_DEPTH + 1):
        node_A = node_A[feature_M[node_A] != LEAF]
        if not len(node_A):
            return
        node_A = np.concatenate([node_A + 1, right_M[node_A]])
    raise ArtifactError(f"trees: more than {MAX_DEPTH} splits one below the other")
