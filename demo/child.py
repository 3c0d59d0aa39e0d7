"""A child process of the demo: its JSON lines come back as events, and it ends with us."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from streamer.embedded import end_with_parent

STOP_TIMEOUT_S = 10.0
TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Event:
    """One JSON line that a child wrote."""

    child: str
    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        """What happened."""
        return str(self.fields.get("event", ""))


class Child:
    """Starts a process whose stdout and stderr are JSON lines; everything it writes is kept in a log file."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path, events: queue.Queue[Event]
    ) -> None:
        self.name = name
        self._events = events
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log = log.open("a", encoding="utf-8")
        self._process = subprocess.Popen(
            list(command),
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the demo, which ends its children in order
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one async-signal-safe call
        )
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - we asked for a pipe
        for line in self._process.stdout:
            self._log.write(line)
            self._log.flush()
            self._tail.append(line.rstrip())
            with suppress(ValueError):
                fields = json.loads(line)
                if isinstance(fields, dict):
                    self._events.put(Event(self.name, fields))

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def tail(self) -> str:
        """Its last lines."""
        return "\n".join(self._tail)

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes one JSON line to its standard input."""
        stdin: IO[str] | None = self._process.stdin
        if stdin is not None:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()

    def stop(self) -> None:
        """Ends it: politely, then not."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=STOP_TIMEOUT_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._log.close()
