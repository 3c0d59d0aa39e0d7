"""configs/trainer.yaml."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from streamer.config import HttpConfig, KafkaConfig, LoggingConfig, RedisConfig, TopicsConfig
from streamer.settings import ConfigPath, Section, Settings, load_settings
from trainer.cycle.config import CycleConfig
from trainer.data.config import DatasetConfig
from trainer.gate.config import GateConfig
from trainer.learn.config import ModelSettings
from trainer.release.registry.config import RegistryConfig
from trainer.triggers import TriggersConfig


class ModelConfig(Section):
    """Where the model and its training are configured."""

    config: ConfigPath = Field(Path("model_config.yaml"), description="relative to this file")
    # A folder a cycle grows in it; nothing is ever removed.
    tensorboard_dir: ConfigPath | None = Field(
        None, description="gets the curves of every cycle, needs castloop[tensorboard]; null: none"
    )


class TrainerSettings(Settings):
    """The file of the trainer."""

    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    redis: RedisConfig = RedisConfig()
    dataset: DatasetConfig = DatasetConfig()
    triggers: TriggersConfig = TriggersConfig()
    cycle: CycleConfig = CycleConfig()
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
    return settings, load_settings(ModelSettings, settings.model.config)
