"""Connects to Redis and translates its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.config import RedisConfig
from streamer.errors import ConfigError, RefusedError, StoreUnavailableError
from streamer.settings import read_secret

Client = redis.Redis


@contextmanager
def map_redis_errors(action: str) -> Iterator[None]:
    """Translates every error of redis-py.

    Raises:
        ConfigError: Our credentials are not taken.
        RefusedError: Redis answers, and will answer the same tomorrow: a replica, a node that lacks slots, a key of
            ours that holds something else.
        StoreUnavailableError: It does not answer, is loading, or is out of memory.
    """
    try:
        yield
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
        return redis.Redis.from_url(
            config.url,
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            retry=Retry(NoBackoff(), 0),
            **credentials,
        )
    except ValueError as exc:
        raise ConfigError(f"redis.url {config.url}: {exc}") from exc


def text(value: bytes | str) -> str:
    """A reply as text; this client always answers in bytes, which redis-py's types do not say."""
    return value.decode() if isinstance(value, bytes) else value
