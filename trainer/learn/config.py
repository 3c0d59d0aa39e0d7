"""configs/model_config.yaml: the model and how it is trained. Importable without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from streamer.settings import PlacedError, Section, Settings

Readout = Literal["last", "mean", "max", "mean_max", "attention", "mean_max_attention"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]
Amp = Literal["off", "auto", "bf16", "fp16"]
NormalisationMethod = Literal["zscore", "robust", "quantile"]
Preset = Literal["standard", "bidirectional", "deep", "lightweight"]
Monitor = Literal[
    "val_loss",
    "val_auc_roc",
    "val_auc_pr",
    "val_f1",
    "val_precision",
    "val_recall",
    "val_accuracy",
    "val_brier",
    "val_ece",
]
ParameterGroup = Literal["recurrent", "head", "normalisation"]
# What a score is made of.
Member = Literal["lstm", "linear", "trees"]
MEMBERS: tuple[Member, ...] = get_args(Member)
Start = Literal["finetune", "scratch"]
LearningRate = Annotated[float, Field(gt=0, le=1)]

# `standard` is the plain LSTM of the textbooks: no stem, no statistics, the last output into the head.
_PLAIN: dict[str, Any] = {
    "readout": "last",
    "stem_stride": 1,
    "window_statistics": False,
    "center_windows": False,
    "linear_path": False,
    "tree_path": False,
}
PRESETS: dict[Preset, dict[str, Any]] = {
    "standard": {**_PLAIN, "num_layers": 2, "hidden_size": 64},
    "bidirectional": {**_PLAIN, "bidirectional": True, "readout": "mean_max"},
    "deep": {**_PLAIN, "num_layers": 4, "hidden_size": 128, "dropout": 0.3, "head_hidden_dims": (64, 32)},
    "lightweight": {**_PLAIN, "num_layers": 1, "hidden_size": 32, "head_hidden_dims": (16,)},
}


class ArchitectureConfig(Section):
    """What the weights fit: two models with the same architecture can exchange them."""

    preset: Preset | None = Field(
        None, exclude=True, description="values for the keys of this section that are not given"
    )
    num_layers: int = Field(2, ge=1, le=4)
    hidden_size: int = Field(64, ge=4, le=512)
    bidirectional: bool = False
    dropout: float = Field(0.2, ge=0, lt=1, description="between LSTM layers and before each head layer")
    readout: Readout = "mean_max_attention"
    head_hidden_dims: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = (32,)
    head_activation: Activation = "relu"
    head_norm: Literal["none", "batch", "layer"] = Field(
        "none", description="normalisation of what enters the head and each of its hidden layers"
    )
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

    # How much each counts is chosen by validation, so it costs little where the LSTM knows better.
    linear_path: bool = Field(
        True, description="a logistic regression on raw window statistics beside the LSTM"
    )
    tree_path: bool = Field(
        True, description="gradient-boosted trees on raw window statistics beside the LSTM"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, dict) else None
        return PRESETS[preset] | values if isinstance(preset, str) and preset in PRESETS else values

    @model_validator(mode="after")
    def _levels_are_seen_somewhere(self) -> Self:
        if self.center_windows and not self.window_statistics:
            raise ValueError("center_windows without window_statistics hides every level from the model")
        return self


class TrainingConfig(Section):
    """The loop."""

    batch_size: int = Field(32, ge=1, le=65_536)
    accumulate_batches: int = Field(1, ge=1, le=1024, description="batches of one optimizer step")
    max_epochs: int = Field(60, ge=1, le=100_000)
    # More: the better one on validation is taken, and each costs a training.
    candidates: tuple[Start, ...] = Field(
        ("finetune",),
        min_length=1,
        description="what trainings of a cycle start from: the champion's weights, new ones; the best is taken",
    )
    # Brokers as they come take records of 1 MB. More: `max.message.bytes` of the models' topic must allow it.
    max_model_bytes: int = Field(
        900_000,
        ge=10_000,
        le=7_000_000,
        description="of a model file; trees that would make it larger are left out, a larger LSTM is refused",
    )
    refit_on_all: bool = Field(
        True,
        description="linear model and trees are fitted to the gate's windows as well before they are published",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)
    # A batch is computed in so many parts and their gradients summed in order, whoever computes them: so the result
    # depends on this number, and not on workers, processes or load. More: more cores can share a batch, and each
    # multiplication is smaller (two parts on one core cost an eighth).
    num_slices: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="parts that a batch is computed in; auto: 2 on a CPU, 1 elsewhere"
    )
    num_workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="threads that compute slices side by side; auto: measured while training"
    )
    # More pay on an idle machine only: beside one busy process two threads were 5 times slower than one.
    num_threads: int = Field(1, ge=1, le=256, description="threads within one operation of one worker")
    grad_clip_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    amp: Amp = Field(
        "auto",
        description="half precision; auto: what the GPU has from a hidden_size of 256 on, none on a CPU",
    )
    freeze_layers: tuple[str, ...] = Field(
        (), description="modules that keep their weights, such as stem, lstm, lstm.0, head"
    )

    @model_validator(mode="after")
    def _workers_have_slices(self) -> Self:
        slices, workers = self.num_slices, self.num_workers
        if slices != "auto" and workers != "auto" and workers > slices:
            raise ValueError(f"{workers} num_workers have nothing to do beside {slices} num_slices")
        return self


class OptimizerConfig(Section):
    """Adam, or AdamW; a rate that is not given is `learning_rate`."""

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: LearningRate = 1e-3
    recurrent_learning_rate: LearningRate | None = Field(None, description="of stem and LSTM")
    head_learning_rate: LearningRate | None = Field(None, description="of attention and head")
    normalisation_learning_rate: LearningRate | None = Field(
        None, description="of batch and layer normalisation, which never decay"
    )
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0, le=1e-2)
    weight_decay: float = Field(1e-4, ge=0, le=1)

    @property
    def group_rates(self) -> dict[ParameterGroup, float]:
        """The learning rate of each type of layer."""
        given: dict[ParameterGroup, float | None] = {
            "recurrent": self.recurrent_learning_rate,
            "head": self.head_learning_rate,
            "normalisation": self.normalisation_learning_rate,
        }
        return {name: self.learning_rate if rate is None else rate for name, rate in given.items()}


class SchedulerConfig(Section):
    """How the learning rates change; each scheduler reads the keys that bear its name."""

    name: Literal["plateau", "cosine_warm_restarts", "step", "exponential", "constant"] = "plateau"
    warmup_steps: int = Field(0, ge=0, le=10_000_000, description="optimizer steps of a linear rise")
    min_lr: float = Field(1e-6, ge=0, le=1, description="of plateau and cosine_warm_restarts")
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(5, ge=0, le=10_000, description="epochs without a lower validation loss")
    cosine_epochs: int = Field(10, ge=1, le=100_000, description="until the first restart")
    cosine_factor: int = Field(2, ge=1, le=100, description="of the epochs from restart to restart")
    step_epochs: int = Field(10, ge=1, le=100_000, description="between two steps")
    step_factor: float = Field(0.5, gt=0, lt=1)
    exponential_factor: float = Field(0.95, gt=0, lt=1, description="each epoch")


class EarlyStoppingConfig(Section):
    """When to stop; the best weights are restored."""

    patience: int = Field(15, ge=1, le=10_000, description="epochs without an improvement")
    min_delta: float = Field(1e-4, ge=0, description="a smaller change is no improvement")
    # Defects weigh heavily in the loss: it rises with every sure mistake while the ranking still improves, and on
    # simulated casts its first epoch was its best. The trials stand in docs/model.md.
    monitor: Monitor = "val_auc_pr"


class CheckpointConfig(Section):
    """How often the complete state is saved; it is also saved on a request to stop."""

    every_epochs: int = Field(1, ge=1, le=100_000)
    every_steps: int | None = Field(None, ge=1, description="within an epoch as well; null: never")
    keep_best: int = Field(1, ge=1, le=1000, description="weights of so many best epochs")


class LossConfig(Section):
    """Binary cross-entropy on logits, the defective class weighted."""

    # auto is (good windows / defective windows) * weight_multiplier. It moves every probability upwards and
    # leaves the ranking as it is: the threshold is chosen on validation windows, so it moves along.
    pos_weight: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto", "off"] = Field(
        "auto", description="what a defective window counts"
    )
    weight_multiplier: float = Field(3.0, gt=0, le=1000, description="of pos_weight: auto")
    focal_gamma: float = Field(0.0, ge=0, le=10, description="focal loss; 0: plain cross-entropy")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="labels move so far towards 0.5")
    recency_half_life_days: float | None = Field(
        None, gt=0, description="a window so much older than the newest counts half; null: all count the same"
    )


class DataProcessingConfig(Section):
    """From raw sensor values to what the LSTM sees."""

    # The mean and std of a sensor with heavy tails say more about its tails than about its usual range.
    normalisation: NormalisationMethod = Field(
        "robust", description="mean and std; median and interquartile range; rank among the training values"
    )
    # Smaller: faults far outside the usual range look alike. Larger: one spike outweighs the window.
    clip: float = Field(8.0, gt=0, le=1e6, description="limit of a normalised value")
    finetune_normalisation: Literal["auto", "keep", "refit"] = Field(
        "auto",
        description="of a model that was trained before: keep its own, or fit it to the new windows; "
        "auto: keep it unless it hides a sensor",
    )


class ModelSettings(Settings):
    """configs/model_config.yaml."""

    architecture: ArchitectureConfig = ArchitectureConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    loss: LossConfig = LossConfig()
    data_processing: DataProcessingConfig = DataProcessingConfig()

    @model_validator(mode="after")
    def _cosine_falls(self) -> Self:
        lowest = min(self.optimizer.group_rates.values())
        if self.scheduler.name == "cosine_warm_restarts" and self.scheduler.min_lr > lowest:
            message = f"lies above a learning rate of {lowest:g}, which would rise to it"
            raise PlacedError([(("scheduler", "min_lr"), message)])
        return self
