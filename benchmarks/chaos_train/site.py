"""Where it happens: a broker that can be cut off, a Redis, a plant, and the trainer's files."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import yaml

from benchmarks.apache_kafka import ApacheBroker
from benchmarks.chaos_ingest.servers import FragileRedis, ProxiedBroker
from benchmarks.stored import StoredPlant
from streamer.config import DataConfig, KafkaConfig, RedisConfig, SensorConfig, TopicsConfig, WindowsConfig
from streamer.store.connection import connect
from trainer.config import TrainerSettings
from trainer.cycle.config import CycleConfig
from trainer.cycle.journal import CycleJournal
from trainer.cycle.state import State
from trainer.data.config import DatasetConfig
from trainer.gate.config import GateConfig
from trainer.learn.config import (
    ArchitectureConfig,
    CheckpointConfig,
    EarlyStoppingConfig,
    ModelSettings,
    OptimizerConfig,
    TrainingConfig,
)
from trainer.release import RegistryConfig, RegistryReader
from trainer.triggers import TriggersConfig

DATA = DataConfig(
    sensors=(SensorConfig(name="mold_level", unit="mm"), SensorConfig(name="casting_speed", unit="m/min")),
    block_steps=16,
)
CAST_STEPS, WINDOW_STEPS, CASTS_A_CYCLE = 40, 20, 60
# The embedded broker is cut off by a proxy, Apache Kafka is killed and started again.
BROKERS: dict[str, type[ProxiedBroker] | type[ApacheBroker]] = {
    "embedded": ProxiedBroker,
    "apache": ApacheBroker,
}
SPEC = WindowsConfig(size_steps=WINDOW_STEPS, hop_steps=WINDOW_STEPS)
WINDOWS_A_CYCLE = CASTS_A_CYCLE * CAST_STEPS // WINDOW_STEPS
MODEL = ModelSettings(
    architecture=ArchitectureConfig(num_layers=1, hidden_size=8, head_hidden_dims=(8,), dropout=0.0),
    training=TrainingConfig(max_epochs=12, batch_size=8),
    optimizer=OptimizerConfig(learning_rate=0.01),
    early_stopping=EarlyStoppingConfig(monitor="val_loss", patience=12),
    checkpoint=CheckpointConfig(every_steps=5),
)


class Site:
    """Everything but the trainer; one namespace, one pair of topics and one registry for each `scene`.

    Args:
        broker: One of `BROKERS`.
    """

    def __init__(self, broker: str = "embedded") -> None:
        self.broker, self.redis = BROKERS[broker](), FragileRedis()
        self._stack = ExitStack()
        self.folder = Path()

    def __enter__(self) -> Self:
        try:
            self.folder = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="castloop-chaos-"))
            )
            self._stack.enter_context(self.broker)
            self._stack.enter_context(self.redis)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Scene:
    """A plant, and a trainer's configuration on it.

    Args:
        name: Of namespace, topics and folder.
    """

    def __init__(self, site: Site, name: str) -> None:
        self.folder = site.folder / name
        self.settings = TrainerSettings(
            kafka=KafkaConfig(bootstrap_servers=site.broker.bootstrap_servers, request_timeout_ms=2_000),
            topics=TopicsConfig(models=f"{name}.models", model_events=f"{name}.events"),
            redis=RedisConfig(url=site.redis.url, namespace=name, timeout_s=2),
            dataset=DatasetConfig(max_windows=3 * WINDOWS_A_CYCLE),
            triggers=TriggersConfig(new_labelled_windows=WINDOWS_A_CYCLE, interval_s=None, poll_s=0.05),
            cycle=CycleConfig(backoff_s=0.2, max_backoff_s=1.0),
            gate=GateConfig(min_defective_casts=4, min_good_casts=4),
            registry=RegistryConfig(
                path=self.folder / "registry", keep=10_000, keep_refused=10_000, lease_s=3
            ),
        )
        self.config = self._write(self.folder, self.settings)
        self._client = connect(self.settings.redis)
        self._plant = StoredPlant(self._client, name, DATA, SPEC, num_steps=CAST_STEPS)
        self._num_casts = self._num_others = 0
        self.reader = RegistryReader(self.settings.registry)

    def more_windows(self) -> None:
        """Writes what a cycle is due for."""
        begin, self._num_casts = self._num_casts, self._num_casts + CASTS_A_CYCLE
        self._plant.write(range(begin, self._num_casts))

    def other_config(self) -> Path:
        """Of the same model, with a registry of its own."""
        self._num_others += 1
        folder = self.folder / f"other-{self._num_others}"
        registry = self.settings.registry.model_copy(update={"path": folder / "registry"})
        return self._write(folder, self.settings.model_copy(update={"registry": registry}))

    def state(self) -> State:
        """What the trainer has written of its cycles."""
        return CycleJournal(self.reader.folder).state

    def is_decided(self) -> bool:
        """Whether all that was written is decided."""
        return self.state().arrival == self._plant.reader().last_arrival()

    def is_settled(self) -> bool:
        """Whether it is published, too."""
        return self.is_decided() and not self.reader.outbox()

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _write(self, folder: Path, settings: TrainerSettings) -> Path:
        folder.mkdir(parents=True)
        http = settings.http.model_copy(update={"port": 0})
        logging = settings.logging.model_copy(update={"format": "json"})
        settings = settings.model_copy(update={"http": http, "logging": logging})
        for name, part in (("trainer.yaml", settings), ("model_config.yaml", MODEL)):
            (folder / name).write_text(yaml.safe_dump(part.model_dump(mode="json")))
        return folder / "trainer.yaml"


def until(holds: object, patience_s: float = 60.0) -> bool:
    """Waits until a condition holds; False if it does not in time."""
    deadline = time.monotonic() + patience_s
    assert callable(holds)
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
