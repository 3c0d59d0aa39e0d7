"""What each readout makes of known outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.learn.model.readout import Attention, read_out, readout_size, uses_attention

READOUTS = ["last", "mean", "max", "mean_max", "attention", "mean_max_attention"]
OUT = torch.tensor([[[0.1, -0.5], [0.4, -0.2], [0.9, 0.9]], [[-0.3, 0.2], [0.9, 0.9], [-0.7, 0.6]]])
MASK = torch.tensor([[True, True, False], [True, False, True]])


def _attention():
    torch.manual_seed(0)
    return Attention(2)


def test_last_mean_and_max_look_at_valid_steps_only():
    def read(readout, num_backwards=0):
        return read_out(readout, OUT, MASK, None, num_backwards)

    torch.testing.assert_close(read("last"), torch.tensor([[0.4, -0.2], [-0.7, 0.6]]))
    torch.testing.assert_close(read("mean"), torch.tensor([[0.25, -0.35], [-0.5, 0.4]]))
    torch.testing.assert_close(read("max"), torch.tensor([[0.4, -0.2], [-0.3, 0.6]]))
    torch.testing.assert_close(read("mean_max"), torch.cat([read("mean"), read("max")], dim=1))
    torch.testing.assert_close(read("last", num_backwards=1), torch.tensor([[0.4, -0.5], [-0.7, 0.2]]))


def test_attention_is_the_mean_under_its_weights():
    attention = _attention()

    weights = attention(OUT, MASK)

    expected = np.einsum("nk,nkh->nh", weights.detach().numpy(), OUT.numpy())
    pooled = read_out("attention", OUT, MASK, attention, 0)
    np.testing.assert_allclose(pooled.detach().numpy(), expected, rtol=1e-5)
    assert weights[~MASK].tolist() == [0.0, 0.0]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("readout", READOUTS)
def test_the_size_is_as_told_and_a_window_without_a_valid_step_is_finite(readout):
    attention = _attention() if uses_attention(readout) else None

    features = read_out(readout, OUT, torch.zeros(2, 3, dtype=torch.bool), attention, 0)

    assert features.shape == (2, readout_size(readout, 2))
    assert torch.isfinite(features).all()


def test_half_precision_masks_as_well():
    attention = _attention().to(torch.float16)

    weights = attention(OUT.half(), MASK)

    assert weights[~MASK].tolist() == [0.0, 0.0]
    torch.testing.assert_close(weights.sum(dim=1).float(), torch.ones(2), rtol=0, atol=1e-3)
