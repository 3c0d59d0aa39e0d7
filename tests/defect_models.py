"""Models as files hold them, made of a network alone."""

from __future__ import annotations

from trainer.learn.ensemble.defect_model import DefectModel
from trainer.learn.members.calibration import Calibration
from trainer.learn.members.combination import Combination, Share
from trainer.learn.members.statistics import WindowStatistics
from trainer.learn.model.network import SteelDefectLSTM

# Architectures that have nothing beside the network.
ALONE = {"linear_path": False, "tree_path": False}


def network_alone(network: SteelDefectLSTM) -> DefectModel:
    """A model that scores as its network does."""
    statistics = WindowStatistics(network.num_sensors)
    return DefectModel(
        network, statistics, None, None, Combination({"lstm": Share(Calibration(), 1.0)}), Calibration()
    )
