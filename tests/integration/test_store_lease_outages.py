"""The lease while Redis is away, and after it forgot everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from leases import LONG_S, MODEL, ONE, OTHER, SHORT_S, until
from power_cuts import power_cut, sizes
from structlog.testing import capture_logs

from streamer.config import RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.errors import StoreUnavailableError
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseTakenError


@pytest.fixture
def dying(server: EmbeddedRedis) -> Iterator[Client]:
    client = connect(RedisConfig(url=server.url, timeout_s=1))
    yield client
    client.close()


def restart_empty(server: EmbeddedRedis, client: Client) -> None:
    """Ends it as a power cut would that took its disk as well."""
    client.config_set("appendonly", "no")
    server.kill()
    for file in server._folder.rglob("appendonlydir/*"):
        file.unlink()
    server.start()
    with closing(connect(RedisConfig(url=server.url))) as fresh:
        assert fresh.dbsize() == 0


def test_a_redis_that_forgot_everything_is_given_lease_and_version_anew(
    server: EmbeddedRedis, dying: Client
) -> None:
    lease, other = (Lease(dying, Keys("n"), MODEL, holder, ttl_s=LONG_S) for holder in (ONE, OTHER))
    first = lease.acquire()
    assert lease.claim_version(7)
    restart_empty(server, dying)
    second = lease.ensure()
    assert second > first
    with pytest.raises(LeaseTakenError):
        other.acquire()
    assert not lease.claim_version(6)
    assert other.highest_version() == 7
    assert lease.claim_version(7)
    restart_empty(server, dying)
    lease.raise_version(3)
    assert lease.highest_version() == 7
    assert other.highest_version() == 7
    # The other one was first to come: from here on the former holder is out, and tokens still rise.
    assert other.acquire() > second
    assert other.claim_version(8)
    other.close()
    with pytest.raises(LeaseTakenError, match="meanwhile"):
        lease.ensure()
    # What was seen once holds, also when Redis no longer knows it.
    restart_empty(server, dying)
    for action in (lease.ensure, lambda: lease.claim_version(9)):
        with pytest.raises(LeaseTakenError, match="host-2"):
            action()
    assert lease.acquire() > second


def test_while_redis_is_away_ensure_says_so_and_the_thread_keeps_trying_in_silence(
    server: EmbeddedRedis, dying: Client
) -> None:
    lease = Lease(dying, Keys("n"), MODEL, ONE, ttl_s=SHORT_S)
    first = lease.acquire()
    with capture_logs() as logs:
        lease.start_renewing()
        dying.config_set("appendonly", "no")
        server.kill()
        for action in (lease.ensure, lease.acquire, lease.highest_version, lambda: lease.claim_version(1)):
            with pytest.raises(StoreUnavailableError):
                action()
        time.sleep(SHORT_S)  # turns of the thread without a Redis
        assert not lease.is_lost
        server.start()
        until(lambda: bool(dying.exists(Keys("n").lease(MODEL))))
        assert lease.ensure() >= first
        server.kill()
        lease.close()
    assert logs == []


def test_a_taking_that_redis_lost_in_a_power_cut_leaves_one_who_goes_on_and_no_token_twice(
    server: EmbeddedRedis, dying: Client
) -> None:
    lease, other = (Lease(dying, Keys("n"), MODEL, holder, ttl_s=0.05) for holder in (ONE, OTHER))
    dying.config_set("appendfsync", "always")  # so that the size of its file says what it holds
    lease.acquire()
    until(lambda: not dying.exists(Keys("n").lease(MODEL)))
    kept = sizes(server)
    lost = other.acquire()
    power_cut(server, kept)
    assert lease.ensure() > lost
    with pytest.raises(LeaseTakenError, match="host-1"):
        other.ensure()
