"""What the trainer reads of a namespace, on a real Redis."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from plants import DATA, SPEC, Plant, casts

from streamer.config import RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.errors import StoreUnavailableError
from streamer.schema import Label
from streamer.store import rows
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.reading import WindowReader
from streamer.store.rows import RowStore
from streamer.store.summary import summarise
from streamer.windows import Address

CHANGED = Label("C00001", True, inspected_at=3)


@pytest.fixture
def plant(redis: RedisConfig) -> Iterator[Plant]:
    plant = Plant(redis)
    yield plant
    plant.close()


def test_news_are_the_windows_whose_verdict_came_or_changed_since(plant: Plant) -> None:
    reader = plant.reader()
    assert (reader.last_arrival(), reader.num_labelled_since(0)) == (0, 0)
    plant.write(casts(range(3)))
    seen = reader.last_arrival()
    assert reader.num_labelled_since(0) == 6
    assert reader.num_labelled_since(seen) == 0
    plant.label([CHANGED])
    assert reader.num_labelled_since(seen) == 2
    seen = reader.last_arrival()
    plant.label([CHANGED, Label("C00001", True, inspected_at=4)])
    assert reader.num_labelled_since(seen) == 0


def test_a_withdrawn_verdict_takes_the_windows_off_the_list(plant: Plant) -> None:
    plant.write(casts(range(2)))
    assert [(str(window), defective) for window, defective in plant.reader().labelled()] == [
        ("C00000/1000000/20", True),
        ("C00000/1000020/20", True),
        ("C00001/1000100/20", False),
        ("C00001/1000120/20", False),
    ]
    plant.label([Label("C00000", None, inspected_at=2)])
    assert {window.cast_id for window, _ in plant.reader().labelled()} == {"C00001"}
    assert len(plant.reader().sealed()) == 4


def test_the_label_revision_changes_with_every_verdict_and_not_with_a_repetition(plant: Plant) -> None:
    plant.write(casts(range(2)))
    before = plant.reader().casts(["C00001"])["C00001"]
    plant.label([CHANGED])
    after = plant.reader().casts(["C00001"])["C00001"]
    plant.label([CHANGED])
    assert before.label_revision != after.label_revision
    assert plant.reader().casts(["C00001"])["C00001"] == after


def test_rows_are_read_across_blocks_and_over_their_edges(plant: Plant) -> None:
    (cast,) = casts([0], num_steps=70)
    plant.write([cast])
    store = RowStore(plant.client, plant.keys, DATA)
    spans = [(0, 70), (15, 1), (16, 16), (3, 40), (60, 20)]
    for (begin, length), x_TF in zip(
        spans, store.read([Address("C00000", cast.start + b, n) for b, n in spans]), strict=True
    ):
        inside = cast.x_TF[begin : begin + length]
        np.testing.assert_array_equal(x_TF[: len(inside)], inside)
        assert np.isnan(x_TF[len(inside) :]).all()
        assert x_TF.shape == (length, 2)


def test_of_a_cast_that_redis_does_not_hold_there_is_nothing(plant: Plant) -> None:
    (x_TF,) = plant.reader().rows([Address("C9", 5, 20)])
    assert np.isnan(x_TF).all()
    assert plant.reader().rows([]) == []


def test_a_namespace_is_counted_afresh(plant: Plant) -> None:
    made = casts(range(5))
    plant.write([*made[:4], dataclasses.replace(made[4], defect=None)])
    counted = summarise(plant.client, plant.keys, SPEC.name)
    assert (counted.casts, counted.readings, counted.sealed_windows) == (5, 200, 10)
    assert (counted.defective_windows, counted.good_windows, counted.labelled_windows) == (4, 4, 8)
    empty = summarise(plant.client, Keys(plant.keys.namespace + "-empty"), SPEC.name)
    assert (empty.casts, empty.readings, empty.labelled_windows) == (0, 0, 0)


def test_a_dead_redis_is_a_retriable_error_that_says_what_was_read() -> None:
    client = connect(RedisConfig(url="redis://127.0.0.1:1/0", timeout_s=1))
    reader = WindowReader(client, Keys("n"), DATA, SPEC)
    with pytest.raises(StoreUnavailableError, match="listing labelled windows") as caught:
        reader.labelled()
    assert caught.value.retriable
    client.close()


def test_windows_that_lie_apart_overlap_and_come_in_any_order_are_read_alike_in_batches_of_any_size(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = casts(range(3), num_steps=70)
    plant.write(made)
    asked = [Address(cast.cast_id, cast.start + b, 25) for b in (40, 0, 3, 44) for cast in made]
    store = RowStore(plant.client, plant.keys, DATA)
    for num_blocks in (1, 2, 5, 512):
        monkeypatch.setattr(rows, "BATCH_BLOCKS", num_blocks)
        for address, x_TF in zip(asked, store.each(asked), strict=True):
            cast = made[int(address.cast_id[1:])]
            begin = address.start - cast.start
            np.testing.assert_array_equal(x_TF, cast.x_TF[begin : begin + 25])


def test_what_overlapping_windows_share_is_read_once(server: EmbeddedRedis) -> None:
    plant = Plant(RedisConfig(url=server.url))
    (cast,) = casts([0], num_steps=70)
    plant.write([cast])
    store = RowStore(plant.client, plant.keys, DATA)
    plant.client.config_resetstat()
    read = store.read([Address(cast.cast_id, cast.start + begin, 20) for begin in range(50)])
    calls = plant.client.info("commandstats")["cmdstat_getrange"]["calls"]
    assert len(read) == 50
    plant.close()
    assert calls == len({(cast.start + step) // DATA.block_steps for step in range(70)})
