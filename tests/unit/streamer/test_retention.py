"""Retention on a real Redis: what goes, what stays, and that a pass may die anywhere."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py
from plants import LABELS, READINGS, SPEC, Plant, casts

from streamer.config import RedisConfig, RetentionConfig, WindowsConfig
from streamer.errors import StoreUnavailableError
from streamer.records import Partition
from streamer.schema import Label
from streamer.store.counts import read_counts
from streamer.store.holds import CastHolds
from streamer.store.namespace import claim_spec
from streamer.store.pending import PendingLabels
from streamer.store.retention import Retention, RetentionResult
from streamer.store.scripts import INDEX
from streamer.store.totals import TotalsStore

NEVER = 10**9


@pytest.fixture
def plant(redis: RedisConfig) -> Iterator[Plant]:
    plant = Plant(redis)
    yield plant
    plant.close()


def retention(plant: Plant, **limits: float) -> Retention:
    config = RetentionConfig.model_validate({"stubs_s": NEVER, "pending_labels_s": NEVER, **limits})
    return Retention(plant.client, plant.keys, plant.data, config)


def sweep(plant: Plant, now_s: float, **limits: float) -> RetentionResult:
    return retention(plant, **limits).sweep({READINGS: int(now_s * 1000), LABELS: None})


def stored(plant: Plant) -> list[int]:
    """Numbers of the casts with rows."""
    return [int(member[1:]) for member in plant.client.zrange(plant.keys.stored, 0, -1)]


def indexed(plant: Plant) -> set[int]:
    """Numbers of the casts with windows."""
    return {int(address.cast_id[1:]) for address in plant.reader().sealed()}


def counts(plant: Plant) -> dict[Partition, Counter[str]]:
    """The terms of the ledger, as its reader has them."""
    found, is_stable = read_counts(plant.client, plant.keys, {READINGS, LABELS})
    assert is_stable
    return {
        each: Counter({name: n for name, n in terms.items() if n and name != "labels_expired"})
        for each, terms in found.items()
    }


def contents(plant: Plant) -> dict[bytes, Any]:
    """Everything under the namespace, without tokens, which differ by pass."""
    found: dict[bytes, Any] = {}
    for key in sorted(plant.client.scan_iter(f"{plant.keys.namespace}:*", count=1_000)):
        kind = plant.client.type(key)
        if kind == b"hash":
            fields = plant.client.hgetall(key)
            found[key] = {
                name: value for name, value in fields.items() if not name.startswith((b"owner:", b"going"))
            }
        elif kind == b"zset":
            found[key] = plant.client.zrange(key, 0, -1, withscores=True)
        elif kind == b"set":
            found[key] = plant.client.smembers(key)
        else:
            found[key] = plant.client.get(key)
    return found


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"max_age_s": 250}, [3, 4, 5]),
        ({"max_casts": 4}, [2, 3, 4, 5]),
        ({"max_bytes": 1_000_000}, [0, 1, 2, 3, 4, 5]),
        ({"max_age_s": 350, "max_casts": 3}, [3, 4, 5]),
    ],
)
def test_the_oldest_casts_over_a_limit_lose_rows_and_windows(
    plant: Plant, limits: dict[str, float], left: list[int]
) -> None:
    plant.write(casts(range(6)))  # cast k begins at 1,000,000 + 100 k s
    result = sweep(plant, 1_000_550, **limits)
    assert stored(plant) == left
    assert indexed(plant) == set(left)
    assert {int(a.cast_id[1:]) for a, _ in plant.reader().labelled()} == set(left)
    rows = plant.client.keys(f"{plant.keys.namespace}:cast:*rows*")
    assert {int(key.split(b"{C")[1][:5]) for key in rows} == set(left)
    assert (result.num_evicted, result.num_stored, result.num_stubs) == (
        6 - len(left),
        len(left),
        6 - len(left),
    )
    assert sweep(plant, 1_000_550, **limits).num_evicted == 0


def test_bytes_are_those_of_the_blocks_at_full_length(plant: Plant) -> None:
    # 16 steps of two sensors and their validity are 144 bytes a block.
    plant.write(casts(range(400), num_steps=160))
    one = sweep(plant, 1_040_000, max_bytes=10**9).num_bytes
    assert one is not None
    result = sweep(plant, 1_040_000, max_bytes=1_000_000)
    assert result.num_bytes == one
    again = sweep(plant, 1_040_000, max_bytes=1_000_000)
    assert again.num_bytes is not None
    assert 1_000_000 - one / 400 < again.num_bytes <= 1_000_000
    assert stored(plant) == list(range(result.num_evicted, 400))


def test_a_member_that_has_just_started_learns_the_sizes_first(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.write(casts(range(6)))
    monkeypatch.setattr("streamer.store.retention.MAX_SIZED", 4)
    keeper = retention(plant, max_bytes=1_000_000)
    assert [keeper.sweep({READINGS: 1}).num_bytes is None for _ in range(3)] == [True, False, False]


def test_a_cast_that_moves_or_that_labels_are_about_to_decide_stays(plant: Plant) -> None:
    plant.write(casts(range(3)))
    plant.client.hset(plant.keys.cast("C00000"), "ended", 0)
    plant.client.hincrby(plant.keys.cast("C00001"), "revision", 1)
    assert sweep(plant, 2_000_000, max_age_s=1).num_evicted == 1
    assert stored(plant) == [0, 1]


def test_each_member_evicts_its_own_and_all_together_the_oldest(plant: Plant) -> None:
    plant.write(casts(range(8)))
    other = Partition("readings", 1)
    for number in (1, 2, 6):
        plant.client.hset(plant.keys.cast(f"C{number:05d}"), "source", str(other))
    one = retention(plant, max_casts=4).sweep({READINGS: 1})
    assert one.num_evicted == 2
    assert stored(plant) == [1, 2, 4, 5, 6, 7]
    two = retention(plant, max_casts=4).sweep({other: 1})
    assert two.num_evicted == 2
    assert stored(plant) == [4, 5, 6, 7]


def test_age_goes_by_the_newest_log_time_of_the_namespace(plant: Plant) -> None:
    plant.write(casts(range(2)))
    other = Partition("readings", 1)
    keeper = retention(plant, max_age_s=500)
    assert keeper.sweep({READINGS: 1_000_400_000}).num_evicted == 0
    # Another member is ahead, and says so.
    assert retention(plant, max_age_s=500).sweep({other: 1_000_550_000}).num_evicted == 0
    assert keeper.sweep({READINGS: 1_000_400_000}).num_evicted == 1


def test_a_log_time_from_the_future_makes_nothing_old(plant: Plant) -> None:
    """Two wild `sent-at` of a gateway have moved one partition; the other one still says how late it is."""
    plant.write(casts(range(6)))
    config = RetentionConfig(max_age_s=250, stubs_s=NEVER)
    keeper = Retention(plant.client, plant.keys, plant.data, config, wall_clock=lambda: 1_000_600)
    other, day_ms = Partition("readings", 1), 86_400_000
    assert keeper.sweep({READINGS: 1_000_600_001 + day_ms}).num_evicted == 0
    assert keeper.sweep({READINGS: None, other: 1_000_550_000}).num_evicted == 3
    assert keeper.sweep({READINGS: None, other: 1_000_600_000 + day_ms}).num_evicted == 3


def test_while_no_log_time_is_known_nothing_is_old_and_counts_hold(plant: Plant) -> None:
    plant.write(casts(range(4)))
    assert (
        retention(plant, max_age_s=1, max_casts=3, stubs_s=1).sweep(dict.fromkeys([READINGS])).num_evicted
        == 1
    )
    assert stored(plant) == [1, 2, 3]
    assert plant.client.zcard(plant.keys.stubs) == 1


def test_what_somebody_holds_stays_until_it_is_released(plant: Plant) -> None:
    plant.write(casts(range(6)))
    holds = CastHolds(plant.client, plant.keys)
    assert holds.hold("model/one", ["C00000", "C00002"]) == set()
    assert holds.hold("model/replay", ["C00002", "C00003"]) == set()
    assert holds.holders() == {"model/one": 2, "model/replay": 2}
    keeper = retention(plant, max_casts=1)  # held ones come on top
    assert keeper.sweep({READINGS: 1}).num_evicted == 2
    assert stored(plant) == [0, 2, 3, 5]
    holds.hold("model/replay", ["C00003"])  # takes the place of what it held
    holds.release("model/one")
    assert keeper.sweep({READINGS: 1}).num_evicted == 2
    assert stored(plant) == [3, 5]
    holds.release("nobody")
    assert holds.holders() == {"model/replay": 1}


def test_a_hold_comes_too_late_for_what_is_gone_or_going(plant: Plant) -> None:
    plant.write(casts(range(3)))
    sweep(plant, 1_000_000, max_casts=2)
    plant.client.hset(plant.keys.cast("C00001"), "evicting", "somebody")
    holds = CastHolds(plant.client, plant.keys)
    ids = ["C00000", "C00001", "C00002", "unheard-of"]
    assert holds.hold("model/one", ids) == {"C00000", "C00001", "unheard-of"}


def test_a_hold_that_comes_between_mark_and_eviction_wins(plant: Plant) -> None:
    plant.write(casts(range(2)))
    holds = CastHolds(plant.client, plant.keys)
    keeper = retention(plant, max_age_s=1)
    told: list[object] = []
    mark = keeper._mark_all

    def hold_meanwhile(marked: Any) -> Any:
        result = mark(marked)
        told.append(holds.hold("model/one", ["C00000"]))
        return result

    keeper._mark_all = hold_meanwhile  # type: ignore[method-assign]  # the moment that the test is about
    assert keeper.sweep({READINGS: 2_000_000_000}).num_evicted == 1
    # Both gave way: the cast stays, and the holder does not rely on it.
    assert told == [{"C00000"}]
    assert stored(plant) == indexed_list(plant) == [0]
    assert holds.hold("model/one", ["C00000"]) == set()


def indexed_list(plant: Plant) -> list[int]:
    return sorted(indexed(plant))


def test_a_pass_that_was_overtaken_evicts_nothing(plant: Plant) -> None:
    plant.write(casts(range(1)))
    slow, quick = retention(plant, max_age_s=1), retention(plant, max_age_s=1)
    mark = slow._mark_all

    def overtaken(marked: Any) -> Any:
        result = mark(marked)
        # Meanwhile: another member takes over and finds it held, which it tells the holder afterwards.
        CastHolds(plant.client, plant.keys).hold("model/one", ["C00000"])
        quick.sweep({READINGS: 2_000_000_000})
        assert CastHolds(plant.client, plant.keys).hold("model/one", ["C00000"]) == set()
        plant.client.delete(plant.keys.holders)  # what the slow one has read is older than the hold
        return result

    slow._mark_all = overtaken  # type: ignore[method-assign]  # the moment that the test is about
    assert slow.sweep({READINGS: 2_000_000_000}).num_evicted == 0
    assert stored(plant) == [0]


def test_a_stub_knows_its_span_and_no_label_decides_it(plant: Plant) -> None:
    plant.write(casts(range(2)))
    key = plant.keys.cast("C00000")
    before = plant.client.hgetall(key)
    sweep(plant, 1, max_casts=1)
    stub = plant.client.hgetall(key)
    for name in (b"first_step", b"sealed", b"ended", b"labels", b"source", b"applied:readings/0"):
        assert stub[name] == before[name]
    assert stub[b"evicted"] == b"1"
    plant.label([Label("C00000", True, inspected_at=9)])
    assert plant.client.hget(key, f"label:{LABELS}") == b"2"
    assert indexed(plant) == {1}
    assert plant.reader().last_arrival() == 4
    (state,) = plant._casts.load(READINGS, ["C00000"]).values()
    assert state.timeline.ended


def test_every_spec_that_ever_indexed_a_cast_lets_it_go(plant: Plant, redis: RedisConfig) -> None:
    short = WindowsConfig(name="short", size_steps=10, hop_steps=5)
    claim_spec(plant.client, plant.keys, short)
    plant.write(casts(range(2)))
    assert plant.client.zcard(plant.keys.windows("short")) == 14
    plant.client.srem(plant.keys.specs, "short")  # members keep to it no longer
    sweep(plant, 1, max_casts=1)
    assert plant.client.zcard(plant.keys.windows("short")) == 7
    assert (
        plant.client.zcard(plant.keys.good("short")) + plant.client.zcard(plant.keys.defective("short")) == 7
    )


def test_a_view_of_the_cast_from_before_brings_no_window_back(plant: Plant) -> None:
    (cast,) = casts([0])
    plant.write([dataclasses.replace(cast, defect=None)])
    enter = plant.client.register_script(INDEX)
    name, revision = SPEC.name, plant.client.hget(plant.keys.cast("C00000"), "revision")
    sweep(plant, 1_999_999, max_age_s=1)
    keys = [
        *(plant.keys.windows(name), plant.keys.defective(name), plant.keys.good(name)),
        *(plant.keys.withdrawn(name), plant.keys.arrivals(name), plant.keys.shown(name)),
    ]
    assert enter(keys=keys, args=["C00000", revision, "C00000/1000000/20", 1, 1]) == 0
    assert indexed(plant) == set()


class Dying(redis_py.Connection):
    """Breaks for good after so many answers: what was asked for is done, and nobody hears of it."""

    left = 10**9

    def read_response(self, *args: Any, **options: Any) -> Any:
        answer = super().read_response(*args, **options)
        Dying.left -= 1
        if Dying.left < 0:
            self.disconnect()
            raise redis_py.ConnectionError("died")
        return answer


@pytest.fixture
def mortal(redis: RedisConfig) -> Iterator[Callable[[str], Plant]]:
    """Makes plants in namespaces of their own, whose connection `Dying` ends."""
    plants: list[Plant] = []

    def make(name: str) -> Plant:
        plants.append(Plant(redis.model_copy(update={"namespace": f"{redis.namespace}-{name}"})))
        plants[-1].client.connection_pool.connection_class = Dying
        plants[-1].client.connection_pool.reset()
        return plants[-1]

    yield make
    Dying.left = 10**9
    for plant in plants:
        plant.client.delete(*plant.client.scan_iter(f"{plant.keys.namespace}:*", count=1_000))
        plant.close()


def season(plant: Plant) -> Callable[[], RetentionResult]:
    """Casts, stubs, one that is held, labels for casts that never came; returns a pass that has to do with all."""
    plant.write(casts(range(8), num_steps=20))
    for number in range(8):
        key = plant.keys.cast(f"C{number:05d}")
        plant.client.hset(
            key, mapping={"records:applied": number + 1, "steps:placed": 40, "steps:carried": 40}
        )
    CastHolds(plant.client, plant.keys).hold("model/one", ["C00003"])
    retention(plant, max_casts=5).sweep({READINGS: 1, LABELS: None})
    late = [Label("C90000", True, inspected_at=1), Label("C90000", False, 2), Label("C90001", True, 3)]
    plant.label(late)
    PendingLabels(plant.client, plant.keys).note({"C90000": 1_000_000_000, "C90001": 1_000_900_000})
    # At 1,000,700 the first two are stubs whose time is over, and the first label has waited for too long.
    limits = {"max_casts": 3, "stubs_s": 550, "pending_labels_s": 600}
    return lambda: retention(plant, **limits).sweep({READINGS: 1_000_700_000, LABELS: None})


def outcome(plant: Plant) -> dict[str, Any]:
    prefix = plant.keys.namespace
    return {key.decode().removeprefix(prefix): value for key, value in contents(plant).items()}


def test_a_pass_may_die_after_any_command(mortal: Callable[[str], Plant]) -> None:
    season(mortal("first"))()  # loads the scripts, so that every pass has the same number of answers
    calm = mortal("calm")
    sweep_calm = season(calm)
    counted = counts(calm)
    before = Dying.left
    result = sweep_calm()
    num_answers = before - Dying.left
    assert (result.num_evicted, result.num_stubs_dropped, result.num_labels_expired) == (2, 2, 2)
    expected = outcome(calm)
    assert counts(calm) == counted
    assert num_answers > 60
    for number in range(num_answers):
        plant = mortal(str(number))
        again = season(plant)
        Dying.left = number
        with pytest.raises(StoreUnavailableError):
            again()
        Dying.left = 10**9
        assert counts(plant) == counted, number
        again()
        left = outcome(plant)
        wrong = {key for key in left.keys() | expected.keys() if left.get(key) != expected.get(key)}
        assert wrong == set(), number


def test_counts_survive_their_cast_exactly_once(plant: Plant) -> None:
    plant.write(casts(range(3)))
    for number in range(3):
        plant.client.hset(
            plant.keys.cast(f"C{number:05d}"), mapping={"records:applied": 2, "steps:late": number}
        )
    terms = Counter({"records:applied": 6, "steps:late": 3, "steps:placed": 120})
    expected = {READINGS: terms, LABELS: Counter(label=3)}
    assert counts(plant) == expected
    sweep(plant, 1, max_casts=1)
    assert counts(plant) == expected
    result = sweep(plant, 1_000_150, max_casts=1, stubs_s=100)
    assert (result.num_stubs_dropped, result.num_stubs) == (1, 1)
    assert not plant.client.exists(plant.keys.cast("C00000"))
    assert plant.client.zscore(plant.keys.casts, "C00000") is None
    assert counts(plant) == expected
    # The name comes again, long after: a cast of its own.
    plant.client.hset(plant.keys.cast("C00000"), mapping={"source": str(READINGS), "records:applied": 1})
    plant.client.zadd(plant.keys.casts, {"C00000": 1})
    assert counts(plant)[READINGS]["records:applied"] == 7


def test_a_member_that_was_overtaken_counts_nothing_twice(plant: Plant) -> None:
    plant.write(casts(range(1)))
    plant.client.hset(plant.keys.cast("C00000"), mapping={"records:applied": 5, "evicted": 1})
    slow, quick = TotalsStore(plant.client, plant.keys), TotalsStore(plant.client, plant.keys)
    read, reads = slow._read, []

    def overtaken(cast_id: str) -> Any:
        fields = read(cast_id)
        reads.append(cast_id)
        if len(reads) == 2:  # it has looked, and now everything is done without it
            assert quick.drop(READINGS, "C00000")
            quick.forget(READINGS, "C00000")
        return fields

    slow._read = overtaken  # type: ignore[method-assign]  # the moment that the test is about
    assert not slow.drop(READINGS, "C00000")
    assert counts(plant)[READINGS]["records:applied"] == 5


def test_labels_wait_for_their_cast_until_it_is_seen_or_their_time_is_over(plant: Plant) -> None:
    pending = PendingLabels(plant.client, plant.keys)
    plant.write(casts([0]))
    early = ["C00001", "C00002", "C00003"]
    plant.label([Label(each, True, inspected_at=1) for each in ("C00000", *early)])
    pending.note({"C00000": 5_000, "C00001": 1_000, "C00002": 2_000, "C00003": 3_000})
    pending.note({"C00001": 9_000})  # waits since its first label
    assert pending.count() == 3
    plant.write([dataclasses.replace(cast, defect=None) for cast in casts([1])])
    pending.seen(["C00001"])
    assert pending.count() == 2
    assert {address.cast_id for address in plant.reader().sealed()} == {"C00000", "C00001"}
    # A race or a crash has left this one listed.
    plant.client.zadd(plant.keys.pending_labels, {"C00001": 1_000})
    assert pending.expire([READINGS], 2_500) == 0  # another member's
    assert pending.count() == 2
    assert pending.expire([LABELS], 2_500) == 1
    assert pending.count() == 1
    assert not plant.client.exists(plant.keys.cast("C00002"))
    assert counts(plant)[LABELS] == Counter(label=5)
    assert plant.client.hget(plant.keys.totals(LABELS), "labels_expired") == b"1"


def test_labels_wait_for_a_partition_that_lags_behind_as_long_as_the_topics_are_kept(plant: Plant) -> None:
    """A member that died on a long log: in the seconds until another has its partition, days go by on the others."""
    plant.label([Label(each, True, inspected_at=1) for each in ("C00000", "C00001")])
    PendingLabels(plant.client, plant.keys).note({"C00000": 1_000_000, "C00001": 3_000_000})
    lagging = Partition("readings", 1)

    def num_expired(partition: Partition, now_s: float) -> int:
        keeper = retention(plant, pending_labels_s=500, stubs_s=9_000)
        return keeper.sweep({partition: int(now_s * 1000), LABELS: None}).num_labels_expired

    assert num_expired(lagging, 1_100) == 0
    assert num_expired(READINGS, 8_000) == 0
    assert num_expired(lagging, 1_501) == 1
    assert num_expired(READINGS, 12_000) == 0
    assert num_expired(READINGS, 12_001) == 1


def test_a_cast_that_comes_while_its_label_is_given_up_keeps_it(plant: Plant) -> None:
    plant.label([Label("C00000", True, inspected_at=1)])
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({"C00000": 1_000})
    add = pending._totals._add

    def meanwhile(*args: Any) -> bool:
        done = add(*args)
        plant.write([dataclasses.replace(cast, defect=None) for cast in casts([0])])
        return done

    pending._totals._add = meanwhile  # type: ignore[method-assign]  # the moment that the test is about
    assert pending.expire([LABELS], 2_000) == 0
    assert plant.client.hget(plant.keys.cast("C00000"), "labels")
    assert counts(plant)[LABELS] == Counter(label=1)
    TotalsStore(plant.client, plant.keys).mend(LABELS)
    plant.label([Label("C00000", True, inspected_at=2)])
    assert counts(plant)[LABELS] == Counter(label=2)


def test_a_cast_that_came_just_before_its_label_is_given_up_keeps_its_rows(plant: Plant) -> None:
    """Another member has written its first readings, and their position has passed them."""
    plant.label([Label("C00000", True, inspected_at=1)])
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({"C00000": 1_000})
    drop = pending._totals.drop

    def comes(*args: Any) -> bool:
        plant.write([dataclasses.replace(cast, defect=None) for cast in casts([0])])
        return drop(*args)

    pending._totals.drop = comes  # type: ignore[method-assign]  # the moment that the test is about
    assert pending.expire([LABELS], 2_000) == 0
    assert plant.client.hget(plant.keys.cast("C00000"), "source")
    assert {address.cast_id for address, _ in plant.reader().labelled()} == {"C00000"}
    assert counts(plant) == {READINGS: Counter({"steps:placed": 40}), LABELS: Counter(label=1)}


def test_a_full_redis_can_be_emptied(plant: Plant) -> None:
    plant.write(casts(range(6)))
    keeper = retention(plant, max_casts=2)
    plant.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError):
            plant.write(casts([7]))
        assert keeper.sweep({READINGS: 1_000_600_000, LABELS: None}).num_evicted == 4
    finally:
        plant.client.config_set("maxmemory", 0)
    assert stored(plant) == [4, 5]


def test_a_stub_that_counts_on_while_it_goes_stays_for_the_next_pass(plant: Plant) -> None:
    plant.write(casts(range(1)))
    key = plant.keys.cast("C00000")
    plant.client.hset(key, mapping={"records:late": 1, "evicted": 1})
    totals = TotalsStore(plant.client, plant.keys)
    add = totals._add

    def meanwhile(*args: Any) -> bool:
        done = add(*args)
        plant.client.hincrby(key, "records:late", 1)
        return done

    totals._add = meanwhile  # type: ignore[method-assign]  # the moment that the test is about
    assert not totals.drop(READINGS, "C00000")
    assert counts(plant)[READINGS]["records:late"] == 3  # a label's partition was added to as well
    totals._add = add  # type: ignore[method-assign]
    assert totals.drop(READINGS, "C00000")
    assert counts(plant)[READINGS]["records:late"] == 3


def test_a_cast_that_comes_while_its_label_is_listed_is_not_left_waiting(plant: Plant) -> None:
    pending = PendingLabels(plant.client, plant.keys)
    plant.label([Label("C00000", True, inspected_at=1)])
    unseen, looks = pending._unseen, []

    def comes(cast_ids: Any) -> list[str]:
        found = unseen(cast_ids)
        looks.append(found)
        if len(looks) == 1:
            plant.write([dataclasses.replace(cast, defect=None) for cast in casts([0])])
            pending.seen(["C00000"])
        return found

    pending._unseen = comes  # type: ignore[method-assign]  # the moment that the test is about
    pending.note({"C00000": 1_000})
    assert looks == [["C00000"], []]
    assert pending.count() == 0
