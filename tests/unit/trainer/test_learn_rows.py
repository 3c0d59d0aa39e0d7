"""Parts of a data set are places in its arrays: the same results to the bit as with copies, and no copies."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from small_training import model, same, settings, weights, windows
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.errors import ModelInputError
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model import rows
from trainer.learn.model.normalisation import _deviation

METHODS = ["zscore", "robust", "quantile"]
CPU = torch.device("cpu")


def _arrays(num=1000, steps=30):
    x, mask, y = windows(num, seed=0, steps=steps)
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.nan
    mask[::7, 20:] = False
    return x, mask, y


def _parts(num=1000):
    order_N = np.random.default_rng(2).permutation(num)
    return order_N[: num * 3 // 5], order_N[num * 3 // 5 : num * 4 // 5]


class _Made(TorchDispatchMode):
    """Bytes of the largest tensor that is made on the way and is no view of an array."""

    def __init__(self, *arrays):
        super().__init__()
        self.num_bytes, self._addresses = 0, {array.ctypes.data for array in arrays}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in self._addresses:
            self.num_bytes = max(self.num_bytes, result.nbytes)
        return result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 1_000, rows.VALUES_A_PASS])
def test_what_is_fitted_to_places_is_what_is_fitted_to_a_copy_to_the_bit(monkeypatch, method, size):
    (x, mask, _), (train_N, _) = _arrays(), _parts()
    config = settings(data_processing={"normalisation": method})
    whole, copied = model(config), model(config)
    copied.fit_normalisation(
        torch.from_numpy(x[train_N]), torch.from_numpy(mask[train_N]), config.data_processing
    )

    monkeypatch.setattr(rows, "VALUES_A_PASS", size)
    whole.fit_normalisation(
        torch.from_numpy(x),
        torch.from_numpy(mask),
        config.data_processing,
        index_N=torch.from_numpy(train_N),
    )

    assert same(weights(whole), weights(copied))


@pytest.mark.parametrize("method", METHODS)
def test_a_training_on_places_ends_as_one_on_copies_and_copies_nothing(tmp_path, monkeypatch, method):
    (x, mask, y), parts = _arrays(steps=120), _parts()
    config = settings(
        data_processing={"normalisation": method},
        training={"max_epochs": 2},
        architecture={"stem_stride": 12},
    )
    copies = [WindowLoader(x[n], mask[n], y[n], batch_size=32, shuffle=True, seed=5) for n in parts]
    places = [WindowLoader(x, mask, y, index_N=n, batch_size=32, shuffle=True, seed=5) for n in parts]
    monkeypatch.setattr(rows, "VALUES_A_PASS", 8_000)
    results, trained = [], [model(config), model(config)]

    for number, loaders in enumerate((copies, places)):
        with _Made(
            x, mask, *(each.numpy() for loader in copies for each in (loader.x_NTF, loader.mask_NT))
        ) as made:
            LSTMTrainer(trained[number], config, CPU).train(*loaders, run_dir=tmp_path / str(number))
        results.append((tmp_path / str(number) / "metrics.csv").read_text())
        # A validation part is a fifth of the data, a batch a thirtieth.
        assert made.num_bytes < x.nbytes / 8

    assert results[0] == results[1]
    assert same(*map(weights, trained))


def test_a_fit_holds_one_sensor_in_float64_beside_the_data():
    x, mask, _ = windows(4_000, seed=0, steps=40)
    x = np.tile(x, (1, 1, 5))  # ten sensors: one of them in float64 is a fifth
    mask_NT, network = torch.from_numpy(mask), model(settings())
    network = type(network)(network.config, x.shape[2])
    tracemalloc.start()

    network.fit_normalisation(torch.from_numpy(x), mask_NT)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * x.nbytes


@pytest.mark.parametrize("num", [1, 7, 8, 129, 10_007, 1_000_003])
def test_a_deviation_in_place_is_numpys_to_the_bit(num):
    values = np.random.default_rng(num).normal(1500, 3, num)

    assert _deviation(values.copy(), float(values.mean())) == values.std()


def test_places_without_any_value_are_named_by_their_number():
    x = torch.full((9, 5, 2), torch.nan)
    x[0] = 1.0

    with pytest.raises(ModelInputError, match="no valid value in 3 windows"):
        model(settings()).fit_normalisation(x, index_N=torch.tensor([3, 4, 5]))
