"""What a model learns from the training part at once, before the first step: its normalisation.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import structlog
import torch

from trainer.learn.config import DataProcessingConfig
from trainer.learn.engine.batch import Part
from trainer.learn.engine.feed import Feed
from trainer.learn.model.network import SteelDefectLSTM

log = structlog.get_logger()


def fit_at_once(
    model: SteelDefectLSTM, train_feed: Feed, config: DataProcessingConfig, device: torch.device
) -> None:
    """Fits the normalisation where it is due.

    Raises:
        NotEnoughDataError: The loader cannot be read again.
        ModelInputError: Its windows do not fit the model, or hold no valid value at all.
    """
    if model.is_normalised and config.finetune_normalisation == "keep":
        return
    part = train_feed.windows().to(device)
    if _is_due(model, part, config):
        model.fit_normalisation(part.x_NTF, part.mask_NT, config, index_N=part.index_N)


def _is_due(model: SteelDefectLSTM, part: Part, config: DataProcessingConfig) -> bool:
    if not model.is_normalised or config.finetune_normalisation == "refit":
        return True
    if config.finetune_normalisation == "keep":
        return False
    hidden = model.hidden_sensors(part.x_NTF, part.mask_NT, config, index_N=part.index_N)
    if hidden:
        log.warning("normalisation is fitted anew", sensors_it_hid=hidden)
    return bool(hidden)
