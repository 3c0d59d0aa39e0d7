"""The stem: how many steps it leaves and where they stand."""

from __future__ import annotations

import pytest
import torch

from trainer.learn.model.stem import ConvStem


@pytest.mark.parametrize(
    ("steps", "stride", "left"), [(300, 5, 60), (7, 3, 3), (2, 8, 1), (1, 2, 1), (6, 3, 2)]
)
def test_each_stride_that_was_begun_is_one_step(steps, stride, left):
    h, mask = ConvStem(3, 4, stride)(torch.randn(2, steps, 3), torch.ones(2, steps, dtype=torch.bool))

    assert h.shape == (2, left, 4)
    assert mask.shape == (2, left)
    assert mask.all()


def test_a_step_is_valid_when_one_of_its_stride_is():
    mask = torch.tensor([[True, False, False, False, False, True, False, False]])

    assert ConvStem(1, 2, 3)(torch.zeros(1, 8, 1), mask)[1].tolist() == [[True, True, False]]


def test_a_step_sees_half_a_stride_on_either_side():
    stem, z = ConvStem(1, 8, 4), torch.randn(1, 20, 1)
    mask = torch.ones(1, 20, dtype=torch.bool)
    seen = []
    for step in range(20):
        changed = z.clone()
        changed[0, step] += 100
        seen.append((stem(changed, mask)[0][0, 2] != stem(z, mask)[0][0, 2]).any().item())

    assert [step for step, moved in enumerate(seen) if moved] == list(range(6, 14))
