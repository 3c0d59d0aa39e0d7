"""/metrics, /livez and /readyz of a service, answered by a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamer.config import HttpConfig
from streamer.errors import ConfigError
from streamer.metrics import CONTENT_TYPE

log = structlog.get_logger()


class Health:
    """What a service says of itself; written by its loop, read by the HTTP thread.

    Args:
        max_silence_s: A loop that has not beaten for so long is not live.
        clock: Monotonic seconds.
    """

    def __init__(self, max_silence_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_silence_s = max_silence_s
        self._clock = clock
        self._beat_at = clock()
        self._not_ready: str | None = "starting"

    def beat(self) -> None:
        """The loop is alive."""
        self._beat_at = self._clock()

    def ready(self) -> None:
        """Work is being done."""
        self._not_ready = None

    def not_ready(self, reason: str) -> None:
        """Work is waiting, and why."""
        self._not_ready = reason

    def why_not_live(self) -> str | None:
        """None while live."""
        silence = self._clock() - self._beat_at
        return f"no sign of life for {silence:.0f} s" if silence > self._max_silence_s else None

    def why_not_ready(self) -> str | None:
        """None while ready."""
        return self._not_ready


class HttpServer:
    """Serves until closed.

    Raises:
        ConfigError: The address cannot be bound.
    """

    def __init__(self, config: HttpConfig, health: Health, metrics: Callable[[], bytes]) -> None:
        app = Starlette(routes=_routes(health, metrics))
        self._socket = _bind(config)
        self.port = int(self._socket.getsockname()[1])
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        log.info("http", host=self._socket.getsockname()[0], port=self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def _bind(config: HttpConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, reuse_port=False)
    except OSError as exc:
        raise ConfigError(f"http: cannot listen on {config.host}:{config.port}: {exc.strerror}") from exc


def _routes(health: Health, metrics: Callable[[], bytes]) -> list[Route]:
    def answer(reason: str | None) -> Response:
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)

    async def livez(_: Request) -> Response:
        return answer(health.why_not_live())

    async def readyz(_: Request) -> Response:
        return answer(health.why_not_live() or health.why_not_ready())

    async def scrape(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", scrape)]
