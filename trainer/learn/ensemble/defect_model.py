"""The defect model: an LSTM, a linear model and trees beside each other, how much each counts, and a calibration.

Shapes: N windows, T steps, F sensors, S statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from trainer.errors import ArtifactError, ModelInputError
from trainer.learn.config import MEMBERS, ArchitectureConfig, Member
from trainer.learn.members.calibration import Calibration
from trainer.learn.members.combination import Combination, Share
from trainer.learn.members.linear import LinearModel
from trainer.learn.members.statistics import WindowStatistics
from trainer.learn.members.trees import Trees
from trainer.learn.model.network import SteelDefectLSTM
from trainer.learn.scores.evaluate import Probabilities, network_logits

PAIRS, DIFFERENCES = "statistics.pairs", "statistics.differences"

Floats = npt.NDArray[np.float64]
Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class DefectModel:
    """Raw sensor values to the probability of a defect.

    Attributes:
        network: The LSTM; it is what is trained further.
        statistics: What the linear model and the trees see.
        linear: None where it is switched off.
        trees: None where they are switched off.
    """

    network: SteelDefectLSTM
    statistics: WindowStatistics
    linear: LinearModel | None
    trees: Trees | None
    combination: Combination
    calibration: Calibration

    @property
    def members(self) -> tuple[Member, ...]:
        """Those that there are, whatever they count."""
        there = {"lstm": True, "linear": self.linear is not None, "trees": self.trees is not None}
        return tuple(name for name in MEMBERS if there[name])

    def probabilities(
        self,
        x_NTF: npt.NDArray[np.float32],
        mask_NT: npt.NDArray[np.bool_],
        *,
        index_N: npt.NDArray[np.integer[Any]] | None = None,
        num_threads: int = 1,
    ) -> Probabilities:
        """Scores raw windows; only members that count are computed.

        Args:
            x_NTF: Raw values, NaN = missing.
            mask_NT: True = valid step.
            index_N: Which of the windows, in which order; None: all.
            num_threads: Of torch.

        Returns:
            prob_N, float64.

        Raises:
            ModelInputError: Shapes or types do not fit the model.
        """
        counting = self.combination.counting
        logits: dict[str, Floats] = {}
        if "lstm" in counting:
            logits["lstm"] = network_logits(
                self.network, x_NTF, mask_NT, index_N=index_N, num_threads=num_threads
            )
        if {"linear", "trees"} & {*counting}:
            logits |= self.path_logits(self.statistics(x_NTF, mask_NT, index_N))
        return self.calibration(self.combination(logits))

    def path_logits(self, stats_NS: Floats) -> dict[str, Floats]:
        """Logits of the linear model and of the trees, by their statistics."""
        paths = {"linear": self.linear, "trees": self.trees}
        return {name: path.logits(stats_NS) for name, path in paths.items() if path is not None}

    def with_paths(self, linear: LinearModel | None, trees: Trees | None) -> DefectModel:
        """The same with others beside the LSTM."""
        return replace(self, linear=linear, trees=trees)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What a model file holds."""
        tensors: dict[str, npt.NDArray[Any]] = {
            f"lstm.{name}": each.cpu().numpy() for name, each in self.network.state_dict().items()
        }
        tensors[PAIRS] = np.array(self.statistics.pairs, np.float64).reshape(-1, 2)
        tensors[DIFFERENCES] = np.array(self.statistics.differences, np.float64).reshape(-1, 3)
        for name, path in (("linear", self.linear), ("trees", self.trees)):
            if path is not None:
                tensors |= {f"{name}.{key}": each for key, each in path.tensors().items()}
        for name, share in self.combination.shares.items():
            tensors[f"combination.{name}"] = np.array([*share.calibration.tensor(), share.weight])
        tensors["calibration"] = self.calibration.tensor()
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Tensors, architecture: ArchitectureConfig, num_sensors: int) -> Self:
        """Reads what `tensors` gave.

        Raises:
            ArtifactError: They do not fit the architecture; the message says where.
        """
        statistics = _statistics(tensors, num_sensors)
        num_statistics = statistics.num_statistics
        return cls(
            _network(tensors, architecture, num_sensors),
            statistics,
            LinearModel.from_tensors(_under("linear", tensors), num_statistics)
            if architecture.linear_path
            else None,
            Trees.from_tensors(_under("trees", tensors), num_statistics) if architecture.tree_path else None,
            _combination(tensors, architecture),
            Calibration.from_tensor(tensors.get("calibration")),
        )


def model_bytes(network: SteelDefectLSTM) -> int:
    """Size of the tensors of an LSTM."""
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def network_state(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The weights of the LSTM among the tensors of a model file."""
    return {name: torch.tensor(each) for name, each in _under("lstm", tensors).items()}


def members_of(architecture: ArchitectureConfig) -> tuple[Member, ...]:
    """The members that an architecture has."""
    there = {"lstm": True, "linear": architecture.linear_path, "trees": architecture.tree_path}
    return tuple(name for name in MEMBERS if there[name])


def _under(prefix: str, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    start = f"{prefix}."
    return {name.removeprefix(start): each for name, each in tensors.items() if name.startswith(start)}


def _network(tensors: Tensors, architecture: ArchitectureConfig, num_sensors: int) -> SteelDefectLSTM:
    network = SteelDefectLSTM(architecture, num_sensors)
    try:
        network.load_state_dict(network_state(tensors))
    except RuntimeError as exc:
        raise ArtifactError(f"the tensors do not fit the architecture: {exc}") from exc
    return network


def _statistics(tensors: Tensors, num_sensors: int) -> WindowStatistics:
    rows = {}
    for name, width in ((PAIRS, 2), (DIFFERENCES, 3)):
        found = tensors.get(name)
        if found is None or found.ndim != 2 or found.shape[1] != width or found.dtype != np.float64:
            raise ArtifactError(f"{name}: expected float64 [N, {width}]")
        if not (np.isfinite(found).all() and (found[:, :2] == np.floor(found[:, :2])).all()):
            raise ArtifactError(f"{name}: its first two columns are not places of sensors")
        rows[name] = found.tolist()
    pairs = [(int(one), int(other)) for one, other in rows[PAIRS]]
    differences = [(int(one), int(other), gain) for one, other, gain in rows[DIFFERENCES]]
    try:
        return WindowStatistics(num_sensors, pairs, differences)
    except ModelInputError as exc:
        raise ArtifactError(f"statistics: {exc}") from exc


def _combination(tensors: Tensors, architecture: ArchitectureConfig) -> Combination:
    shares: dict[str, Share] = {}
    for name in members_of(architecture):
        share = tensors.get(f"combination.{name}")
        if share is None or share.shape != (3,) or share.dtype != np.float64 or not np.isfinite(share).all():
            raise ArtifactError(f"combination.{name}: expected float64 [3]: slope, offset and weight")
        shares[name] = Share(Calibration.from_tensor(share[:2]), float(share[2]))
    weights = [share.weight for share in shares.values()]
    if min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
        raise ArtifactError(f"combination: weights {weights} are not shares of 1")
    return Combination(shares)
