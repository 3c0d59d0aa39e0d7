"""How far each partition has been read: next offset, log clock, and counts of records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.errors import FencedError
from streamer.records import Partition
from streamer.store import scripts
from streamer.store.connection import Client, hold_to_run, map_redis_errors, text
from streamer.store.keys import Keys
from streamer.timeline import LogClock


@dataclass(frozen=True, slots=True)
class LastRecord:
    """By what the record before a position is known again: in a topic that was made anew it is another one."""

    timestamp_ms: int
    crc: int


@dataclass(slots=True)
class Position:
    """Where to go on in a partition, and the log clock there.

    Attributes:
        last: The record before the offset.
        counts: Records up to here by kind (`consumed`, `dead_lettered`).
    """

    offset: int
    clock: LogClock
    last: LastRecord | None = None
    counts: dict[str, int] = field(default_factory=dict)


class PositionStore:
    """Loads and moves positions; a position never goes back.

    It notices a Redis that came back without its last writes: what it holds is then less than what this store
    has loaded or moved.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._move = client.register_script(scripts.POSITION)
        self._known: dict[Partition, int] = {}

    def check_server(self) -> None:
        """Asks Redis whether it is there, and still the run that was loaded from.

        Raises:
            FencedError: It was restarted, and may have lost its last writes: load again.
        """
        with map_redis_errors("asking for its run id"):
            hold_to_run(self._client)

    def check_writable(self) -> None:
        """Asks Redis whether it takes writes: one that is full answers every read.

        Raises:
            StoreUnavailableError: It does not; nothing was written.
        """
        with map_redis_errors("asking whether it takes writes"):
            self._client.set(self._keys.probe, b"1")

    def load(self, partition: Partition) -> Position | None:
        """The position of a partition, None if it was never written.

        From here on the client writes only to the run of Redis that was loaded from.

        Raises:
            FencedError: Redis was restarted since another partition was loaded.
        """
        self.check_server()
        position = self._read(partition)
        self._known[partition] = position.offset if position else -1
        return position

    def known(self, partition: Partition) -> int:
        """The position as it was loaded or written last, -1 if there was none."""
        return self._known.get(partition, -1)

    def _read(self, partition: Partition) -> Position | None:
        with map_redis_errors("loading a position"):
            fields = self._client.hgetall(self._keys.position(partition))
        return _position({text(name): int(value) for name, value in fields.items()})

    def load_all(self) -> dict[Partition, Position]:
        """All positions of the namespace."""
        positions = {}
        with map_redis_errors("listing positions"):
            for key in self._client.scan_iter(self._keys.positions, count=1_000):
                topic, _, number = text(key).rsplit(":", 1)[-1].rpartition("/")
                partition = Partition(topic, int(number))
                if position := self._read(partition):
                    positions[partition] = position
        return positions

    def move(
        self,
        partition: Partition,
        offset: int,
        clock: LogClock,
        last: LastRecord,
        counts: Mapping[str, int],
    ) -> None:
        """Moves a position on, after everything before it is written; going back is ignored.

        Raises:
            FencedError: Another offset is there than this store knows: Redis has lost writes since they were
                acknowledged, or another member was here. Nothing was moved. Load again.
        """
        known = self._known.get(partition, -1)
        if offset <= known:
            return
        fields = {
            "highest": clock.highest,
            "second": clock.second,
            "last_timestamp": last.timestamp_ms,
            "last_crc": last.crc,
        }
        held = {name: value for name, value in fields.items() if value is not None}
        args: list[str | int] = [offset, "" if known < 0 else known, len(held)]
        for name, value in held.items():
            args += (name, value)
        for name, value in counts.items():
            args += (f"n:{name}", value)
        with map_redis_errors("moving a position"):
            moved = self._move(keys=[self._keys.position(partition)], args=args)
        if not moved:
            raise FencedError(
                f"the position of {partition} is no longer {known}, as it was written or loaded"
            )
        self._known[partition] = offset


def _position(fields: dict[str, int]) -> Position | None:
    if "offset" not in fields:
        return None
    counts = {name[2:]: value for name, value in fields.items() if name.startswith("n:")}
    last = None
    if "last_crc" in fields:
        last = LastRecord(fields["last_timestamp"], fields["last_crc"])
    clock = LogClock(fields.get("highest"), fields.get("second"))
    return Position(fields["offset"], clock, last, counts)
