"""Casts, labels and the index on a real Redis: judged once, fenced, mended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
from columns import Reading, cast_readings
from odd_names import ODD_NAMES
from streamer_harness import DATA, WINDOWS

from streamer.columns import FloatArray
from streamer.config import (
    DataConfig,
    RedisConfig,
    SensorConfig,
    WindowsConfig,
)
from streamer.embedded import EmbeddedRedis
from streamer.errors import ConfigError, FencedError, RefusedError, StoreUnavailableError
from streamer.open_rows import OUTCOMES
from streamer.records import Partition
from streamer.schema import CastEnd, Label
from streamer.store.casts import CastState, CastStore
from streamer.store.connection import Client, connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import check_server, claim_namespace, claim_spec, read_namespace, read_spec
from streamer.store.positions import LastRecord, PositionStore
from streamer.store.reading import WindowReader
from streamer.store.rows import RowStore
from streamer.timeline import Grid, Lateness, LogClock
from streamer.windows import Address

READINGS, LABELS = Partition("readings", 0), Partition("labels", 0)
GRID = Grid(1000)
BOUNDS = Lateness(allowed_ms=3_000, idle_ms=60_000, max_future_ms=10_000, max_past_ms=600_000)
NAN = math.nan
LAST = LastRecord(12, 34)


@pytest.fixture
def client(redis: RedisConfig) -> Iterator[Client]:
    client = connect(redis)
    yield client
    client.close()


class Store:
    """All that lies over one namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.keys = Keys(namespace)
        self.casts = CastStore(client, self.keys, DATA)
        self.index = WindowIndex(client, self.keys, DATA, WINDOWS)
        self.positions = PositionStore(client, self.keys)
        self.reader = WindowReader(client, self.keys, DATA, WINDOWS)
        self.offset = 0

    def load(self, cast_id: str = "C", partition: Partition = READINGS) -> CastState:
        return self.casts.load(partition, [cast_id])[cast_id]

    def place(self, state: CastState, ts: int, *row: float, at: int | None = None) -> None:
        readings = cast_readings([Reading("C", 1, ts, 0, (row,))], GRID, [at or ts], [0])
        outcomes = state.timeline.take(readings, GRID, BOUNDS)
        state.counts[f"steps:{OUTCOMES[outcomes[0]]}"] += 1
        state.source = str(READINGS)
        self.offset += 1
        state.next_applied = self.offset

    def cast(self, steps: range, cast_id: str = "C", *, ended: bool = True) -> CastState:
        """Writes a cast whose values are its steps."""
        state = self.load(cast_id)
        for step in steps:
            self.place(state, step * 1000, float(step), -float(step))
        if ended:
            state.timeline.end(CastEnd(cast_id, steps[-1] * 1000), GRID, BOUNDS, steps[-1] * 1000, 0)
            state.timeline.close()
        self.casts.save(READINGS, [state])
        return state

    def label(
        self, offset: int, defect: bool | None, at: int, low: int | None = None, high: int | None = None
    ) -> None:
        span = (None if low is None else low * 1000, None if high is None else high * 1000)
        self.casts.add_labels([(LABELS, offset, Label("C", defect, at, *span))])
        self.index.update(["C"])

    def rows(self, start: int, length: int) -> FloatArray:
        return RowStore(self.client, self.keys, DATA).read([Address("C", start, length)])[0]

    def hash(self) -> dict[bytes | str, bytes | str]:
        return self.client.hgetall(self.keys.cast("C"))

    def verdicts(self) -> list[tuple[int, bool]]:
        return [(address.start, defective) for address, defective in self.reader.labelled()]


@pytest.fixture
def store(client: Client, redis: RedisConfig) -> Store:
    return Store(client, redis.namespace)


def test_an_open_cast_goes_on_after_a_restart(store: Store, client: Client, redis: RedisConfig) -> None:
    held = store.load()
    for ts, row in ((100_000, (1.1, NAN)), (101_200, (2.0, 2.5)), (103_900, (4.0, 4.5))):
        store.place(held, ts, *row)
    store.casts.save(READINGS, [held])
    again = Store(client, redis.namespace).load()
    for name in ("step_T", "value_TF", "jitter_TF", "dirty_TF"):
        np.testing.assert_array_equal(getattr(again.timeline.rows, name), getattr(held.timeline.rows, name))
    again.timeline.rows = held.timeline.rows
    assert again == held
    assert again.applied == 3


def test_a_cast_saved_after_each_record_is_the_cast_saved_once(store: Store) -> None:
    ts = [100_000, 99_800, 102_300, 101_000, 102_100, 100_100, 104_000, 107_000, 101_000, 118_000]
    whole = store.load()
    for each in ts:
        store.place(whole, each, float(each), 1.0)
    store.casts.save(READINGS, [whole])
    once = (store.rows(95, 30).tobytes(), {**store.hash(), b"version": b"", b"revision": b""})
    for key in (store.keys.cast("C"), store.keys.rows("C", 6), store.keys.rows("C", 7)):
        store.client.delete(key)
    store.offset = 0
    for each in ts:
        state = store.load()
        store.place(state, each, float(each), 1.0)
        store.casts.save(READINGS, [state])
    assert (store.rows(95, 30).tobytes(), {**store.hash(), b"version": b"", b"revision": b""}) == once


@pytest.mark.parametrize("other", [READINGS, Partition("readings", 1)], ids=["applied", "version"])
def test_a_writer_that_lost_its_partition_changes_nothing(store: Store, other: Partition) -> None:
    store.cast(range(100, 103), ended=False)
    stale, owner = store.load(), store.load(partition=other)
    store.place(owner, 103_000, 1.0, 1.0)
    store.casts.save(other, [owner])
    before = (store.hash(), store.rows(100, 10).tobytes())
    store.place(stale, 104_000, 9.0, 9.0)
    with pytest.raises(FencedError, match="C"):
        store.casts.save(READINGS, [stale])
    assert (store.hash(), store.rows(100, 10).tobytes()) == before


def test_a_writer_that_knows_the_version_but_not_what_was_applied_is_fenced(store: Store) -> None:
    store.cast(range(100, 103), ended=False)
    stale = store.load()
    store.client.hset(store.keys.cast("C"), f"applied:{READINGS}", 77)
    store.place(stale, 104_000, 9.0, 9.0)
    with pytest.raises(FencedError):
        store.casts.save(READINGS, [stale])


def test_of_two_casts_in_one_save_the_fenced_one_alone_stays(store: Store) -> None:
    store.cast(range(100, 103), ended=False)
    stale, fresh = store.load(), store.load("D")
    store.casts.save(READINGS, [store.load()])
    store.place(stale, 104_000, 9.0, 9.0)
    store.place(fresh, 104_000, 9.0, 9.0)
    with pytest.raises(FencedError, match=r": C$"):
        store.casts.save(READINGS, [stale, fresh])
    assert store.load("D").version == 1


def test_values_are_written_one_by_one_across_blocks(store: Store) -> None:
    # blocks of 16 steps: 95 | 96
    state = store.load()
    store.place(state, 95_000, NAN, 1.0)
    store.place(state, 96_000, 2.0, NAN)
    store.casts.save(READINGS, [state])
    # another sensor of the same steps, as if this writer had never seen the first: nothing is overwritten
    rows = state.timeline.rows
    rows.value_TF = np.array([[5.0, NAN], [NAN, NAN]], np.float32)
    rows.dirty_TF = np.array([[True, False], [False, False]])
    store.casts.save(READINGS, [state])
    np.testing.assert_array_equal(store.rows(94, 4), [[NAN, NAN], [5.0, 1.0], [2.0, NAN], [NAN, NAN]])
    assert {store.client.strlen(store.keys.rows("C", block)) for block in (5, 6)} == {16 * 2 * 4 + 16}
    flags = [store.client.getrange(store.keys.rows("C", block), 16 * 2 * 4, -1) for block in (5, 6)]
    assert flags == [bytes(15) + b"\1", b"\1" + bytes(15)]  # one byte a step: it has a value


def test_rows_have_one_nan(store: Store) -> None:
    store.cast(range(100, 103), ended=False)
    store.client.setrange(store.keys.rows("C", 6), 8 * 7, b"\x01\x00\xc0\xff")
    one_nan = np.float32(np.nan).tobytes()
    assert store.rows(102, 2).tobytes() == np.array([102, -102], np.float32).tobytes() + 2 * one_nan


def test_labels_decide_before_after_twice_changed_and_withdrawn(store: Store) -> None:
    store.label(0, False, 10)
    assert store.verdicts() == []
    store.cast(range(100, 110))
    store.index.update(["C"])
    assert store.verdicts() == [(100, False), (105, False)]
    store.label(1, True, 20, 106, 106)
    assert store.verdicts() == [(100, False), (105, True)]
    store.label(2, True, 5)  # older than both: says nothing
    assert store.verdicts() == [(100, False), (105, True)]
    store.label(3, None, 30, 100, 104)
    assert store.verdicts() == [(105, True)]
    store.label(4, False, 40)
    assert store.verdicts() == [(100, False), (105, False)]


def test_labels_that_came_in_any_order_leave_the_same_revision(store: Store) -> None:
    labels = [Label("C", False, 10), Label("C", True, 20, 106_000), Label("C", None, 20, None, 101_000)]
    store.cast(range(100, 110))
    seen = set()
    for order in permutations(labels):
        store.client.hdel(store.keys.cast("C"), "labels", f"applied:{LABELS}")
        store.casts.add_labels([(LABELS, offset, label) for offset, label in enumerate(order)])
        store.index.update(["C"])
        seen.add((store.reader.casts(["C"])["C"].label_revision, tuple(store.verdicts())))
    assert len(seen) == 1


def test_a_label_applied_before_changes_nothing(store: Store) -> None:
    store.cast(range(100, 105))
    store.label(4, True, 10)
    before = store.hash()
    store.label(4, True, 10)
    store.label(3, False, 99)
    assert store.hash() == before


def test_the_same_verdict_twice_is_counted_and_is_no_news(store: Store) -> None:
    store.cast(range(100, 105))
    store.label(0, True, 10)
    arrival, revision = store.reader.last_arrival(), store.reader.casts(["C"])["C"].label_revision
    store.label(1, True, 10)
    assert (store.reader.last_arrival(), store.reader.casts(["C"])["C"].label_revision) == (arrival, revision)
    assert store.hash()[b"label:labels/0"] == b"2"


def test_news_is_a_decision_that_changed(store: Store) -> None:
    store.cast(range(100, 110))
    store.label(0, False, 10)
    first = store.reader.last_arrival()
    assert first == 2
    assert store.reader.num_labelled_since(0) == 2
    store.label(1, True, 20, 105, 105)
    assert store.reader.num_labelled_since(first) == 1
    store.label(2, True, 30, 105, 105)
    assert store.reader.num_labelled_since(first + 1) == 0


def test_an_older_view_of_a_cast_never_overwrites_a_newer_index(store: Store) -> None:
    store.cast(range(100, 105))
    (old_view,) = store.index._load(["C"])
    store.label(0, True, 10)
    (job,) = store.index._jobs(old_view)
    job.verdicts = [-1]
    store.index._enter_all([job])
    assert job.stale
    assert store.verdicts() == [(100, True)]


def test_an_index_left_behind_is_mended_and_mending_again_is_no_news(store: Store) -> None:
    store.cast(range(100, 110))
    assert store.reader.sealed() == []  # the writer died here
    result = store.index.update(["C"])
    assert (result.num_sealed, result.finished) == (2, frozenset({"C"}))
    assert [address.start for address in store.reader.sealed()] == [100, 105]
    assert store.index.update(["C"]).num_sealed == 0


def test_windows_appear_as_the_cast_is_sealed(store: Store) -> None:
    store.cast(range(100, 107), ended=False)
    store.index.update(["C"])
    assert store.reader.sealed() == []
    store.cast(range(107, 112), ended=False)
    store.index.update(["C"])
    assert [address.start for address in store.reader.sealed()] == [100]


def test_a_position_never_goes_back_and_keeps_its_clock(store: Store) -> None:
    assert store.positions.load(READINGS) is None
    store.positions.move(READINGS, 5, LogClock(20, 10), LAST, {"consumed": 5})
    store.positions.move(READINGS, 3, LogClock(8, 7), LAST, {"consumed": 3})
    position = PositionStore(store.client, store.keys).load(READINGS)
    assert position is not None
    assert (position.offset, position.clock, position.counts) == (5, LogClock(20, 10), {"consumed": 5})
    assert store.positions.load_all() == {READINGS: position}


def test_a_position_that_redis_has_lost_is_not_jumped_over(store: Store) -> None:
    store.positions.move(READINGS, 5, LogClock(20, 10), LAST, {})
    store.client.hset(store.keys.position(READINGS), "offset", 2)
    with pytest.raises(FencedError, match="no longer 5"):
        store.positions.move(READINGS, 9, LogClock(30, 20), LAST, {})
    position = store.positions.load(READINGS)
    assert position is not None
    assert position.offset == 2


def test_a_namespace_of_an_older_version_is_refused(store: Store) -> None:
    store.client.hset(store.keys.meta, "data", DATA.model_dump_json())
    with pytest.raises(RefusedError, match="layout 1 of another version"):
        claim_namespace(store.client, store.keys, DATA)


def test_a_namespace_means_the_same_for_good(store: Store) -> None:
    assert read_namespace(store.client, store.keys) is None
    claim_namespace(store.client, store.keys, DATA)
    claim_namespace(store.client, store.keys, DATA)
    assert read_namespace(store.client, store.keys) == DATA
    other = DataConfig(sensors=(SensorConfig(name="speed", unit="m/min"),), period_ms=500, block_steps=16)
    with pytest.raises(RefusedError) as caught:
        claim_namespace(store.client, store.keys, other)
    told = str(caught.value)
    assert "it has speed [], level [], the configuration says speed [m/min]" in told
    assert "period_ms: it has 1000, the configuration says 500" in told
    assert "block_steps" not in told


def test_a_namespace_has_sensors_of_any_name(store: Store) -> None:
    data = DataConfig(sensors=tuple(SensorConfig(name=name) for name in ODD_NAMES))
    claim_namespace(store.client, store.keys, data)
    assert read_namespace(store.client, store.keys) == data
    with pytest.raises(RefusedError, match=r'it has "Volume Flow RateRMS" \[\], '):
        claim_namespace(store.client, store.keys, DATA)


def test_a_window_spec_means_the_same_for_good(store: Store) -> None:
    claim_spec(store.client, store.keys, WINDOWS)
    claim_spec(store.client, store.keys, WINDOWS)
    assert read_spec(store.client, store.keys, WINDOWS.name) == WINDOWS
    with pytest.raises(RefusedError, match=r'"size_steps":5,.*"size_steps":6,.*name of its own'):
        claim_spec(store.client, store.keys, WINDOWS.model_copy(update={"size_steps": 6}))
    claim_spec(store.client, store.keys, WindowsConfig(name="longer", size_steps=6))


@pytest.fixture(scope="module")
def own_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


def test_a_redis_that_would_lose_data_is_refused(own_redis: EmbeddedRedis) -> None:
    client = connect(RedisConfig(url=own_redis.url))
    check_server(client)
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(RefusedError, match=r"allkeys-lru.*set maxmemory-policy noeviction"):
        check_server(client)
    client.config_set("maxmemory-policy", "noeviction")
    client.replicaof("127.0.0.1", 1)
    with pytest.raises(RefusedError, match=r"replica of 127.0.0.1; point redis.url at the primary"):
        check_server(client)
    with pytest.raises(RefusedError, match="replica"):
        claim_namespace(client, Keys("n"), DATA)
    client.replicaof("NO", "ONE")
    client.close()


def test_a_password_that_is_wrong_or_missing_is_a_matter_of_configuration(
    own_redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    right, wrong = (tmp_path_factory.mktemp("s") / name for name in ("right", "wrong"))
    right.write_text("secret\n")
    wrong.write_text("guess\n")
    admin = connect(RedisConfig(url=own_redis.url))
    admin.config_set("requirepass", "secret")
    try:
        for password_file in (None, wrong):
            client = connect(RedisConfig(url=own_redis.url, password_file=password_file))
            with pytest.raises(ConfigError, match="password_file"):
                check_server(client)
            client.close()
        client = connect(RedisConfig(url=own_redis.url, password_file=right))
        check_server(client)
        client.close()
    finally:
        admin.config_set("requirepass", "")
        admin.close()


def test_a_redis_that_is_full_or_gone_is_waited_for(own_redis: EmbeddedRedis) -> None:
    client = connect(RedisConfig(url=own_redis.url))
    store = Store(client, "full")
    client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailableError, match="saving casts failed"):
        store.cast(range(100, 103))
    client.config_set("maxmemory", "0")
    assert store.load().version is None
    store.offset = 0
    store.cast(range(100, 103))
    own_redis.kill()
    with pytest.raises(StoreUnavailableError):
        store.load()
    own_redis.start()
    assert store.load().version == 1
    client.close()


def test_a_redis_that_was_restarted_is_noticed(own_redis: EmbeddedRedis) -> None:
    client = connect(RedisConfig(url=own_redis.url))
    store = Store(client, "restart")
    store.positions.check_server()
    store.positions.check_server()
    own_redis.kill()
    with pytest.raises(StoreUnavailableError):
        store.positions.check_server()
    own_redis.start()
    with pytest.raises(FencedError, match="restarted"):
        store.positions.check_server()
    store.positions.check_server()
    client.close()
