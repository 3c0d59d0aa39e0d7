"""configs/trainer.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from streamer.config import HttpConfig, KafkaConfig, LoggingConfig, RedisConfig, TopicsConfig
from streamer.settings import Section, Settings, load_settings
from trainer.learn.config import ModelSettings
from trainer.release.config import GateConfig, RegistryConfig


class DatasetConfig(Section):
    """Which windows a data set has, and how it is split in time."""

    windows: str = Field("default", description="name of the window spec")
    # Smaller: old casts are forgotten sooner. Larger: memory and time a cycle.
    max_windows: int = Field(50_000, ge=10, description="the newest ones are taken")
    # Smaller: an older data set cannot be read again sooner. Larger: Redis keeps casts that retention would take.
    num_kept: int = Field(
        3, ge=0, le=1_000, description="data sets held besides the champion's and the current one"
    )
    train_share: float = Field(0.6, gt=0, lt=1)
    validation_share: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _gate_is_left(self) -> Self:
        if self.train_share + self.validation_share >= 1:
            raise ValueError("train_share + validation_share must leave something for the gate")
        return self


class TriggersConfig(Section):
    """When a cycle starts."""

    # Smaller: more cycles that learn little. Larger: the model lags behind the plant.
    new_labelled_windows: int = Field(500, ge=1, description="since the last cycle")
    interval_s: float | None = Field(86_400.0, gt=0, description="with at least one new window; null: never")
    poll_s: float = Field(5.0, gt=0, le=3_600, description="how often Redis is asked")


class ModelConfig(Section):
    """Where the model and its training are configured."""

    config: Path = Field(Path("model_config.yaml"), description="relative to this file")
    # A folder a cycle grows in it; nothing is ever removed.
    tensorboard_dir: Path | None = Field(
        None, description="gets the curves of every cycle, needs castloop[tensorboard]; null: none"
    )


class TrainerSettings(Settings):
    """The file of the trainer."""

    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    redis: RedisConfig = RedisConfig()
    dataset: DatasetConfig = DatasetConfig()
    triggers: TriggersConfig = TriggersConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    model: ModelConfig = ModelConfig()
    http: HttpConfig = HttpConfig()
    logging: LoggingConfig = LoggingConfig()


def load_trainer_settings(path: Path) -> tuple[TrainerSettings, ModelSettings]:
    """Reads the trainer's file and the model file that it names.

    Raises:
        ConfigError: With all faults of the first file that has some.
    """
    settings = load_settings(TrainerSettings, path)
    return settings, load_settings(ModelSettings, path.parent / settings.model.config)
