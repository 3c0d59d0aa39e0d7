from __future__ import annotations

import pytest
import torch

from trainer.errors import ModelInputError
from trainer.learn.engine.batch import Batch

X, MASK, Y, WEIGHT = torch.zeros(3, 4, 2), torch.ones(3, 4, dtype=torch.bool), torch.ones(3), torch.ones(3)


@pytest.mark.parametrize("item", [(X, Y), [X, MASK, Y], (X, MASK, Y.int(), WEIGHT.double())])
def test_what_a_loader_hands_out_is_read(item):
    batch = Batch.of(item)

    assert (len(batch), batch.y_N.dtype) == (3, torch.float32)
    assert (batch.mask_NT is None) == (len(item) == 2)
    assert batch.weight_N is None or batch.weight_N.dtype == torch.float32


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (X, "got Tensor$"),
        ((X,), "got tuple of 1$"),
        ((X.numpy(), Y), "hands out tensors, got"),
        ((X[0], Y), r"expected x \[N, T, F\] and y \[N\]"),
        ((X[:0], Y[:0]), "a batch without a window"),
        ((X.double(), Y), "expected float32 values, got torch.float64"),
        ((X, MASK[:, 1:], Y), r"expected a bool mask \[3, 4\]"),
        ((X, MASK, Y + 1), "labels must be 0"),
        ((X, MASK, Y, WEIGHT[1:]), r"expected a weight a window, got \[2\] for 3"),
        ((X, MASK, Y, -WEIGHT), "weights must be finite and not negative"),
    ],
)
def test_what_does_not_fit_is_refused(item, message):
    with pytest.raises(ModelInputError, match=message):
        Batch.of(item)
