"""Where /metrics, /livez and /readyz answer, and what they say."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest

from streamer.config import HttpConfig
from streamer.errors import ConfigError
from streamer.http import Health, HttpServer


def get(server: HttpServer, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{server.port}/{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_a_loop_that_is_silent_is_neither_live_nor_ready() -> None:
    now = 0.0
    health = Health(120, clock=lambda: now)
    with HttpServer(HttpConfig(), health, lambda: b"metrics\n") as server:
        assert get(server, "livez") == (200, "ok\n")
        assert get(server, "readyz") == (503, "starting\n")
        health.ready()
        assert get(server, "readyz") == (200, "ok\n")
        health.not_ready("Redis: refused")
        assert get(server, "readyz") == (503, "Redis: refused\n")
        health.ready()
        now = 121.0
        assert get(server, "livez") == get(server, "readyz") == (503, "no sign of life for 121 s\n")
        health.beat()
        assert get(server, "livez") == (200, "ok\n")
        assert get(server, "metrics") == (200, "metrics\n")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"http: cannot listen on 127.0.0.1:{port}: Address already in use"
        ):
            HttpServer(HttpConfig(port=port), Health(1), bytes)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_it_listens_on_an_address_of_ipv6_or_says_that_there_is_none() -> None:
    config = HttpConfig(host="::1")
    if has_ipv6():
        with HttpServer(config, Health(1), bytes) as server:
            assert get(server, "livez", "[::1]") == (200, "ok\n")
    else:
        with pytest.raises(ConfigError, match=r"http: cannot listen on \[?::1"):
            HttpServer(config, Health(1), bytes)
