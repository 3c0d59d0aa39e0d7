"""Whether the normalisation of a model is fitted anew before a training.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import structlog
import torch

from trainer.learn.config import DataProcessingConfig
from trainer.learn.feed import Feed
from trainer.learn.model import SteelDefectLSTM

log = structlog.get_logger()


def fit_where_due(
    model: SteelDefectLSTM, train_feed: Feed, config: DataProcessingConfig, device: torch.device
) -> None:
    """Fits the normalisation of a model that has none, or of which `finetune_normalisation` wants it.

    Raises:
        NotEnoughDataError: The loader cannot be read again.
        ModelInputError: Its windows do not fit the model, or hold no valid value at all.
    """
    policy = config.finetune_normalisation if model.is_normalised else "refit"
    if policy == "keep":
        return
    x_NTF, mask_NT = train_feed.windows()
    x_NTF, mask_NT = x_NTF.to(device), None if mask_NT is None else mask_NT.to(device)
    if policy == "auto":
        hidden = model.hidden_sensors(x_NTF, mask_NT, config)
        if not hidden:
            return
        log.warning("normalisation is fitted anew", sensors_it_hid=hidden)
    model.fit_normalisation(x_NTF, mask_NT, config)
