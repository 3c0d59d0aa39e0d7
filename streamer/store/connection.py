"""Connects to Redis and translates its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.config import RedisConfig
from streamer.errors import ConfigError, FencedError, RefusedError, StoreUnavailableError
from streamer.settings import read_secret

Client = redis.Redis
# Where one may stand in a url: before the host, also one that was not percent-encoded, or among the options.
PASSWORD = re.compile(r"(?<=//).*(?=@)|(?<=password=)[^&]*")
# What urllib repeats of a url that it cannot split; a password may be in it.
FAULTY_PART = re.compile(r"(?<=value as )'.*'|(?<=netloc )'.*'")


class RestartedError(redis.RedisError):
    """What answers is another run of Redis than the client was held to."""


class _RunFence:
    """Looks at each new connection of a client before a command goes out on it.

    redis-py connects anew without a word, and a Redis may be back within 40 ms: a write could then land on a state
    without those that it builds on, and a position could move past one that is gone. A run of Redis ends with its
    connections and never goes back by itself. So whoever holds the client to a run before it loads writes to that
    run alone, whenever the restart falls; the error comes once, to whoever sends the next command, and it has to
    load again.
    """

    def __init__(self) -> None:
        self._run_id: str | None = None

    def on_connect(self, connection: Any) -> None:
        connection.on_connect()
        if self._run_id is not None:
            connection.send_command("INFO", "server")
            for line in text(connection.read_response()).splitlines():
                name, _, value = line.partition(":")
                if name == "run_id":
                    self.hold(value)

    def hold(self, run_id: str) -> None:
        held, self._run_id = self._run_id, run_id
        if held not in (None, run_id):
            raise RestartedError("it may have lost its last writes")


def hold_to_run(client: Client) -> None:
    """Lets a client of `connect` speak only to the run of Redis that answers now, from here on.

    Raises:
        RestartedError: It was held to another; it is held to this one now.
    """
    fence: _RunFence = client.connection_pool.connection_kwargs["redis_connect_func"].__self__
    fence.hold(str(client.info("server")["run_id"]))


@contextmanager
def map_redis_errors(action: str) -> Iterator[None]:
    """Translates every error of redis-py.

    Raises:
        ConfigError: Our credentials are not taken.
        FencedError: Redis was restarted since the client was held to a run; the command was not sent.
        RefusedError: Redis answers, and will answer the same tomorrow: a replica, a node that lacks slots, a key of
            ours that holds something else.
        StoreUnavailableError: It does not answer, is loading, or is out of memory.
    """
    try:
        yield
    except RestartedError as exc:
        raise FencedError(f"Redis was restarted, seen while {action}: {exc}") from exc
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as exc:
        raise ConfigError(
            f"Redis refused us while {action}: {exc}; check redis.username and redis.password_file"
        ) from exc
    except redis.exceptions.ReadOnlyError as exc:
        raise RefusedError(
            f"Redis is a replica, refused while {action}: {exc}; point redis.url at the primary"
        ) from exc
    except (redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError) as exc:
        raise RefusedError(
            f"Redis does not serve all slots, refused while {action}: {exc}; point redis.url at one that does"
        ) from exc
    except redis.RedisError as exc:
        if "WRONGTYPE" in str(exc):
            raise RefusedError(
                f"Redis: {action} failed: {exc}; another program writes under our redis.namespace: give it another"
            ) from exc
        if "NOAUTH" in str(exc):
            raise ConfigError(f"Redis wants a password ({exc}); set redis.password_file") from exc
        raise StoreUnavailableError(f"Redis: {action} failed: {exc}") from exc


def connect(config: RedisConfig) -> Client:
    """Makes a client; nothing is sent before its first command.

    Every call has a time limit and is tried once. The caller retries, and each of our writes may be repeated: an
    answer that was lost on its way leaves open whether the write went through.

    Raises:
        ConfigError: The password file cannot be read, or the url is malformed.
    """
    password = read_secret(config.password_file) if config.password_file else None
    credentials = {"username": config.username, "password": password} if password else {}
    try:
        client = redis.Redis.from_url(
            config.url,
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=_RunFence().on_connect,
            **credentials,
        )
        # An option in the url that redis-py does not know shows when a connection is made; none is opened here.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError, redis.RedisError) as exc:
        shown, reason = PASSWORD.sub("...", config.url), FAULTY_PART.sub("'...'", str(exc))
        raise ConfigError(f"redis.url {shown}: {reason}") from exc
    return client


def text(value: bytes | str) -> str:
    """A reply as text; this client always answers in bytes, which redis-py's types do not say."""
    return value.decode() if isinstance(value, bytes) else value
