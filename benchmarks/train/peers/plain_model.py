"""The model and the data that the peers share. Needs torch and NumPy alone.

Shape suffixes: N windows, T steps, F sensors, H hidden, E epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks.train.job import Job

NUM_SENSORS, HIDDEN_SIZE, NUM_LAYERS = 5, 64, 2


class PlainLSTM(nn.Module):
    """Two layers of 64, and a linear layer on their last output or on the mean of all."""

    def __init__(self, readout: Literal["last", "mean"] | None) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_SENSORS, HIDDEN_SIZE, NUM_LAYERS, batch_first=True)
        self.head = nn.Linear(HIDDEN_SIZE, 1)
        self._readout = readout

    def forward(self, x_NTF: Tensor) -> Tensor:
        """Returns logits_N."""
        out_NTH = self.lstm(x_NTF)[0]
        features_NH = out_NTH.mean(dim=1) if self._readout == "mean" else out_NTH[:, -1]
        logits_N1: Tensor = self.head(features_NH)
        return logits_N1.squeeze(-1)


class OrderSampler(Sampler[int]):
    """The given order of each epoch."""

    def __init__(self, order_EN: npt.NDArray[np.int64]) -> None:
        self._order_EN = order_EN
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._order_EN[0])

    def __iter__(self) -> Iterator[int]:
        order_N: list[int] = self._order_EN[self._epoch].tolist()
        self._epoch += 1
        return iter(order_N)


class Data:
    """What a peer trains on: standardised by the training part, missing values at its mean, before any clock.

    Attributes:
        pos_weight: What a defective window counts, a scalar.
        sampler: None: the loader shuffles.
    """

    def __init__(self, job: Job) -> None:
        with np.load(job.data) as arrays:
            self._arrays = dict(arrays)
        mean_F = np.nanmean(self._arrays["x_train"], axis=(0, 1), dtype=np.float64)
        std_F = np.nanstd(self._arrays["x_train"], axis=(0, 1), dtype=np.float64)
        self.train, self.val = (
            TensorDataset(
                self._standardised(part, mean_F, std_F), torch.from_numpy(self._arrays["y_" + part])
            )
            for part in ("train", "val")
        )
        self.pos_weight = torch.from_numpy(self._arrays["pos_weight"])
        self.sampler = OrderSampler(self._arrays["order_EN"]) if "order_EN" in self._arrays else None
        self._job = job

    def _standardised(self, part: str, mean_F: npt.ArrayLike, std_F: npt.ArrayLike) -> Tensor:
        x_NTF = (self._arrays["x_" + part] - mean_F) / std_F
        return torch.from_numpy(np.nan_to_num(x_NTF).astype(np.float32))

    def model(self) -> PlainLSTM:
        """A model, with the first weights of the file if it has some."""
        torch.manual_seed(self._job.seed)
        model = PlainLSTM(self._job.readout)
        self.load_first_weights(model)
        return model

    def load_first_weights(self, model: PlainLSTM) -> None:
        """Does nothing when the file has none."""
        weights = {name: self._arrays.get(name) for name, _ in model.named_parameters()}
        if all(weight is not None for weight in weights.values()):
            model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})

    def loaders(self) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
        """For training and validation."""
        batch_size = self._job.batch_size
        train = DataLoader(self.train, batch_size, shuffle=self.sampler is None, sampler=self.sampler)
        return train, DataLoader(self.val, batch_size)

    @property
    def num_val(self) -> int:
        """Windows of the validation part."""
        assert isinstance(self.val, Sized)
        return len(self.val)
