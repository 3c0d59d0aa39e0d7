"""What every process of ours does alike: end on a signal, wait for servers, turn errors into exit codes.

Exit codes: 0 ok, 1 failure, 2 usage or configuration, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog
import typer

from streamer.errors import CastingError, ConfigError, UnavailableError
from streamer.http import Health

log = structlog.get_logger()
T = TypeVar("T")

FIRST_WAIT_S = 0.2
# Smaller: a dead server is asked more often than it helps. Larger: a mended one is noticed later.
MAX_WAIT_S = 5.0


class StopRequest:
    """Becomes true on SIGTERM or SIGINT, so that the loop ends between two turns.

    A handler runs between any two instructions of the main thread, also while that holds the lock of a
    `threading.Event`: setting the event would then wait for ever. `SimpleQueue.put` may be called there.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self.signal_number: int | None = None

    def install(self) -> None:
        """Takes over both signals; a second one ends the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        if self._is_set:
            raise SystemExit(128 + number)
        self.signal_number = number
        self._is_set = True
        self._wake.put(None)

    def __call__(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Sleeps, but not through a stop; True if stopped."""
        with suppress(Empty):
            self._wake.get(timeout=seconds)
            self._wake.put(None)  # for whoever waits beside us, or next
        return self._is_set

    def exit_code(self) -> int:
        """What the process ends with."""
        return 128 + self.signal_number if self.signal_number else 0


class StoppedError(CastingError):
    """A stop was asked for while waiting for a server."""


def wait_for_server(action: Callable[[], T], stop: StopRequest, health: Health) -> T:
    """Repeats an action until its server answers; says once what it waits for.

    Raises:
        StoppedError: A stop was asked for meanwhile.
    """
    wait, said = FIRST_WAIT_S, False
    while True:
        health.beat()
        try:
            result = action()
        except UnavailableError as exc:
            health.not_ready(str(exc))
            if not said:
                log.warning("waiting", error=str(exc))
                said = True
        else:
            if said:
                log.info("recovered")
            return result
        if stop.wait(wait):
            raise StoppedError("stopped while waiting for a server")
        wait = min(MAX_WAIT_S, 2 * wait)


def main(app: typer.Typer) -> None:
    """Runs a command line; every error of ours becomes one message and an exit code."""
    try:
        result: Any = app(standalone_mode=False)
    except ConfigError as exc:
        _fail(str(exc), 2)
    except CastingError as exc:
        _fail(str(exc), 1)
    except typer.Abort:
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except SystemExit as exc:
        # Typer ends with 1 when the reader of our output has seen enough and went away.
        raise SystemExit(0 if isinstance(exc.__context__, BrokenPipeError) else exc.code) from None
    except Exception as exc:  # usage errors of typer's parser carry their own exit code and text
        show, code = getattr(exc, "show", None), getattr(exc, "exit_code", None)
        if show is None or code is None:
            raise
        show()
        raise SystemExit(code) from None
    else:
        raise SystemExit(result if isinstance(result, int) else 0)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the last word of a command line
    raise SystemExit(code)
