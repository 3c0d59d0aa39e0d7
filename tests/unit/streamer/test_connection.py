"""What Redis answers, as an error that says what to do."""

from __future__ import annotations

import re

import pytest
import redis as redis_py

from streamer.config import RedisConfig
from streamer.errors import CastingError, ConfigError, RefusedError, StoreUnavailableError
from streamer.store.connection import connect, map_redis_errors

_ANSWERS = redis_py.connection.DefaultParser


@pytest.mark.parametrize(
    ("answer", "expected", "told"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreUnavailableError, "maxmemory"),
        ("LOADING Redis is loading the dataset in memory", StoreUnavailableError, "loading"),
        ("MISCONF Errors writing to the AOF file", StoreUnavailableError, "AOF"),
        ("BUSY Redis is busy running a script", StoreUnavailableError, "busy"),
        ("CLUSTERDOWN The cluster is down", StoreUnavailableError, "down"),
        ("ERR max number of clients reached", StoreUnavailableError, "clients"),
        (
            "READONLY You can't write against a read only replica.",
            RefusedError,
            "point redis.url at the primary",
        ),
        ("MOVED 3999 127.0.0.1:6381", RefusedError, "does not serve all slots"),
        ("CROSSSLOT Keys in request don't hash to the same slot", RefusedError, "does not serve all slots"),
        (
            "WRONGTYPE Operation against a key",
            RefusedError,
            "another program writes under our redis.namespace",
        ),
        ("NOAUTH Authentication required.", ConfigError, "redis.password_file"),
        ("WRONGPASS invalid username-password pair", ConfigError, "redis.username and redis.password_file"),
        ("NOPERM this user has no permissions", ConfigError, "redis.username and redis.password_file"),
    ],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(
    answer: str, expected: type[CastingError], told: str
) -> None:
    error = _ANSWERS.parse_error(answer)
    with pytest.raises(expected, match=told) as caught, map_redis_errors("asking"):
        raise error
    assert "asking" in str(caught.value) or expected is ConfigError
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [redis_py.ConnectionError("refused"), redis_py.TimeoutError("too late")])
def test_no_answer_is_waited_for(error: redis_py.RedisError) -> None:
    with pytest.raises(StoreUnavailableError), map_redis_errors("asking"):
        raise error


def test_every_call_has_a_time_limit_and_is_tried_once() -> None:
    client = connect(RedisConfig(timeout_s=1.5))
    options = client.connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (1.5, 1.5)
    assert options["retry"]._retries == 0
    assert not options.get("retry_on_error")
    client.close()


def test_a_key_that_holds_something_else_is_named(redis: RedisConfig) -> None:
    client = connect(redis)
    client.set(f"{redis.namespace}:casts", "theirs")
    with pytest.raises(RefusedError, match="listing casts failed"), map_redis_errors("listing casts"):
        client.zcard(f"{redis.namespace}:casts")
    client.close()


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        (":99999/0", "Port out of range"),
        ("/0?socket_timeout=soon", "socket_timeout"),
        ("/0?decode=utf-8", "unexpected keyword argument 'decode'"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(tail: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        connect(RedisConfig(url=f"redis://me:hidden@127.0.0.1{tail}"))
    assert str(caught.value).startswith("redis.url redis://...@127.0.0.1")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://me:hid/den@127.0.0.1:6379/0", "Port could not be cast"),
        ("redis://me:hid?den@127.0.0.1", "Port could not be cast"),
        ("redis://me:hid\u2100den@127.0.0.1", "NFKC"),
        ("redis://127.0.0.1/0?password=hidden&decode=utf-8", "'decode'"),
        ("rediss://127.0.0.1/0?decode=utf-8&ssl_password=hidden", "'decode'"),
    ],
)
def test_a_password_is_not_told_wherever_it_stands_in_the_url(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        connect(RedisConfig(url=url))
    assert "127.0.0.1" in str(caught.value)
    assert not re.search("hid|den", str(caught.value))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://127.0.0.1/0?protocol=5", "protocol must be either 2 or 3"),
        ("rediss://127.0.0.1/0?ssl_cert_reqs=maybe", "Requirements Flag: maybe"),
    ],
)
def test_a_value_that_the_client_refuses_is_an_error_of_the_configuration(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        connect(RedisConfig(url=url))
