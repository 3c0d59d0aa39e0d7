"""Whatever processes do with a lease in whatever order: one goes on, tokens and versions rise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leases import LONG_S, MODEL, ONE, OTHER

from streamer.config import RedisConfig
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseHolder, LeaseTakenError

PLACES = (ONE, OTHER, replace(ONE, pid=12))  # the third stands where the first does
NOBODY = -1


@pytest.fixture
def client(redis: RedisConfig) -> Iterator[Client]:
    client = connect(redis)
    yield client
    client.close()


class Rules:
    """What is promised, as a few plain variables, beside leases on a real Redis."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client, self.keys = client, keys
        self.leases = [self.lease(number) for number in range(len(PLACES))]
        self.taker: int | None = None  # whose lease it was last; NOBODY if that process is dead
        self.holder: LeaseHolder | None = None  # whom it names while it stands
        self.tokens = [0]
        self.version = (0, "")

    def lease(self, number: int) -> Lease:
        return Lease(self.client, self.keys, MODEL, PLACES[number], ttl_s=LONG_S)

    def take(self, number: int, token: int, *, is_new: bool) -> None:
        assert token > self.tokens[-1] if is_new else token == self.tokens[-1]
        self.tokens.append(token)
        self.taker, self.holder = number, PLACES[number]

    def goes_on(self, number: int) -> bool:
        """Whether it may write without a new `acquire`: at most one at any time, the last taker."""
        return self.taker in (None, number)

    def acquire(self, number: int, _: int) -> None:
        if self.holder is None or self.holder.place == PLACES[number].place:
            self.take(number, self.leases[number].acquire(), is_new=True)
        else:
            with pytest.raises(LeaseTakenError) as no:
                self.leases[number].acquire()
            assert no.value.holder.pid == self.holder.pid

    def ensure(self, number: int, _: int) -> None:
        if self.goes_on(number):
            self.take(number, self.leases[number].ensure(), is_new=self.holder is None)
        else:
            with pytest.raises(LeaseTakenError):
                self.leases[number].ensure()

    def claim(self, number: int, version: int) -> None:
        if not self.goes_on(number):
            with pytest.raises(LeaseTakenError):
                self.leases[number].claim_version(version)
            return
        wanted = (version, PLACES[number].registry_id)
        is_ours = version > self.version[0] or wanted == self.version
        assert self.leases[number].claim_version(version) == is_ours
        self.take(number, self.leases[number].ensure(), is_new=self.holder is None)
        self.version = wanted if is_ours else self.version
        assert self.leases[number].highest_version() == self.version[0]

    def expire(self, _: int, __: int) -> None:
        self.client.delete(self.keys.lease(MODEL))
        self.holder = None

    def release(self, number: int, _: int) -> None:
        self.leases[number].close()
        if self.taker == number:
            self.holder = None

    def restart(self, number: int, _: int) -> None:
        """Killed in the middle: what the process knew is gone, what it held stands until it expires."""
        self.leases[number] = self.lease(number)
        if self.taker == number:
            self.taker = NOBODY

    def check(self) -> None:
        for number, lease in enumerate(self.leases):
            if not self.goes_on(number):
                with pytest.raises(LeaseTakenError):
                    lease.ensure()


STEPS = ("acquire", "acquire", "ensure", "claim", "claim", "expire", "release", "restart")
example_numbers = iter(range(10**6))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(1, 6)), max_size=25))
def test_whatever_three_processes_do_one_goes_on_and_tokens_and_versions_rise(
    client: Client, unique: str, steps: list[tuple[str, int, int]]
) -> None:
    rules = Rules(client, Keys(f"t{unique}.{next(example_numbers)}"))
    for name, number, version in steps:
        getattr(rules, name)(number, version)
        rules.check()
