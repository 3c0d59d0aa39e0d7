"""A Redis that comes back at once without its last writes, wherever that falls: each record counts once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from power_cuts import power_cut, sizes
from streamer_harness import Member, Plant, contents, make_settings, member, ms

from streamer.config import DataConfig, KafkaConfig, RedisConfig, SensorConfig, StreamerSettings
from streamer.embedded import EmbeddedRedis
from streamer.errors import FencedError
from streamer.ledger import read_ledger
from streamer.records import Partition
from streamer.schema import Label
from streamer.service import StreamerService
from streamer.store.casts import CastStore, decode_labels
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.positions import PositionStore

LABELS = Partition("labels", 0)
DATA = DataConfig(sensors=(SensorConfig(name="speed"),))


@pytest.fixture
def settings(kafka: KafkaConfig, server: EmbeddedRedis, unique: str) -> StreamerSettings:
    return make_settings(kafka, RedisConfig(url=server.url, namespace="n", timeout_s=1), unique)


class Interrupted(StreamerService):
    """A member to which something happens between two of its steps, once."""

    before_labels: Callable[[], None] | None = None
    before_positions: Callable[[], None] | None = None

    def _write_labels(self, batches: Any, labels: Any, result: Any) -> None:
        self._happen("before_labels", bool(labels))
        super()._write_labels(batches, labels, result)

    def _move_positions(self, batches: Any, result: Any) -> None:
        self._happen("before_positions", bool(batches))
        super()._move_positions(batches, result)

    def _happen(self, when: str, is_due: bool) -> None:
        if is_due and (what := getattr(self, when)):
            setattr(self, when, None)
            what()


@pytest.fixture
def one(settings: StreamerSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Member]:
    monkeypatch.setattr(Member, "service_class", Interrupted)
    with member(settings) as one:
        one.run_until(one.assigned)
        one.client.config_set("appendfsync", "always")  # so that the size of its file says what it holds
        one.service._check_at = float("inf")  # nobody asks meanwhile whether Redis was restarted
        yield one


def expect_whole(one: Member, cast_id: str, num_labels: int) -> None:
    held = contents(one.client, one.settings)["casts"][f"{{{cast_id}}}"]
    assert len(held["labels"]) == num_labels
    ledger = read_ledger(one.settings, patience_s=3)
    assert ledger.is_calm
    assert ledger.faults == ()


@pytest.mark.parametrize("when", ["between two batches", "in the middle of a batch"])
def test_labels_that_were_lost_are_read_again_though_others_follow_at_once(
    one: Member, server: EmbeddedRedis, when: str
) -> None:
    plant = Plant(one.settings)
    plant.feed([plant.label("Z", False, 1)])
    one.consume(1)
    kept = sizes(server)
    plant.feed([plant.label("Z", True, 2, from_ts=ms(0), to_ts=ms(5))])
    one.consume(2)
    if when == "between two batches":
        power_cut(server, kept)
    else:
        one.service.before_labels = lambda: power_cut(server, kept)  # type: ignore[attr-defined]
    plant.feed([plant.label("Z", False, 3, from_ts=ms(8), to_ts=ms(9))])
    one.consume(3)
    expect_whole(one, "Z", 3)


def test_a_batch_that_is_lost_before_its_position_moves_is_read_again(
    one: Member, server: EmbeddedRedis
) -> None:
    plant = Plant(one.settings)
    plant.feed([plant.reading("Z", 0), plant.label("Z", False, 1)])
    one.consume(2)
    kept = sizes(server)  # with the position of the batch before
    one.service.before_positions = lambda: power_cut(server, kept)  # type: ignore[attr-defined]
    plant.feed([plant.reading("Z", 1), plant.label("Z", True, 2)])
    one.consume(4)
    plant.feed([plant.reading("Z", 2)])
    one.consume(5)
    expect_whole(one, "Z", 2)
    assert contents(one.client, one.settings)["casts"]["{Z}"]["steps:placed"] == b"3"


def test_a_restart_that_nobody_saw_fences_the_next_command_of_who_has_loaded(server: EmbeddedRedis) -> None:
    client = connect(RedisConfig(url=server.url))
    casts, positions = CastStore(client, Keys("n"), DATA), PositionStore(client, Keys("n"))

    def restart_and_write(at: int) -> None:
        server.kill()
        server.start()
        casts.add_labels([(LABELS, at, Label("C", True, at))])

    casts.add_labels([(LABELS, 0, Label("C", True, 0))])
    restart_and_write(1)  # nothing was loaded before
    positions.load(LABELS)
    for _ in range(2):
        with pytest.raises(FencedError, match="restarted, seen while loading casts of labels"):
            restart_and_write(2)
    casts.add_labels([(LABELS, 2, Label("C", True, 2))])  # the error comes once
    server.kill()
    server.start()
    with pytest.raises(FencedError, match="seen while asking for its run id"):
        positions.load(Partition("labels", 1))
    client.close()


class TestLabel:
    """The script and its writer, on a state that goes back under them."""

    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[Client]:
        client = connect(RedisConfig(url=redis_url))
        yield client
        client.close()

    def test_it_is_written_only_behind_those_before_it(
        self, client: Client, unique: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = Keys(f"t{unique}")
        casts = CastStore(client, keys, DATA)
        casts.add_labels([(LABELS, 3, Label("C", False, 1))])
        before, fields = client.dump(keys.cast("C")), client.hgetall(keys.cast("C"))
        casts.add_labels([(LABELS, 5, Label("C", True, 2))])
        load = CastStore._load_applied

        def load_then_lose(self: CastStore, *args: Any) -> Any:
            applied = load(self, *args)
            assert isinstance(before, bytes)
            client.restore(keys.cast("C"), 0, before, replace=True)
            return applied

        monkeypatch.setattr(CastStore, "_load_applied", load_then_lose)
        with pytest.raises(FencedError, match="of casts C"):
            casts.add_labels([(LABELS, 8, Label("C", None, 3)), (LABELS, 9, Label("C", None, 4))])
        assert client.hgetall(keys.cast("C")) == fields

    def test_it_is_not_written_when_the_position_is_another(self, client: Client, unique: str) -> None:
        keys = Keys(f"t{unique}")
        casts = CastStore(client, keys, DATA)
        label = (LABELS, 3, Label("C", False, 1))
        with pytest.raises(FencedError, match="labels/0 is no longer 3"):
            casts.add_labels([label], {LABELS: 3})
        client.hset(keys.position(LABELS), "offset", 2)
        for known in (3, -1):
            with pytest.raises(FencedError, match="no label was written"):
                casts.add_labels([label], {LABELS: known})
        assert not client.exists(keys.cast("C"))
        casts.add_labels([label], {LABELS: 2})
        assert client.hget(keys.cast("C"), "num_labels") == b"1"

    def test_a_full_list_takes_no_other_label_and_says_so_each_time(
        self, client: Client, unique: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("streamer.store.casts.MAX_LABELS", 2)
        keys = Keys(f"t{unique}")
        casts = CastStore(client, keys, DATA)
        said = [Label("C", True, at) for at in (1, 2, 3, 1, 4)]
        labels = [(LABELS, offset, label) for offset, label in enumerate(said)]
        refused = [(LABELS, 2), (LABELS, 4)]
        assert casts.add_labels(labels[:2]) == []
        assert casts.add_labels(labels[1:]) == refused
        held = client.hgetall(keys.cast("C"))
        assert (held[b"label:labels/0"], held[b"num_labels"]) == (b"3", b"2")
        assert casts.add_labels(labels) == refused  # read again
        assert client.hgetall(keys.cast("C")) == held

    def test_torn_anywhere_it_is_written_whole_or_not_at_all(self, server: EmbeddedRedis) -> None:
        keys = Keys("n")
        client = connect(RedisConfig(url=server.url))
        client.config_set("appendfsync", "always")
        casts = CastStore(client, keys, DATA)
        casts.add_labels([(LABELS, 0, Label("C", False, 1))])
        (begin,) = sizes(server).values()
        casts.add_labels([(LABELS, 1, Label("C", True, 2))])
        (file,) = sizes(server)
        whole = file.read_bytes()
        for cut in [*range(begin, len(whole), 40), len(whole) - 5]:
            server.kill()
            file.write_bytes(whole[:cut])
            for _ in range(2):  # what was torn off may be carried out at the start after the next
                server.start()
                client.pipeline(transaction=True).set("other", 1).set("another", 1).execute()
                server.kill()
            server.start()
            held = client.hmget(keys.cast("C"), "applied:labels/0", "label:labels/0", "num_labels", "labels")
            num = len(decode_labels("C", held[3]))
            assert held[:3] == [b"%d" % num] * 3, cut
        client.close()


def test_a_label_too_many_is_a_dead_letter(one: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.store.casts.MAX_LABELS", 2)
    plant = Plant(one.settings)
    plant.feed([plant.label("Z", False, at) for at in range(4)])
    one.consume(4)
    expect_whole(one, "Z", 2)
    sample = one.metrics.registry.get_sample_value
    assert sample("casting_streamer_dead_letters_total", {"reason": "too_many_labels"}) == 2
    assert sample("casting_streamer_records_total", {"kind": "label"}) == 2
