from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.engine.loader import WindowLoader


def _arrays(num=10):
    x = np.arange(num, dtype=np.float32)[:, None, None] * np.ones((1, 4, 2), np.float32)
    return x, np.ones((num, 4), bool), (np.arange(num) % 2).astype(np.int8)


def _order(loader):
    return [int(x[0, 0]) for batch, _, _ in loader for x in batch]


def test_batches_cover_every_window_once_and_the_last_may_be_of_one():
    batches = list(loader := WindowLoader(*_arrays(10), batch_size=3))

    assert [len(y) for _, _, y in batches] == [3, 3, 3, 1]

    assert len(loader) == 4
    assert _order(loader) == list(range(10))
    assert [t.dtype for t in batches[0]] == [torch.float32, torch.bool, torch.float32]


def test_labels_and_masks_stay_with_their_windows_when_shuffled():
    x, mask, y = _arrays(50)
    mask[7] = False

    for xb, mb, yb in WindowLoader(x, mask, y, batch_size=8, shuffle=True, seed=3):
        index = xb[:, 0, 0].int()
        assert torch.equal(yb.int(), index % 2)
        assert torch.equal(mb.all(dim=1), index != 7)


def test_the_order_depends_on_seed_and_epoch_alone():
    a, b = (WindowLoader(*_arrays(50), batch_size=8, shuffle=True, seed=3) for _ in range(2))
    a.set_epoch(1)
    first = _order(a)
    a.set_epoch(2)
    second = _order(a)
    b.set_epoch(2)

    assert _order(b) == second != first
    assert sorted(first) == sorted(second) == list(range(50))
    assert _order(WindowLoader(*_arrays(50), batch_size=8, shuffle=True, seed=4)) != second


def test_a_read_only_array_is_taken():
    x, mask, y = _arrays()
    x.flags.writeable = False

    assert len(list(WindowLoader(x, mask, y, batch_size=5))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_NTF": np.zeros((10, 4), np.float32)}, "expected x"),
        ({"mask_NT": np.ones((10, 5), bool)}, "expected x"),
        ({"y_N": np.zeros(9)}, "expected x"),
        ({"x_NTF": np.zeros((10, 4, 2))}, "expected float32 values"),
        ({"mask_NT": np.ones((10, 4))}, "expected float32 values and a bool mask"),
        ({"y_N": np.full(10, np.nan)}, "labels must be 0"),
        ({"y_N": np.full(10, 2)}, "labels must be 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    x, mask, y = _arrays()

    with pytest.raises(ModelInputError, match=message):
        WindowLoader(**{"x_NTF": x, "mask_NT": mask, "y_N": y, "batch_size": 4} | change)


def test_no_window_is_not_enough_data():
    x, mask, y = _arrays(0)

    with pytest.raises(NotEnoughDataError, match="no window"):
        WindowLoader(x, mask, y, batch_size=4)


def test_parts_of_a_split_share_the_arrays_and_read_as_copies_do():
    x, mask, y = _arrays(50)
    part_N, weight = np.array([41, 3, 5, 22, 8, 17, 30]), np.linspace(0, 1, 7)

    options = {"batch_size": 3, "shuffle": True, "seed": 4, "weight_N": weight}
    shared = WindowLoader(x, mask, y, index_N=part_N, **options)
    copied = WindowLoader(x[part_N], mask[part_N], y[part_N], **options)

    assert np.shares_memory(shared.x_NTF.numpy(), x)
    assert np.shares_memory(shared.mask_NT.numpy(), mask)
    assert len(shared) == 3
    for epoch in (0, 1):
        shared.set_epoch(epoch)
        copied.set_epoch(epoch)
        for one, other in zip(shared, copied, strict=True):
            assert all(map(torch.equal, one, other))


def test_on_a_device_of_its_own_lies_its_part_alone():
    loader = WindowLoader(*_arrays(50), index_N=np.array([41, 3, 5]), batch_size=2)

    loader.to(torch.device("cpu"))
    assert len(loader.x_NTF) == 50
    loader.to(torch.device("meta"))

    assert (loader.x_NTF.shape, loader.mask_NT.shape, loader.y_N.shape) == ((3, 4, 2), (3, 4), (3,))
    assert loader.index_N is None
    assert len(loader) == 2


@pytest.mark.parametrize(
    "places", [np.array([[1]]), np.array([0.5]), np.array([-1]), np.array([10]), np.ones(10, bool)]
)
def test_places_that_are_none_are_refused(places):
    with pytest.raises(ModelInputError, match="places"):
        WindowLoader(*_arrays(10), index_N=places, batch_size=4)


def test_no_place_is_not_enough_data():
    with pytest.raises(NotEnoughDataError, match="no window"):
        WindowLoader(*_arrays(10), index_N=np.empty(0, np.int64), batch_size=4)
