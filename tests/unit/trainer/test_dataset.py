"""Frozen data sets on a real Redis: the same manifest, the same tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from plants import DATA, READINGS, SPEC, Cast, FloatArray, Plant, casts

from streamer.config import RedisConfig, RetentionConfig, WindowsConfig
from streamer.schema import Label
from streamer.store.reading import WindowReader
from streamer.store.retention import Retention
from streamer.windows import Address
from trainer.data.catalogue import keep, let_go
from trainer.data.dataset import Dataset, DatasetManifest, freeze, load
from trainer.errors import DatasetChangedError, NotEnoughDataError


@pytest.fixture
def plant(redis: RedisConfig) -> Iterator[Plant]:
    plant = Plant(redis)
    yield plant
    plant.close()


def same(one: Dataset, other: Dataset) -> bool:
    arrays = (
        (one.x_NTF, other.x_NTF),
        (one.mask_NT, other.mask_NT),
        (one.y_N, other.y_N),
        (one.end_N, other.end_N),
    )
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in arrays) and (
        (one.manifest, one.casts, one.groups) == (other.manifest, other.casts, other.groups)
    )


def test_the_same_manifest_gives_the_same_tensors_after_a_restart(plant: Plant, redis: RedisConfig) -> None:
    plant.write(casts(range(6)))
    frozen = freeze(plant.reader(), 100)
    text = frozen.manifest.model_dump_json()
    # Meanwhile the plant goes on and inspection thinks otherwise.
    plant.write(casts(range(6, 9)))
    plant.label([Label("C00001", True, inspected_at=9)])
    restarted = Plant(redis)
    again = load(restarted.reader(), DatasetManifest.model_validate_json(text))
    restarted.close()
    assert same(frozen, again)
    assert frozen.x_NTF.shape == (12, SPEC.size_steps, 2)


def test_what_was_cast_comes_out(plant: Plant) -> None:
    made = casts(range(3))
    plant.write(made)
    frozen = freeze(plant.reader(), 100)
    for n, (cast_id, start, length, defective) in enumerate(frozen.manifest.windows):
        cast = next(cast for cast in made if cast.cast_id == cast_id)
        begin = start - cast.start
        np.testing.assert_array_equal(frozen.x_NTF[n], cast.x_TF[begin : begin + length])
        assert (frozen.casts[n], frozen.y_N[n], defective) == (cast_id, cast.defect, cast.defect)
        assert frozen.end_N[n] == start + length
    assert frozen.mask_NT.all()


def test_whole_casts_are_padded_to_the_longest_of_them(redis: RedisConfig) -> None:
    plant = Plant(redis, spec=WindowsConfig(name="whole", size_steps="cast"))
    made = [*casts([0], num_steps=23), *casts([1], num_steps=50), *casts([2], num_steps=31)]
    plant.write(made)
    frozen = freeze(plant.reader(), 100)
    assert frozen.x_NTF.shape == (3, 50, 2)
    for n, cast in enumerate(made):
        length = len(cast.x_TF)
        np.testing.assert_array_equal(frozen.x_NTF[n, :length], cast.x_TF)
        assert np.isnan(frozen.x_NTF[n, length:]).all()
        assert frozen.mask_NT[n].tolist() == [True] * length + [False] * (50 - length)
    assert same(frozen, load(plant.reader(), frozen.manifest))
    plant.close()


def test_the_id_depends_on_what_is_in_it_and_on_nothing_else(plant: Plant) -> None:
    plant.write(casts(range(4)))
    first = freeze(plant.reader(), 100).manifest
    # There and back again: other arrival numbers, the same verdicts in the end, but another revision.
    plant.label([Label("C00001", True, inspected_at=5)])
    changed = freeze(plant.reader(), 100).manifest
    assert changed.arrival > first.arrival
    assert changed.id != first.id
    # The same label from another record: nothing new.
    plant.label([Label("C00001", True, inspected_at=5)])
    plant.write([dataclasses.replace(cast, defect=None) for cast in casts(range(4, 6))])
    assert freeze(plant.reader(), 100).manifest.id == changed.id


def test_the_id_does_not_depend_on_the_order_of_arrival(
    redis: RedisConfig, new_plant: Callable[[str], Plant]
) -> None:
    made = casts(range(4))
    one, other = new_plant("a"), new_plant("b")
    one.write(made)
    for cast in reversed(made):
        other.write([cast])
    a, b = freeze(one.reader(), 100).manifest, freeze(other.reader(), 100).manifest
    assert (a.content_sha256, a.windows, a.casts) == (b.content_sha256, b.windows, b.casts)


@pytest.fixture
def new_plant(redis: RedisConfig) -> Iterator[Callable[[str], Plant]]:
    plants: list[Plant] = []

    def make(suffix: str) -> Plant:
        plants.append(Plant(redis.model_copy(update={"namespace": redis.namespace + suffix})))
        return plants[-1]

    yield make
    for plant in plants:
        plant.close()


@pytest.mark.parametrize("damage", ["evicted", "changed"])
def test_rows_that_are_not_those_that_were_frozen_are_refused(plant: Plant, damage: str) -> None:
    plant.write(casts(range(4)))
    manifest = freeze(plant.reader(), 100).manifest
    key = plant.keys.rows("C00002", (1_000_200) // DATA.block_steps)
    if damage == "evicted":
        assert plant.client.delete(key) == 1
    else:
        plant.client.setrange(key, 8 * (1_000_200 % DATA.block_steps), b"\0\0\0\1")
    with pytest.raises(DatasetChangedError, match=manifest.id):
        load(plant.reader(), manifest)


def test_a_manifest_of_other_windows_is_refused_before_it_is_read(plant: Plant) -> None:
    plant.write(casts(range(4)))
    manifest = freeze(plant.reader(), 100).manifest
    other = SPEC.model_copy(update={"name": "short", "size_steps": 10})
    reader = WindowReader(plant.client, plant.keys, DATA, other)
    with pytest.raises(DatasetChangedError, match=r"from windows default of .* now says short"):
        load(reader, manifest)


def test_the_newest_windows_are_taken(plant: Plant) -> None:
    plant.write(casts(range(6)))
    frozen = freeze(plant.reader(), 5)
    # Two windows a cast: casts 4 and 5, and the later one of cast 3.
    assert [(window[0], window[1] - 1_000_000) for window in frozen.manifest.windows] == [
        ("C00003", 320),
        ("C00004", 400),
        ("C00004", 420),
        ("C00005", 500),
        ("C00005", 520),
    ]
    assert set(frozen.manifest.casts) == {"C00003", "C00004", "C00005"}


def test_the_group_is_what_the_end_of_the_cast_says_else_the_newest_label_else_the_cast(plant: Plant) -> None:
    first, second, third = casts(range(3))
    plant.write([dataclasses.replace(first, group="heat-1"), second, third])
    plant.label(
        [
            Label("C00000", True, inspected_at=2, group="campaign-of-label"),
            Label("C00001", False, inspected_at=5, group="newest"),
            Label("C00001", False, inspected_at=4, group="older"),
            Label("C00001", False, inspected_at=6),
        ]
    )
    frozen = freeze(plant.reader(), 100)
    groups = dict(zip(frozen.casts, frozen.groups, strict=True))
    assert groups == {"C00000": "heat-1", "C00001": "newest", "C00002": "C00002"}


def test_a_short_cast_is_padded_at_its_end_and_masked(plant: Plant) -> None:
    (cast,) = casts([0], num_steps=13)
    plant.write([cast])
    frozen = freeze(plant.reader(), 100)
    assert [window[2] for window in frozen.manifest.windows] == [13]
    np.testing.assert_array_equal(frozen.x_NTF[0, :13], cast.x_TF)
    assert np.isnan(frozen.x_NTF[0, 13:]).all()
    assert frozen.mask_NT[0].tolist() == [True] * 13 + [False] * 7


def test_missing_values_are_one_and_the_same_nan_and_a_step_without_any_is_masked(plant: Plant) -> None:
    (cast,) = casts([0], num_steps=20)
    x_TF: FloatArray = cast.x_TF.copy()
    x_TF[3, 1] = np.nan
    x_TF[5] = np.nan
    plant.write([dataclasses.replace(cast, x_TF=x_TF)])
    # A foreign writer may have left a NaN with other bits.
    row = cast.start + 3
    key = plant.keys.rows("C00000", row // DATA.block_steps)
    plant.client.setrange(key, 8 * (row % DATA.block_steps) + 4, b"\1\0\xc0\xff")
    frozen = freeze(plant.reader(), 100)
    assert np.isnan(frozen.x_NTF[0, 3, 1])
    canonical = np.float32(np.nan).tobytes()
    missing = np.isnan(frozen.x_NTF)
    assert frozen.x_NTF[missing].tobytes() == canonical * int(missing.sum())
    assert not frozen.mask_NT[0, 5]
    assert frozen.mask_NT[0].sum() == 19


def test_a_label_that_comes_while_the_windows_are_listed_is_news_for_the_next_cycle(plant: Plant) -> None:
    plant.write([*casts(range(4)), *unlabelled(4)])

    class Racing(WindowReader):
        def labelled(self) -> list[tuple[Address, bool]]:
            listed = super().labelled()
            plant.label([Label("C00004", True, inspected_at=1)])
            return listed

    frozen = freeze(Racing(plant.client, plant.keys, DATA, SPEC), 100)
    assert "C00004" not in frozen.casts
    assert plant.reader().num_labelled_since(frozen.manifest.arrival) == 2


def unlabelled(number: int) -> list[Cast]:
    return [dataclasses.replace(cast, defect=None) for cast in casts([number])]


def test_without_a_verdict_there_is_nothing_to_freeze(plant: Plant) -> None:
    plant.write(unlabelled(0))
    with pytest.raises(NotEnoughDataError, match="no window is labelled yet"):
        freeze(plant.reader(), 100)


def test_a_manifest_stays_in_redis_once_it_is_kept(plant: Plant) -> None:
    plant.write(casts(range(3)))
    manifest = freeze(plant.reader(), 100).manifest
    assert plant.client.get(plant.keys.dataset(manifest.id)) is None
    keep(plant.reader(), manifest)
    keep(plant.reader(), manifest.model_copy(update={"arrival": 99}))
    kept = plant.client.get(plant.keys.dataset(manifest.id))
    assert DatasetManifest.model_validate_json(kept) == manifest


def retention(plant: Plant, **limits: float) -> Retention:
    return Retention(plant.client, plant.keys, plant.data, RetentionConfig.model_validate(limits))


def test_retention_leaves_a_data_set_alone_until_it_is_let_go(plant: Plant) -> None:
    plant.write(casts(range(6)))
    frozen = freeze(plant.reader(), 6, owner="model")
    keeper = retention(plant, max_age_s=1)
    assert keeper.sweep({READINGS: 2_000_000_000}).num_evicted == 3  # of those that are not in it
    keep(plant.reader(), frozen.manifest, owner="model")
    assert keeper.sweep({READINGS: 2_000_000_000}).num_evicted == 0
    assert same(load(plant.reader(), frozen.manifest), frozen)
    assert let_go(plant.reader(), {frozen.manifest.id}, 0, owner="model") == []
    assert let_go(plant.reader(), (), 1, owner="model") == []
    assert let_go(plant.reader(), (), 0, owner="another") == []
    assert let_go(plant.reader(), (), 0, owner="model") == [frozen.manifest.id]
    assert plant.client.get(plant.keys.dataset(frozen.manifest.id)) is None
    assert keeper.sweep({READINGS: 2_000_000_000}).num_evicted == 3
    with pytest.raises(DatasetChangedError, match="were they evicted"):
        load(plant.reader(), frozen.manifest)


def test_the_newest_data_sets_and_those_of_other_owners_are_kept(plant: Plant) -> None:
    plant.write(casts(range(6)))
    ids = []
    for size in (2, 4, 6, 8):
        manifest = freeze(plant.reader(), size, owner="model").manifest
        keep(plant.reader(), manifest, owner="model")
        ids.append(manifest.id)
    keep(plant.reader(), freeze(plant.reader(), 2, owner="other").manifest, owner="other")
    assert let_go(plant.reader(), {ids[1]}, 2, owner="model") == [ids[0]]
    assert plant.client.get(plant.keys.dataset(ids[0])) is not None  # the other one has the same
    assert list(plant.reader().holds.holders()) == [*(f"model/{each}" for each in ids[1:]), f"other/{ids[0]}"]


def test_a_cast_that_goes_while_it_is_frozen_is_left_out(plant: Plant) -> None:
    plant.write(casts(range(6)))

    class Racing(WindowReader):
        def labelled(self) -> list[tuple[Address, bool]]:
            listed = super().labelled()
            retention(plant, max_casts=4).sweep({READINGS: 1})
            return listed

    frozen = freeze(Racing(plant.client, plant.keys, DATA, SPEC), 100)
    assert set(frozen.casts) == {"C00002", "C00003", "C00004", "C00005"}
    assert frozen.mask_NT.all()
    assert same(load(plant.reader(), frozen.manifest), frozen)
