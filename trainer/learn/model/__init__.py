"""The network and its parts."""

from trainer.learn.model.network import SteelDefectLSTM, build_model

__all__ = ["SteelDefectLSTM", "build_model"]
