"""The thread that renews a lease: it keeps it, notices when it is gone, and ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, Thread

import pytest
from leases import MODEL, ONE, OTHER, RENEWED_S, SHORT_S, TIMEOUT_S, Make, making, now_ms, take_over, until
from structlog.testing import capture_logs

from streamer.config import RedisConfig
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseTakenError


@pytest.fixture
def client(redis: RedisConfig) -> Iterator[Client]:
    client = connect(redis)
    yield client
    client.close()


@pytest.fixture
def keys(redis: RedisConfig) -> Keys:
    return Keys(redis.namespace)


@pytest.fixture
def make(client: Client, keys: Keys) -> Iterator[Make]:
    with making(client, keys) as make:
        yield make


def test_the_thread_keeps_the_lease_beyond_its_lifetime(make: Make, client: Client) -> None:
    renewed, other = make(ONE, RENEWED_S), make(OTHER)
    token = renewed.acquire()
    renewed.start_renewing()
    begin = now_ms(client)
    while now_ms(client) < begin + 1.6 * RENEWED_S * 1000:
        with pytest.raises(LeaseTakenError):
            other.acquire()
        time.sleep(0.02)
    assert not renewed.is_lost
    assert renewed.ensure() == token


def test_close_ends_the_thread_and_frees_the_lease(make: Make) -> None:
    lease, other = make(ONE), make(OTHER)
    lease.acquire()
    lease.start_renewing()
    lease.close()
    other.acquire()
    lease.close()  # it is no longer ours to release
    other.ensure()
    with pytest.raises(LeaseTakenError):
        make(ONE).acquire()


class Slow(Lease):
    """Its renewals are on their way until they are let go."""

    def __init__(self, client: Client, keys: Keys) -> None:
        super().__init__(client, keys, MODEL, ONE, ttl_s=SHORT_S)
        self.is_renewing, self.may_go = Event(), Event()

    def ensure(self) -> int:
        self.is_renewing.set()
        assert self.may_go.wait(TIMEOUT_S)
        return super().ensure()


def test_close_waits_for_a_renewal_that_is_on_its_way(client: Client, keys: Keys) -> None:
    lease = Slow(client, keys)
    lease.acquire()
    lease.start_renewing()
    assert lease.is_renewing.wait(TIMEOUT_S)
    closing = Thread(target=lease.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    lease.may_go.set()
    closing.join()
    assert not client.exists(keys.lease(MODEL))


def test_the_thread_notices_a_taken_lease_says_it_once_and_ensure_raises(
    make: Make, client: Client, keys: Keys
) -> None:
    lease, other = make(ONE, SHORT_S), make(OTHER)
    lease.acquire()
    with capture_logs() as logs:
        lease.start_renewing()
        take_over(client, keys, other)
        until(lambda: lease.is_lost)
        with pytest.raises(LeaseTakenError):
            lease.ensure()
        time.sleep(SHORT_S)  # two more turns of the thread, in which nothing is to happen
        lease.close()
    assert [each["event"] for each in logs] == ["lease lost"]
    assert "process 22 on host-2" in logs[0]["error"]
    other.ensure()


def test_the_thread_goes_on_after_the_lease_was_acquired_again(
    make: Make, client: Client, keys: Keys
) -> None:
    lease, other = make(ONE, RENEWED_S), make(OTHER)
    lease.acquire()
    lease.start_renewing()
    take_over(client, keys, other)
    until(lambda: lease.is_lost)
    other.close()
    lease.acquire()
    client.pexpire(keys.lease(MODEL), 10_000)
    until(lambda: client.pttl(keys.lease(MODEL)) <= RENEWED_S * 1000)
    assert not lease.is_lost
