"""What every competitor measures of itself, in the same way; imports nothing that is not in Python itself.

The clock runs from the first record received to the last offset processed and its windows written. Starting the
process and joining the group lie before it.
"""

from __future__ import annotations

import json
import time


class Stopwatch:
    """Marks the first record and, again and again, what may be the last write."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._ended: tuple[float, float] | None = None

    def begin(self) -> None:
        """The first record is here; later calls change nothing."""
        if self._began is None:
            self._began = time.monotonic(), time.process_time()

    def mark(self) -> None:
        """All records received so far are processed, and their windows are written."""
        self._ended = time.monotonic(), time.process_time()

    def report(self) -> str:
        """The marks as JSON: monotonic seconds of the machine, CPU seconds of this process, all its threads."""
        if self._began is None or self._ended is None:
            return "{}"
        return json.dumps(
            {"began": self._began[0], "ended": self._ended[0], "cpu_s": self._ended[1] - self._began[1]}
        )
