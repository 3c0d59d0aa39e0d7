"""One writer a model name: who gets the lease, who loses it and when, on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from streamer.config import RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.errors import RefusedError, StoreUnavailableError
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseHolder, LeaseTakenError

MODEL = "defect-lstm"
ONE = LeaseHolder("host-1", 11, "/registry", "registry-1")
OTHER = LeaseHolder("host-2", 22, "/registry", "registry-2")
LONG_S = 60.0
SHORT_S = 0.5
# A renewal may come late on a busy machine; this is still over in a moment.
RENEWED_S = 1.5
TIMEOUT_S = 20.0

Make = Callable[..., Lease]


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
    """Makes leases of one model name; each is closed at the end."""
    made: list[Lease] = []

    def make(holder: LeaseHolder, ttl_s: float = LONG_S) -> Lease:
        made.append(Lease(client, keys, MODEL, holder, ttl_s=ttl_s))
        return made[-1]

    yield make
    for lease in made:
        lease.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sleep(seconds: float) -> bool:
    """A stop that nobody asks for."""
    time.sleep(seconds)
    return False


def now_ms(client: Client) -> int:
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


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
def test_a_place_is_host_folder_and_registry_together(make: Make, change: dict[str, str]) -> None:
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
    assert silent.ensure() == third


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


def test_the_thread_keeps_the_lease_over_many_lifetimes(make: Make, client: Client) -> None:
    renewed, other = make(ONE, RENEWED_S), make(OTHER)
    token = renewed.acquire()
    renewed.start_renewing()
    begin = now_ms(client)
    while now_ms(client) < begin + 2.5 * RENEWED_S * 1000:
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


def test_the_thread_notices_a_taken_lease_says_it_once_and_ensure_raises(
    make: Make, client: Client, keys: Keys
) -> None:
    lease, other = make(ONE, SHORT_S), make(OTHER)
    lease.acquire()
    with capture_logs() as logs:
        lease.start_renewing()
        client.delete(keys.lease(MODEL))
        other.acquire()
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
    client.delete(keys.lease(MODEL))
    other.acquire()
    until(lambda: lease.is_lost)
    other.close()
    lease.acquire()
    client.pexpire(keys.lease(MODEL), 10_000)
    until(lambda: client.pttl(keys.lease(MODEL)) <= RENEWED_S * 1000)
    assert not lease.is_lost


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
    assert lease.claim_version(7)
    restart_empty(server, dying)
    assert lease.highest_version() == 7
    assert other.highest_version() == 7
    # The other one was first to come: from here on the former holder is out, and tokens still rise.
    assert other.acquire() > second
    assert other.claim_version(8)
    other.close()
    with pytest.raises(LeaseTakenError, match="meanwhile"):
        lease.ensure()


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


PLACES = (ONE, OTHER, replace(ONE, pid=12))  # the third stands where the first does
NOBODY = -1


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
    client: Client, keys: Keys, steps: list[tuple[str, int, int]]
) -> None:
    rules = Rules(client, Keys(f"{keys.namespace}.{next(example_numbers)}"))
    for name, number, version in steps:
        getattr(rules, name)(number, version)
        rules.check()
