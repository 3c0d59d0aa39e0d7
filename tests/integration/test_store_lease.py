"""One writer a model name: who gets the lease, who loses it and when, on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from leases import LONG_S, MODEL, ONE, OTHER, SHORT_S, TIMEOUT_S, Make, making, now_ms, until
from structlog.testing import capture_logs

from streamer.config import RedisConfig
from streamer.errors import RefusedError
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


def sleep(seconds: float) -> bool:
    """A stop that nobody asks for."""
    time.sleep(seconds)
    return False


def test_a_second_holder_is_refused_and_told_who_and_what_to_do(make: Make, client: Client) -> None:
    before = now_ms(client)
    make(ONE).acquire()
    with pytest.raises(
        LeaseTakenError, match=r"process 11 on host-1 .* /registry; stop .* registry.model_name"
    ) as no:
        make(OTHER).acquire()
    holder = no.value.holder
    assert before <= holder.since_ms <= now_ms(client)
    assert replace(holder, since_ms=0) == ONE
    assert LONG_S - TIMEOUT_S < no.value.expires_in_s <= LONG_S
    assert isinstance(no.value, RefusedError)
    assert not no.value.retriable


def test_another_model_name_or_namespace_is_another_lease(make: Make, client: Client, keys: Keys) -> None:
    make(ONE).acquire()
    with closing(Lease(client, keys, "other-model", OTHER, ttl_s=LONG_S)) as lease:
        lease.acquire()
    with closing(Lease(client, Keys(f"{keys.namespace}.b"), MODEL, OTHER, ttl_s=LONG_S)) as lease:
        lease.acquire()


def test_a_restart_at_the_same_place_takes_over_at_once_and_the_former_process_is_out(make: Make) -> None:
    former, restarted = make(ONE), make(replace(ONE, pid=12))
    first = former.acquire()
    assert restarted.acquire() > first
    with pytest.raises(LeaseTakenError) as no:
        former.ensure()
    assert no.value.holder.pid == 12
    assert former.is_lost
    restarted.ensure()


@pytest.mark.parametrize("change", [{"host": "b"}, {"folder": "/b"}, {"registry_id": "b"}], ids=str)
def test_a_place_is_host_folder_and_registry_together(make: Make, change: dict[str, Any]) -> None:
    make(ONE).acquire()
    with pytest.raises(LeaseTakenError):
        make(replace(ONE, **change)).acquire()


def test_a_lease_that_is_not_renewed_goes_to_the_next_and_does_not_come_back(make: Make) -> None:
    silent, waiting = make(ONE, SHORT_S), make(OTHER, SHORT_S)
    first = silent.acquire()
    second = waiting.acquire_or_wait(sleep)
    assert second is not None
    assert second > first
    waiting.close()
    with pytest.raises(LeaseTakenError, match="meanwhile"):
        silent.ensure()
    with pytest.raises(LeaseTakenError, match="host-2"):
        silent.claim_version(1)
    third = silent.acquire()
    assert third > second
    assert not silent.is_lost
    assert silent.ensure() >= third


def test_a_lease_that_expired_is_taken_again_with_a_new_token_if_nobody_else_had_it(
    make: Make, client: Client, keys: Keys
) -> None:
    lease = make(ONE, 0.05)
    first = lease.acquire()
    until(lambda: not client.exists(keys.lease(MODEL)))
    assert lease.ensure() > first


def test_ensure_renews_for_the_full_time_and_keeps_the_token(make: Make, client: Client, keys: Keys) -> None:
    lease = make(ONE)
    token = lease.acquire()
    client.pexpire(keys.lease(MODEL), 2000)
    assert lease.ensure() == token
    assert client.pttl(keys.lease(MODEL)) > (LONG_S - TIMEOUT_S) * 1000


def test_who_waits_is_refused_as_soon_as_the_holder_renews(make: Make, client: Client) -> None:
    living = make(ONE)
    living.acquire()
    taken_ms = now_ms(client)
    waits: list[float] = []

    def stop(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            until(lambda: now_ms(client) > taken_ms)
            living.ensure()
        return len(waits) > 3

    with capture_logs() as logs, pytest.raises(LeaseTakenError):
        make(OTHER, 3.0).acquire_or_wait(stop)
    assert waits == [1.0] * 3
    assert [each["event"] for each in logs] == ["waiting for the lease to expire"]


def test_who_waits_can_be_stopped_and_then_holds_nothing(make: Make) -> None:
    holding, waiting = make(ONE), make(OTHER)
    token = holding.acquire()
    assert waiting.acquire_or_wait(lambda _: True) is None
    assert holding.ensure() == token


def test_a_version_is_claimed_once_and_again_only_by_its_registry(make: Make) -> None:
    lease = make(ONE)
    lease.acquire()
    assert lease.highest_version() == 0
    assert lease.claim_version(1)
    assert lease.claim_version(5)
    assert not lease.claim_version(3)
    assert lease.highest_version() == 5
    restarted = make(replace(ONE, pid=12))
    restarted.acquire()
    assert restarted.claim_version(5)
    restarted.close()
    elsewhere = make(OTHER)
    elsewhere.acquire()
    assert not elsewhere.claim_version(5)
    assert elsewhere.claim_version(6)


def test_a_version_found_elsewhere_raises_the_highest_and_never_lowers_it(make: Make) -> None:
    lease = make(ONE)
    lease.raise_version(4)
    lease.raise_version(2)
    assert make(OTHER).highest_version() == 4
    lease.acquire()
    assert not lease.claim_version(4)
    lease.raise_version(6, registry_id=ONE.registry_id)
    assert lease.claim_version(6)


def test_a_claim_renews_the_lease_and_without_it_claims_nothing(
    make: Make, client: Client, keys: Keys
) -> None:
    lease, other = make(ONE), make(OTHER)
    lease.acquire()
    client.pexpire(keys.lease(MODEL), 2000)
    assert lease.claim_version(1)
    assert client.pttl(keys.lease(MODEL)) > (LONG_S - TIMEOUT_S) * 1000
    client.delete(keys.lease(MODEL))
    other.acquire()
    with pytest.raises(LeaseTakenError):
        lease.claim_version(2)
    assert other.highest_version() == 1


def test_a_key_of_somebody_else_is_refused_not_overwritten(make: Make, client: Client, keys: Keys) -> None:
    client.set(keys.lease(MODEL), "mine")
    with pytest.raises(RefusedError, match=r"redis\.namespace"):
        make(ONE).acquire()
    assert client.get(keys.lease(MODEL)) == b"mine"
