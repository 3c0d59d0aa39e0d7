"""Asking a running trainer for a cycle through a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from leases import MODEL, until

from streamer.config import RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.errors import StoreUnavailableError
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.requests import CycleRequests


@pytest.fixture
def client(redis: RedisConfig) -> Iterator[Client]:
    client = connect(redis)
    yield client
    client.close()


@pytest.fixture
def keys(redis: RedisConfig) -> Keys:
    return Keys(redis.namespace)


@pytest.fixture
def requests(client: Client, keys: Keys) -> CycleRequests:
    return CycleRequests(client, keys, MODEL)


def test_several_askers_wait_in_turn_and_each_gets_its_own_answer(requests: CycleRequests) -> None:
    assert requests.pending() is None
    for name in ("c", "a", "b"):
        requests.ask(name)
    requests.ask("c")  # who still waits keeps its place
    assert requests.pending() == "c"
    assert requests.pending_all() == ["c", "a", "b"]
    requests.answer("c", b"promoted \x00")
    assert requests.pending_all() == ["a", "b"]
    requests.answer("a", b"refused")
    assert [requests.take_answer(name) for name in "cab"] == [b"promoted \x00", b"refused", None]
    assert requests.pending() == "b"


def test_an_answered_request_is_not_asked_again_by_an_asker_that_has_not_looked_yet(
    requests: CycleRequests, client: Client, keys: Keys
) -> None:
    requests.ask("a")
    requests.answer("a", b"done")
    requests.ask("a")
    assert client.keys(f"{keys.namespace}:*") == [keys.cycle_answer(MODEL, "a").encode()]
    assert requests.pending() is None
    assert requests.take_answer("a") == b"done"


def test_an_answer_lost_on_its_way_is_taken_again_until_it_is_withdrawn(
    requests: CycleRequests, client: Client, keys: Keys
) -> None:
    requests.ask("a")
    requests.answer("a", b"done")
    assert requests.take_answer("a") == requests.take_answer("a") == b"done"
    requests.withdraw("a")
    assert requests.take_answer("a") is None
    assert not client.keys(f"{keys.namespace}:*")


def test_a_withdrawn_request_is_gone_and_the_others_stay(requests: CycleRequests) -> None:
    requests.ask("a")
    requests.ask("b")
    requests.withdraw("a")
    requests.withdraw("never asked")
    assert requests.pending_all() == ["b"]


def test_a_request_ends_with_its_asker_and_one_that_is_refreshed_stays(client: Client, keys: Keys) -> None:
    gone = CycleRequests(client, keys, MODEL, lifetime_s=1)
    staying = CycleRequests(client, keys, MODEL)
    gone.ask("killed")
    staying.ask("waits")
    gone.ask("waits too")
    assert staying.pending_all() == ["killed", "waits", "waits too"]

    def is_gone() -> bool:
        staying.ask("waits too")
        return "killed" not in staying.pending_all()

    until(is_gone)
    assert staying.pending_all() == ["waits", "waits too"]


def test_nothing_outlives_askers_and_answers_where_no_trainer_runs(client: Client, keys: Keys) -> None:
    requests = CycleRequests(client, keys, MODEL, lifetime_s=0.5, answer_lifetime_s=0.5)
    requests.ask("a")
    requests.ask("b")
    requests.answer("b", b"done")
    assert client.keys(f"{keys.namespace}:*")
    until(lambda: not client.keys(f"{keys.namespace}:*"))


def test_a_short_lifetime_does_not_end_the_request_of_another_asker(client: Client, keys: Keys) -> None:
    CycleRequests(client, keys, MODEL).ask("long")
    short = CycleRequests(client, keys, MODEL, lifetime_s=0.05)
    short.ask("short")
    until(lambda: short.pending_all() == ["long"])


def test_requests_of_another_model_are_not_ours(client: Client, keys: Keys, requests: CycleRequests) -> None:
    requests.ask("a")
    assert CycleRequests(client, keys, "other-model").pending() is None


def test_a_restart_in_the_middle_of_a_cycle_finds_the_request_again(redis: RedisConfig, keys: Keys) -> None:
    asker = connect(redis)
    CycleRequests(asker, keys, MODEL).ask("a")
    for _ in range(2):  # the first trainer is killed between looking and answering
        trainer = connect(redis)
        assert CycleRequests(trainer, keys, MODEL).pending() == "a"
        trainer.close()
    asker.close()


def test_what_a_redis_forgot_is_asked_again_and_meanwhile_it_is_unavailable(server: EmbeddedRedis) -> None:
    client = connect(RedisConfig(url=server.url, timeout_s=1))
    requests = CycleRequests(client, Keys("n"), MODEL)
    requests.ask("a")
    requests.ask("b")
    server.kill()
    for action in (requests.ask, requests.withdraw, requests.take_answer):
        with pytest.raises(StoreUnavailableError):
            action("a")
    with pytest.raises(StoreUnavailableError):
        requests.pending()
    with pytest.raises(StoreUnavailableError):
        requests.answer("a", b"")
    server.start()
    client.flushall()
    requests.ask("b")
    requests.ask("a")
    assert requests.pending_all() == ["b", "a"]
    client.close()
