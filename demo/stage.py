"""The demo's servers and services: all started here, all gone at the end, whatever happens."""

from __future__ import annotations

import queue
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from demo.child import Child, Event
from streamer.config import KafkaConfig, RedisConfig, StreamerSettings, TopicsConfig
from streamer.embedded import EmbeddedBroker, EmbeddedRedis
from streamer.errors import CastingError
from streamer.settings import load_settings
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.summary import Summary, summarise


class DemoFailedError(CastingError):
    """A child ended before its time; its last lines are in the message."""


class Stage:
    """An embedded broker and Redis in a temporary folder, and the product's processes on them.

    Args:
        configs: Folder with streamer.yaml, trainer.yaml and model_config.yaml.
    """

    def __init__(self, configs: Path) -> None:
        self.configs = configs.resolve()
        self.events: queue.Queue[Event] = queue.Queue()
        self._children: dict[str, Child] = {}
        self._stack = ExitStack()
        self._env: dict[str, str] = {}
        self._settings: StreamerSettings | None = None

    def __enter__(self) -> Self:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="castloop-demo-"))
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            broker = self._stack.enter_context(EmbeddedBroker())
            redis = self._stack.enter_context(EmbeddedRedis())
            self._stack.callback(self._stop_children)
        except BaseException:
            self._stack.close()
            raise
        self._env = {
            "CASTING_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "CASTING_REDIS__URL": redis.url,
            "CASTING_REGISTRY__PATH": str(self.folder / "registry"),
            "TMPDIR": str(self.folder),  # torch leaves a cache folder there
            "CASTING_HTTP__PORT": "0",
            "CASTING_LOGGING__FORMAT": "json",
            # The embedded broker lets a group wait for half of this before its first assignment.
            "CASTING_CONSUMER__SESSION_TIMEOUT_MS": "6000",
            "CASTING_CONSUMER__HEARTBEAT_INTERVAL_MS": "1000",
            # Two services and two servers share the cores.
            "OMP_NUM_THREADS": "1",
        }
        settings = load_settings(StreamerSettings, self.configs / "streamer.yaml")
        kafka = KafkaConfig(bootstrap_servers=broker.bootstrap_servers)
        self._settings = settings.model_copy(update={"kafka": kafka, "redis": RedisConfig(
            url=redis.url, namespace=settings.redis.namespace
        )})  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> StreamerSettings:
        """The streamer's settings, pointed at this stage's servers."""
        assert self._settings is not None  # noqa: S101 - set on entry
        return self._settings

    @property
    def kafka(self) -> KafkaConfig:
        """How to reach the broker."""
        return self.settings.kafka

    @property
    def topics(self) -> TopicsConfig:
        """Names of the topics."""
        return self.settings.topics

    def start(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Child:
        """Starts `python -m <arguments>` as a child."""
        command = [sys.executable, "-m", *arguments]
        log = self.folder / f"{name}.log"
        child = Child(name, command, {**self._env, **(env or {})}, log, self.events)
        self._children[name] = child
        return child

    def check(self, may_end: str) -> None:
        """Checks that all children run; `may_end` may have ended, but well.

        Raises:
            DemoFailedError: One ended.
        """
        for name, child in self._children.items():
            code = child.returncode
            if code is not None and (name != may_end or code != 0):
                raise DemoFailedError(f"the {name} ended with {code}:\n{child.tail()}")

    def summary(self) -> Summary:
        """Counts of the data set."""
        client = connect(self.settings.redis)
        try:
            return summarise(client, Keys(self.settings.redis.namespace), self.settings.windows.name)
        finally:
            client.close()

    def _stop_children(self) -> None:
        # The feeder first, then those who read: nobody complains about a missing neighbour.
        for name in ("feeder", "subscriber", "trainer", "streamer"):
            if name in self._children:
                self._children[name].stop()
