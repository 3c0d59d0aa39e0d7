"""configs/model_config.yaml: the model and how it is trained. Importable without torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from streamer.settings import Section, Settings

Readout = Literal["last", "mean", "max", "mean_max"]
Monitor = Literal["val_loss", "val_auc_pr", "val_auc_roc"]


class ArchitectureConfig(Section):
    """What the weights fit: two models with the same architecture can exchange them."""

    num_layers: int = Field(2, ge=1, le=4)
    hidden_size: int = Field(64, ge=4, le=512)
    bidirectional: bool = False
    dropout: float = Field(0.2, ge=0, lt=1, description="between LSTM layers and before each head layer")
    readout: Readout = "mean_max"
    head_hidden_dims: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = (32,)
    # Larger: fewer LSTM steps, so faster, and dynamics shorter than the stride are left to the filters.
    stem_stride: int = Field(5, ge=1, le=64, description="stride of the convolution stem; 1: no stem")
    stem_channels: int = Field(32, ge=1, le=512, description="filters of the stem; unused without it")
    window_statistics: bool = Field(
        True, description="mean, std, min, max and slope of each sensor beside the LSTM, into the same head"
    )
    # Levels drift from regime to regime and an LSTM learns them by heart; the head has them as statistics.
    center_windows: bool = Field(
        True, description="the LSTM sees each sensor less its mean over the window; needs window_statistics"
    )

    @model_validator(mode="after")
    def _levels_are_seen_somewhere(self) -> Self:
        if self.center_windows and not self.window_statistics:
            raise ValueError("center_windows without window_statistics hides every level from the model")
        return self


class TrainingConfig(Section):
    """The loop."""

    batch_size: int = Field(32, ge=1, le=65_536)
    max_epochs: int = Field(60, ge=1, le=100_000)
    seed: int = Field(0, ge=0, le=2**31 - 1)
    # More pay on an idle machine only: beside one busy process two threads were 5 times slower than one.
    num_threads: int = Field(1, ge=1, le=256)
    grad_clip_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")


class OptimizerConfig(Section):
    """Adam."""

    learning_rate: float = Field(1e-3, gt=0, le=1)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0, le=1e-2)
    weight_decay: float = Field(1e-4, ge=0, le=1)


class SchedulerConfig(Section):
    """ReduceLROnPlateau on the validation loss."""

    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(5, ge=0, le=10_000, description="epochs without a lower validation loss")
    min_lr: float = Field(1e-6, ge=0, le=1)


class EarlyStoppingConfig(Section):
    """When to stop; the best weights are restored."""

    patience: int = Field(15, ge=1, le=10_000, description="epochs without an improvement")
    min_delta: float = Field(1e-4, ge=0, description="a smaller change is no improvement")
    monitor: Monitor = "val_loss"


class LossConfig(Section):
    """Binary cross-entropy on logits, the defective class weighted."""

    # The positive weight is (good windows / defective windows) * this. It moves every probability upwards and
    # leaves the ranking as it is: the threshold is chosen on validation windows, so it moves along.
    weight_multiplier: float = Field(3.0, gt=0, le=1000)


class DataProcessingConfig(Section):
    """From raw sensor values to what the LSTM sees."""

    # The mean and std of a sensor with heavy tails say more about its tails than about its usual range.
    normalisation: Literal["zscore", "robust"] = Field(
        "robust", description="zscore: mean and std; robust: median and interquartile range"
    )
    # Smaller: faults far outside the usual range look alike. Larger: one spike outweighs the window.
    clip: float = Field(8.0, gt=0, le=1e6, description="limit of a normalised value")
    finetune_normalisation: Literal["keep", "refit"] = Field(
        "keep", description="of a model that was trained before: keep its own, or fit it to the new windows"
    )


class ModelSettings(Settings):
    """configs/model_config.yaml."""

    architecture: ArchitectureConfig = ArchitectureConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    loss: LossConfig = LossConfig()
    data_processing: DataProcessingConfig = DataProcessingConfig()
