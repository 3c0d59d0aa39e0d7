"""Stubs on a real Redis: when they may go, and what comes under their name while they do."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from plants import LABELS, READINGS, SPEC, Plant, casts

from streamer.config import RedisConfig, RetentionConfig, WindowsConfig
from streamer.errors import RefusedError, StoreUnavailableError
from streamer.housekeeping import Housekeeping
from streamer.metrics import StreamerMetrics
from streamer.records import Partition
from streamer.schema import Label
from streamer.store import pending as pending_labels
from streamer.store import stubs as stubs_module
from streamer.store.counts import read_counts
from streamer.store.namespace import claim_spec, drop_spec
from streamer.store.pending import PendingLabels
from streamer.store.retention import Retention
from streamer.store.stubs import StubStore
from streamer.store.totals import TotalsStore

OTHER = Partition("readings-of-before", 0)
LATER = 2_000_000_000


@pytest.fixture
def plant(redis: RedisConfig) -> Iterator[Plant]:
    plant = Plant(redis)
    yield plant
    plant.close()


def evict(plant: Plant, *mine: Partition) -> None:
    """Makes stubs of all casts of these partitions."""
    config = RetentionConfig(max_age_s=1, stubs_s=10**9)
    clocks = dict.fromkeys(mine or (READINGS,), LATER)
    Retention(plant.client, plant.keys, plant.data, config).sweep(clocks)


def drop(plant: Plant, *mine: Partition) -> int:
    return StubStore(plant.client, plant.keys).drop(mine or (READINGS, LABELS), LATER, [SPEC.name])


def counted(plant: Plant, partition: Partition, term: str) -> int:
    found, is_stable = read_counts(plant.client, plant.keys, {READINGS, LABELS})
    assert is_stable
    return found.get(partition, Counter())[term]


@pytest.mark.parametrize("partition", [READINGS, LABELS])
def test_a_stub_stays_until_the_positions_have_passed_what_it_judged(
    plant: Plant, partition: Partition
) -> None:
    """A late record or a label was written, and a crash came before the position: it is read again."""
    plant.write(casts([0]))
    evict(plant)
    position = int(plant.client.hget(plant.keys.position(partition), "offset") or 0)
    plant.client.hset(plant.keys.cast("C00000"), f"applied:{partition}", position + 1)
    assert drop(plant) == 0
    assert plant.client.exists(plant.keys.cast("C00000"))
    plant.client.hset(plant.keys.position(partition), "offset", position + 1)
    assert drop(plant) == 1
    assert not plant.client.exists(plant.keys.cast("C00000"))


def test_labels_that_wait_are_kept_until_the_position_has_passed_them(plant: Plant) -> None:
    plant.label([Label("C00000", True, inspected_at=1)])
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({"C00000": 1_000})
    plant.client.hset(plant.keys.position(LABELS), "offset", 0)
    assert pending.expire([LABELS], LATER) == 0
    assert pending.count() == 1
    plant.client.hset(plant.keys.position(LABELS), "offset", 1)
    assert pending.expire([LABELS], LATER) == 1


def test_stubs_of_a_topic_that_nobody_reads_any_more_stand_in_nobodys_way(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stubs_module, "MAX_STUBS_DROPPED", 2)
    monkeypatch.setattr(stubs_module, "_PAGE", 2)
    plant.write(casts(range(9)))
    for number in range(5):
        plant.client.hset(plant.keys.cast(f"C{number:05d}"), "source", str(OTHER))
    evict(plant, READINGS, OTHER)
    assert plant.client.zcard(plant.keys.stubs) == 9
    assert [drop(plant) for _ in range(3)] == [2, 2, 0]
    assert plant.client.zcard(plant.keys.stubs) == 5


def test_labels_of_a_topic_that_nobody_reads_any_more_stand_in_nobodys_way(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_labels, "MAX_GIVEN_UP", 2)
    monkeypatch.setattr(pending_labels, "_PAGE", 2)
    names = [f"C{number:05d}" for number in range(8)]
    plant.label([Label(name, True, inspected_at=1) for name in names])
    for name in names[:4]:
        key = plant.keys.cast(name)
        plant.client.hdel(key, f"label:{LABELS}")
        plant.client.hset(key, f"label:{OTHER}", 1)
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({name: 1_000 + number for number, name in enumerate(names)})
    assert [pending.expire([LABELS], 1_007) for _ in range(3)] == [2, 1, 0]
    assert pending.count() == 5


@pytest.mark.parametrize("num_deaths", [1, 2])
def test_a_cast_that_comes_under_the_name_of_one_that_is_half_gone_is_counted_beside_it(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, num_deaths: int
) -> None:
    """Its hash was deleted and its markers were not; then a label with its name came."""
    plant.write(casts([0]))
    evict(plant)

    def dies(*_: object) -> None:
        raise StoreUnavailableError("died")

    def die() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(StubStore, "_forget", dies)
            with pytest.raises(StoreUnavailableError):
                drop(plant)

    die()
    assert not plant.client.exists(plant.keys.cast("C00000"))
    plant.label([Label("C00000", False, inspected_at=9)])
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({"C00000": 9})
    for _ in range(1, num_deaths):
        die()
    for _ in range(2):
        assert counted(plant, READINGS, "steps:placed") == 40
        assert counted(plant, LABELS, "label") == 2
        assert drop(plant) == 0
    assert pending.count() == 1
    assert plant.client.zcard(plant.keys.stubs) == 0
    assert plant.client.hget(plant.keys.shown(SPEC.name), "C00000") is None


def test_a_cast_that_came_while_its_label_was_given_up_is_counted_once_when_it_goes(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.label([Label("C00000", True, inspected_at=1)])
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({"C00000": 1_000})
    add = TotalsStore._add

    def meanwhile(*args: Any) -> bool:
        done = add(*args)
        plant.write([dataclasses.replace(cast, defect=None) for cast in casts([0])])
        return done

    with monkeypatch.context() as patch:
        patch.setattr(TotalsStore, "_add", meanwhile)
        assert pending.expire([LABELS], LATER) == 0
    evict(plant)
    for num_dropped in (1, 0):
        assert drop(plant) == num_dropped
        assert counted(plant, LABELS, "label") == 1
        assert counted(plant, READINGS, "steps:placed") == 40


def test_an_index_that_is_no_longer_kept_forgets_a_stub_too(plant: Plant) -> None:
    """Left behind, the note that refuses every view would refuse a cast of the same name for good."""
    short = WindowsConfig(name="short", size_steps=10, hop_steps=5)
    claim_spec(plant.client, plant.keys, short)
    plant.write(casts([0]))
    drop_spec(plant.client, plant.keys, short.name)
    evict(plant)
    assert plant.client.hexists(plant.keys.shown(short.name), "C00000")
    assert drop(plant) == 1
    assert not plant.client.exists(plant.keys.shown(short.name))


def test_stubs_and_labels_go_from_a_redis_that_is_full(plant: Plant) -> None:
    plant.write(casts(range(2)))
    evict(plant)
    plant.label([Label("unseen", True, inspected_at=1)])
    pending = PendingLabels(plant.client, plant.keys)
    pending.note({"unseen": 1_000})
    plant.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError):
            plant.write(casts([7]))
        assert (drop(plant), pending.expire([LABELS], LATER)) == (2, 1)
    finally:
        plant.client.config_set("maxmemory", 0)
    assert counted(plant, READINGS, "steps:placed") == 80
    assert counted(plant, LABELS, "label") == 3


def test_a_partition_that_has_come_is_swept_before_it_is_read(plant: Plant) -> None:
    """Whoever held it may have died over one of its stubs."""
    plant.write(casts(range(2)))
    plant.client.hset(plant.keys.cast("C00000"), "source", str(OTHER))
    now = [0.0]
    retention = Retention(plant.client, plant.keys, plant.data, RetentionConfig(max_casts=1, stubs_s=10**9))
    metrics = StreamerMetrics()
    pending = PendingLabels(plant.client, plant.keys)
    keeper = Housekeeping(retention, pending, metrics, interval_s=10, clock=lambda: now[0])

    def num_evicted(*mine: Partition) -> float | None:
        keeper.sweep_if_due(lambda: dict.fromkeys(mine))
        return metrics.registry.get_sample_value("casting_streamer_casts_evicted_total")

    assert num_evicted(READINGS) == 0
    assert num_evicted(READINGS, OTHER) == 1
    plant.write(casts([2]))
    assert num_evicted(READINGS, OTHER) == 1  # nothing has come, and it is too early
    now[0] += 10
    plant.client.set(plant.keys.clock, "theirs")
    with pytest.raises(RefusedError):
        num_evicted(READINGS, OTHER)
    plant.client.delete(plant.keys.clock)
    assert num_evicted(READINGS, OTHER) == 2  # what was not done is done at once
    plant.write(casts([3]))
    assert num_evicted() == 2
    assert num_evicted(READINGS, OTHER) == 3  # they were another member's for a moment
