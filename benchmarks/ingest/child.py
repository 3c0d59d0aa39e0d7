"""A competitor as a child process: its output in files, its memory watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from streamer.embedded import end_with_parent

# Competitors tell their times themselves. Smaller: looking at them takes CPU time away from them.
LOOK_INTERVAL_S = 0.1


class CompetitorError(Exception):
    """A competitor did not do its job; the message says which, and ends with its last lines."""


class Child:
    """One process and its children; it ends with us."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self._err = folder / f"{name}.err"
        self._out = folder / f"{name}.out"
        self._peak_kb: dict[int, int] = {}
        with self._err.open("wb") as err, self._out.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                cwd=Path(__file__).parents[2],
                env=_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one async-signal-safe call
            )

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def finish(self, patience_s: float) -> None:
        """Waits until it has ended by itself, and watches its memory.

        Raises:
            CompetitorError: It failed, or took longer than anyone has patience.
        """
        deadline = time.monotonic() + patience_s
        while self.is_running():
            self.look()
            if time.monotonic() > deadline:
                raise CompetitorError(
                    f"{self.name} did not end within {patience_s:.0f} s: {self.log[-1500:]}"
                )
            time.sleep(LOOK_INTERVAL_S)
        self.check()

    def look(self) -> None:
        """Notes the peak memory of the process and its children so far."""
        for pid in _tree(self._process.pid):
            self._peak_kb[pid] = max(self._peak_kb.get(pid, 0), _status_kb(pid, "VmHWM"))

    def rss_mb(self) -> float:
        """Resident memory of the process and its children now."""
        return sum(_status_kb(pid, "VmRSS") for pid in _tree(self._process.pid)) / 1024

    @property
    def peak_rss_mb(self) -> float:
        """Sum of the peaks of all processes of the tree: never less than the peak of their sum."""
        return sum(self._peak_kb.values()) / 1024

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self._err.read_text(errors="replace")

    def check(self, *, expected: Sequence[int] = (0,)) -> None:
        """Raises:
        CompetitorError: The process has ended otherwise than expected.
        """
        code = self._process.poll()
        if code is not None and code not in expected:
            raise CompetitorError(f"{self.name} ended with {code}: {self.log[-1500:]}")

    def end(self, timeout_s: float = 20.0) -> None:
        """Asks it to stop, and kills it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings come from files, everyone has its own number of threads, and no one finds another's packages."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("CASTING_", "PYTHON", "VIRTUAL_ENV", "OMP_", "MKL_"))
    }


def _tree(root: int) -> list[int]:
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has ended meanwhile
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has taken so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status_kb(pid: int, field: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0  # it has ended: it holds nothing any more
