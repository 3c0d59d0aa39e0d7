"""What a model learns from the training part at once, before the first step: normalisation and the linear path.

Shapes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import structlog
import torch

from trainer.learn.config import DataProcessingConfig
from trainer.learn.engine.batch import Part
from trainer.learn.engine.feed import Feed
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.model.network import SteelDefectLSTM

log = structlog.get_logger()


def fit_at_once(
    model: SteelDefectLSTM,
    train_feed: Feed,
    loss: DefectLoss,
    config: DataProcessingConfig,
    device: torch.device,
) -> None:
    """Fits the normalisation where it is due, and the linear path to these windows whatever it was fitted to before.

    Raises:
        NotEnoughDataError: The loader cannot be read again.
        ModelInputError: Its windows do not fit the model, or hold no valid value at all.
    """
    if model.is_normalised and config.finetune_normalisation == "keep" and model.linear_path is None:
        return
    part = train_feed.windows().to(device)
    if _is_due(model, part, config):
        model.fit_normalisation(part.x_NTF, part.mask_NT, config, index_N=part.index_N)
    if model.linear_path is not None:
        weight_N = torch.ones_like(part.y_N) if part.weight_N is None else part.weight_N
        model.fit_linear_path(
            part.x_NTF, part.mask_NT, part.y_N, weight_N, loss.pos_weight, index_N=part.index_N
        )


def _is_due(model: SteelDefectLSTM, part: Part, config: DataProcessingConfig) -> bool:
    if not model.is_normalised or config.finetune_normalisation == "refit":
        return True
    if config.finetune_normalisation == "keep":
        return False
    hidden = model.hidden_sensors(part.x_NTF, part.mask_NT, config, index_N=part.index_N)
    if hidden:
        log.warning("normalisation is fitted anew", sensors_it_hid=hidden)
    return bool(hidden)
