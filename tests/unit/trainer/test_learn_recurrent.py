"""The layers against torch.nn.LSTM with as many layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trainer.learn.model.dropout import SeededDropout
from trainer.learn.model.recurrent import build_layers, last_valid, run_layers, turned_rows

C, H = 4, 6
LENGTHS = [9, 1, 5, 8]


def _mask(lengths=LENGTHS, steps=9):
    return torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)


def _stock(layers, num_layers, bidirectional):
    stock = torch.nn.LSTM(C, H, num_layers, bidirectional=bidirectional, batch_first=True)
    for index, layer in enumerate(layers):
        parts = [(layer.forwards, ""), (layer.backwards, "_reverse")] if bidirectional else [(layer, "")]
        for part, suffix in parts:
            for name, value in part.named_parameters():
                own = name.replace("_l0", f"_l{index}{suffix}")
                stock.get_parameter(own).data.copy_(value.data)
    return stock


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_valid_steps_read_as_from_one_lstm_that_was_given_packed_windows(num_layers, bidirectional):
    torch.manual_seed(0)
    layers = build_layers(C, H, num_layers, bidirectional=bidirectional)
    x, mask = torch.randn(4, 9, C), _mask()
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(_stock(layers, num_layers, bidirectional)(packed)[0], batch_first=True)[0]

    out = run_layers(layers, SeededDropout(0.5).eval(), x, mask)

    assert out.shape == (4, 9, H * (2 if bidirectional else 1))
    torch.testing.assert_close(out[mask], expected[mask])


def test_dropout_stands_between_the_layers_only():
    x, mask = torch.randn(2, 9, C), _mask([9, 9])
    for num_layers, moves in ((1, False), (2, True)):
        layers = build_layers(C, H, num_layers, bidirectional=False)
        plain = run_layers(layers, SeededDropout(0.5).eval(), x, mask)
        dropped = run_layers(layers, SeededDropout(0.5).train(), x, mask)
        assert torch.equal(plain, dropped) is not moves


def test_the_last_valid_step_is_found_behind_gaps_and_is_0_without_any():
    mask = torch.tensor([[True, False, True, False], [False, False, False, False], [True] * 4])

    assert last_valid(mask).tolist() == [2, 0, 3]


def test_windows_are_turned_round_at_their_last_valid_step_and_turning_twice_is_nothing():
    rows = turned_rows(_mask([3, 1, 4], steps=4))

    assert rows.view(3, 4).tolist() == [[2, 1, 0, 3], [4, 5, 6, 7], [11, 10, 9, 8]]
    assert rows[rows].tolist() == list(range(12))
