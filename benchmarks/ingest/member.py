"""`streamer run` as it is, with a start line and a stopwatch around its consumer.

Assigned partitions stay paused until the gate opens, so that a group of several members forms before the clock
runs; a single member is held back in the same way. `python -m benchmarks.ingest.member FOLDER NUMBER -c FILE`.
"""

from __future__ import annotations

import atexit
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ingest.stopwatch import Stopwatch
from streamer import app
from streamer.cli import main
from streamer.kafka import GroupConsumer
from streamer.records import Partition, RecordBatch


class TimedConsumer(GroupConsumer):
    """The service's consumer behind a gate; what it adds to a batch lies far below a microsecond a record.

    Attributes:
        folder: Where the gate appears, and where the member says what it holds and what it measured.
        number: Of the member in its group.
    """

    folder = Path()
    number = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._watch = Stopwatch()
        self._is_held = True
        self._held: set[Partition] = set()
        self._told: set[Partition] | None = None
        atexit.register(lambda: self._tell("marks", self._watch.report()))

    def poll(self) -> list[RecordBatch]:
        """Starts the clock with the first record."""
        if self._is_held:
            self._look_for_the_gate()
        batches = super().poll()
        if batches:
            self._watch.begin()
        return batches

    def resume(self, partition: Partition) -> None:
        """Waits for the gate."""
        if self._is_held:
            self._held.add(partition)
        else:
            super().resume(partition)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """The last step of a batch: its windows are in Redis."""
        super().commit(offsets)
        self._watch.mark()

    def _look_for_the_gate(self) -> None:
        self._held &= self.assignment()
        if self._told != self._held:
            self._told = set(self._held)
            self._tell("holds", json.dumps({"holds": sorted(self._held), "path": self.path}))
        gate = self.folder / "gate"
        if gate.exists():
            time.sleep(max(0.0, float(gate.read_text()) - time.monotonic()))
            self._is_held = False
            for partition in sorted(self._held):
                super().resume(partition)

    def _tell(self, name: str, text: str) -> None:
        """Whoever reads the file finds all of it."""
        part = self.folder / f"{name}-{self.number}.part"
        part.write_text(text)
        part.rename(part.with_suffix(""))


if __name__ == "__main__":
    TimedConsumer.folder, TimedConsumer.number = Path(sys.argv[1]), sys.argv[2]
    app.GroupConsumer = TimedConsumer  # type: ignore[attr-defined]  # what it takes its consumer from
    sys.argv[1:] = ["run", *sys.argv[3:]]
    main()
