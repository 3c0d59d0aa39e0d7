"""The servers that suffer: a broker behind a proxy that cuts connections, and a Redis that loses its last writes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from streamer.embedded import EmbeddedBroker, EmbeddedRedis

# Of the last write that is kept: it is torn in its EXEC. Redis 8.2 drops such a transaction, yet leaves its whole
# commands in the file and executes them at the restart after: what is counted by increments is counted twice then.
TORN_BYTES = 5


class ProxiedBroker(EmbeddedBroker):
    """A broker that tells its clients the address of a proxy, so that none goes around it."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy = CuttingProxy(self.port)

    def start(self) -> Self:
        """Starts both."""
        super().start()
        self.proxy.start()
        return self

    def stop(self) -> None:
        """Ends both."""
        self.proxy.stop()
        super().stop()

    @property
    def bootstrap_servers(self) -> str:
        """host:port of the proxy."""
        return f"127.0.0.1:{self.proxy.port}"

    def go_away(self) -> None:
        """Cuts it off; it could not be ended, since it would forget its topics."""
        self.proxy.refuse(True)

    def come_back(self) -> None:
        """Lets clients through again."""
        self.proxy.refuse(False)


class CuttingProxy:
    """Hands TCP connections on to a port of the loopback interface, until they are cut."""

    def __init__(self, target_port: int) -> None:
        # Bound from the beginning: a port that is only known to be free may be another's by the time of the start.
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.num_cut = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._refuses = False

    def start(self) -> None:
        """Listens; returns once it does."""
        self._thread.start()
        self._run(self._listen())

    def cut(self) -> int:
        """Drops every connection at once, as a network fault does; clients may come back. How many there were."""
        num: int = self._run(self._drop())
        self.num_cut += num
        return num

    def refuse(self, refuses: bool) -> None:
        """Drops every connection and takes none, as a broker does that is away, until it is called off."""
        self._refuses = refuses
        if refuses:
            self.cut()

    def stop(self) -> None:
        """Drops every connection and ends the thread."""
        if self._thread.is_alive():
            self._run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._socket.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket)

    async def _drop(self) -> int:
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers) // 2

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, there[1]}
        self._writers |= pair
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        self._writers -= pair


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


class FragileRedis(EmbeddedRedis):
    """A Redis whose append-only file can lose its end."""

    def sizes(self) -> dict[Path, int]:
        """Bytes of the files that grow with each write."""
        return {file: file.stat().st_size for file in self._folder.rglob("*.incr.aof")}

    def restart(self) -> None:
        """Kills it and starts it again on what its file holds."""
        self.kill()
        self.start()

    def power_cut(self, kept: dict[Path, int]) -> int:
        """Kills it, cuts its file to an earlier size, in the middle of a write, and starts it; the bytes lost."""
        self.kill()
        lost = 0
        for file, size in self.sizes().items():
            left = max(0, kept.get(file, 0) - TORN_BYTES)
            with file.open("r+b") as cut:
                lost += size - left
                cut.truncate(left)
        self.start()
        return lost
