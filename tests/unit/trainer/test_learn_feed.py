from __future__ import annotations

import numpy as np
import torch
from small_training import windows

from trainer.learn.engine.feed import feed_of
from trainer.learn.engine.loader import WindowLoader


def test_windows_in_memory_and_a_list_of_their_batches_are_read_alike():
    loader = WindowLoader(*windows(20, seed=0), batch_size=8)
    memory, plain = (feed_of(each, "training") for each in (loader, list(loader)))

    assert (memory.num_good, memory.num_defects) == (plain.num_good, plain.num_defects)
    assert memory.is_exact
    assert plain.is_exact
    assert [len(batch) for batch in plain.batches(1, 1)] == [8, 4]
    for a, b in zip(memory.batches(1, 1), plain.batches(1, 1), strict=True):
        assert torch.equal(a.x_NTF, b.x_NTF)
    a, b = memory.windows(), plain.windows()
    assert torch.equal(a.x_NTF, b.x_NTF)
    assert torch.equal(a.mask_NT, b.mask_NT)
    assert torch.equal(a.y_N, b.y_N)
    assert b.weight_N.tolist() == [1] * 20


def test_shorter_windows_are_filled_up_with_masked_steps():
    (x, y), z = (torch.ones(2, 3, 1), torch.tensor([0, 1])), torch.ones(2, 5, 1)

    part = feed_of([(x, y), (z, y)], "training").windows()

    assert part.x_NTF.isnan().sum(dim=(1, 2)).tolist() == [2, 2, 0, 0]
    assert torch.equal(part.mask_NT, ~part.x_NTF.isnan()[:, :, 0])
    assert part.y_N.tolist() == [0, 1, 0, 1]


def test_windows_of_a_batch_without_weights_count_once_beside_others():
    x, y = torch.ones(2, 3, 1), torch.tensor([0, 1])
    mask, weight = torch.ones(2, 3, dtype=torch.bool), torch.tensor([0.5, 2.0])

    part = feed_of([(x, mask, y), (x, mask, y, weight)], "training").windows()

    assert part.weight_N.tolist() == [1, 1, 0.5, 2]


def test_windows_of_a_part_are_handed_out_where_they_lie():
    x, mask, y = windows(20, seed=0)
    part = feed_of(WindowLoader(x, mask, y, index_N=np.arange(15), batch_size=8), "training").windows()

    assert np.shares_memory(part.x_NTF.numpy(), x)
    assert part.index_N.tolist() == list(range(15))
    assert part.y_N.tolist() == y[:15].tolist()
