"""Ours: `streamer run` with everything switched on, one process or several, on a topic that is full already."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ingest.child import LOOK_INTERVAL_S, Child, CompetitorError, cpu_s
from benchmarks.ingest.load import NUM_PARTITIONS, SENSORS, Load, Window, checksum
from benchmarks.ingest.measured import Run
from streamer.app import have_topics
from streamer.config import RedisConfig, StreamerSettings
from streamer.records import Partition
from streamer.settings import load_settings
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore
from streamer.store.reading import WindowReader

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
# The embedded broker lets a group form in half of the session timeout.
SESSION_MS = 6_000
# A member asks for the gate once a poll, every 200 ms.
HEAD_START_S = 1.0
BATCH_WINDOWS = 200


class Group:
    """Members of one consumer group at their start line.

    Args:
        sections: What differs from `configs/streamer.yaml`, by section.
    """

    def __init__(
        self, kafka: str, redis_url: str, topic: str, sections: Mapping[str, Mapping[str, object]]
    ) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="castloop-bench-")))
        self._config = self._folder / "streamer.yaml"
        word = uuid.uuid4().hex[:8]
        own: dict[str, Mapping[str, object]] = {
            "kafka": {"bootstrap_servers": kafka},
            "topics": {"readings": topic, "labels": "bench.labels", "dead_letters": "bench.dead-letters"},
            "redis": {"url": redis_url, "namespace": f"bench-{word}"},
            "consumer": {
                "group_id": f"bench-{word}",
                "session_timeout_ms": SESSION_MS,
                "heartbeat_interval_ms": SESSION_MS // 6,
            },
            "http": {"port": 0},
        }
        tree: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "streamer.yaml").read_text())
        for name in sorted({*own, *sections}):
            tree[name] = {**tree.get(name, {}), **own.get(name, {}), **sections.get(name, {})}
        self._config.write_text(yaml.safe_dump(tree))
        self.settings = load_settings(StreamerSettings, self._config)
        assert self.settings.data.sensor_names == SENSORS
        have_topics(self.settings)
        self.client = connect(RedisConfig(url=redis_url, namespace=self.settings.redis.namespace))
        self._stack.callback(self.client.close)
        self.members: list[Child] = []

    def start(self, num_members: int) -> None:
        """Starts the members and waits until the group is complete and its partitions are spread evenly."""
        for number in range(num_members):
            command = [sys.executable, "-m", "benchmarks.ingest.member", str(self._folder), str(number)]
            child = Child(f"member-{number}", [*command, "-c", str(self._config)], self._folder)
            self.members.append(self._stack.enter_context(child))
        self._wait(self._is_complete)

    def _is_complete(self) -> bool:
        files = [self._folder / f"holds-{number}" for number in range(len(self.members))]
        if not all(file.exists() for file in files):
            return False
        held = [json.loads(file.read_text())["holds"] for file in files]
        topic = self.settings.topics.readings
        shares = [sum(name == topic for name, _ in each) for each in held]
        distinct = {tuple(partition) for each in held for partition in each}
        return len(distinct) == sum(map(len, held)) == 2 * NUM_PARTITIONS and max(
            shares
        ) == NUM_PARTITIONS // len(files)

    @property
    def path(self) -> str:
        """How the members read: through the client's public API or past it."""
        told = json.loads((self._folder / "holds-0").read_text())
        return str(told["path"])

    def go(self) -> None:
        """Opens the gate for all members at once."""
        part = self._folder / "gate.part"
        part.write_text(str(time.monotonic() + HEAD_START_S))
        part.rename(self._folder / "gate")

    def num_consumed(self) -> int:
        """Records whose work is in Redis."""
        positions = PositionStore(self.client, Keys(self.settings.redis.namespace))
        topic = self.settings.topics.readings
        read = [positions.load(Partition(topic, number)) for number in range(NUM_PARTITIONS)]
        return sum(position.offset for position in read if position is not None)

    def wait_for(self, num_records: int) -> None:
        """Waits until so many records have been consumed."""
        self._wait(lambda: self.num_consumed() >= num_records)

    def _wait(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            for member in self.members:
                member.check()
                member.look()
            if time.monotonic() > deadline:
                raise CompetitorError(f"the group did not get on: {self.members[0].log[-1500:]}")
            time.sleep(LOOK_INTERVAL_S)

    def end(self) -> list[dict[str, float]]:
        """Stops the members; what each measured, by the name of the mark."""
        for member in self.members:
            member.look()
        for member in self.members:
            member.end()
            member.check(expected=(143,))
        files = [self._folder / f"marks-{number}" for number in range(len(self.members))]
        return [json.loads(file.read_text()) for file in files]

    def windows(self) -> Iterator[Window]:
        """What lies in Redis, as the trainer reads it."""
        settings = self.settings
        reader = WindowReader(self.client, Keys(settings.redis.namespace), settings.data, settings.windows)
        addresses = reader.sealed()
        for begin in range(0, len(addresses), BATCH_WINDOWS):
            batch = addresses[begin : begin + BATCH_WINDOWS]
            for address, x_TF in zip(batch, reader.rows(batch), strict=True):
                start_ms = address.start * settings.data.period_ms + settings.data.grid_phase_ms
                yield address.cast_id, start_ms, x_TF.astype("<f4").tobytes()

    def close(self) -> None:
        """Ends what still runs."""
        self._stack.close()


def run(
    name: str,
    load: Load,
    num_records: int,
    *,
    kafka: str,
    redis_url: str,
    topic: str,
    num_members: int = 1,
    sections: Mapping[str, Mapping[str, object]] | None = None,
    servers: Sequence[int] = (),
) -> Run:
    """Runs one group over a full topic and measures it.

    Args:
        servers: Process ids of broker and Redis.

    Raises:
        CompetitorError: A member ended, or the group stood still.
    """
    group = Group(kafka, redis_url, topic, sections or {})
    try:
        group.start(num_members)
        before_s = sum(map(cpu_s, servers))
        group.go()
        group.wait_for(num_records)
        servers_s = sum(map(cpu_s, servers)) - before_s
        marks = _complete(name, group.end())
        return Run(
            name,
            load.num_readings,
            seconds=max(mark["ended"] for mark in marks) - min(mark["began"] for mark in marks),
            cpu_s=sum(mark["cpu_s"] for mark in marks),
            peak_rss_mb=sum(member.peak_rss_mb for member in group.members),
            windows=checksum(group.windows()),
            path=group.path,
            servers_cpu_s=servers_s if servers else None,
        )
    finally:
        group.close()


def _complete(name: str, marks: Sequence[dict[str, float]]) -> Sequence[dict[str, float]]:
    if not all(marks):
        raise CompetitorError(f"{name}: a member got no records at all")
    return marks
