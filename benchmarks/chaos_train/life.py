"""One life of the trainer: the product's own command in a process that kills itself where it was told to."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.chaos_ingest.patching import wrap
from streamer.embedded import end_with_parent
from trainer.cycle.state import Phase

PHASES: tuple[Phase, ...] = ("waiting", "frozen", "trained", "decided", "published")
CALLS = ("keep", "register", "decide", "publish_model", "confirm")
# Where a life can end by its own hand: before and after each phase is written, and each call that others see.
POINTS = tuple(f"{where}:{when}" for where in (*PHASES, *CALLS) for when in ("before", "after"))

# Every life is forked from a process that has imported torch and done nothing else.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["trainer.app", "benchmarks.chaos_train.life"])


class Life:
    """A trainer as a process of its own.

    Args:
        config: Its trainer.yaml.
        point: Where it kills itself, one of `POINTS`; None: nowhere.
    """

    def __init__(self, config: Path, point: str | None = None) -> None:
        ours, theirs = _FORKS.Pipe(duplex=False)
        self._child = _FORKS.Process(target=_run, args=(theirs, str(config), point), daemon=True)
        self._child.start()
        theirs.close()
        self.lines: list[dict[str, Any]] = []
        self.text = ""
        self._pipe = ours
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._child.is_alive()

    @property
    def exit_code(self) -> int | None:
        """What it ended with; negative: the signal."""
        return self._child.exitcode

    def count(self, event: str, **fields: Any) -> int:
        """How often it has said this."""
        return sum(line.get("event") == event and fields.items() <= line.items() for line in list(self.lines))

    def kill(self, number: signal.Signals = signal.SIGKILL, patience_s: float = 30.0) -> int | None:
        """Sends a signal and waits for its end; returns the exit code."""
        if self.is_alive and self._child.pid is not None:
            os.kill(self._child.pid, number)
        return self.wait(patience_s)

    def wait(self, patience_s: float) -> int | None:
        """Waits for its end; the exit code, None if it goes on."""
        self._child.join(patience_s)
        if self._child.exitcode is not None:
            self._reader.join()
        return self._child.exitcode

    def limit_files(self, num_bytes: int | None) -> None:
        """Lets it write files up to this size alone, as a disk without room would; None: any."""
        if self._child.pid is not None:
            hard = resource.RLIM_INFINITY
            resource.prlimit(
                self._child.pid, resource.RLIMIT_FSIZE, (hard if num_bytes is None else num_bytes, hard)
            )

    def _read(self) -> None:
        rest = b""
        while chunk := _read_some(self._pipe):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                line = raw.decode(errors="replace")
                self.text += line + "\n"
                if line.startswith("{"):
                    self.lines.append(json.loads(line))
        self._pipe.close()


def _read_some(pipe: Connection) -> bytes:
    try:
        return os.read(pipe.fileno(), 65_536)
    except OSError:
        return b""


def _run(pipe: Connection, config: str, point: str | None) -> None:
    end_with_parent()
    os.dup2(pipe.fileno(), 1)
    os.dup2(pipe.fileno(), 2)
    from trainer.cli import main  # noqa: PLC0415 - what a process of its own would import

    if point is not None:
        _die_at(point)
    sys.argv = ["trainer", "run", "-c", config]
    main()


def _die_at(point: str) -> None:
    from trainer.cycle import phases  # noqa: PLC0415 - torch
    from trainer.cycle.journal import CycleJournal  # noqa: PLC0415 - the same
    from trainer.release.publish.publisher import Publisher  # noqa: PLC0415 - the same
    from trainer.release.registry.registry import Registry  # noqa: PLC0415 - the same

    where, _, when = point.partition(":")
    owners: dict[str, Any] = {
        "keep": phases,
        "register": Registry,
        "decide": Registry,
        "publish_model": Publisher,
        "confirm": Registry,
    }
    if where in owners:
        wrap(owners[where], where, lambda real: _dying(real, when, lambda *_: True))
    else:
        wrap(CycleJournal, "write", lambda real: _dying(real, when, lambda _, state: _enters(state, where)))


def _enters(state: Any, phase: str) -> bool:
    cycle = state.cycle
    return cycle is not None and cycle.phase == phase and cycle.attempts == 0


def _dying(real: Callable[..., Any], when: str, is_here: Callable[..., bool]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not is_here(*args):
            return real(*args, **kwargs)
        if when == "after":
            real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    return call
