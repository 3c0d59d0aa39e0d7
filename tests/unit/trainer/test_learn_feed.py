from __future__ import annotations

import torch
from small_training import windows

from trainer.learn.feed import feed_of
from trainer.learn.loader import WindowLoader


def test_windows_in_memory_and_a_list_of_their_batches_are_read_alike():
    loader = WindowLoader(*windows(20, seed=0), batch_size=8)
    memory, plain = (feed_of(each, "training") for each in (loader, list(loader)))

    assert (memory.num_good, memory.num_defects) == (plain.num_good, plain.num_defects)
    assert memory.is_exact
    assert plain.is_exact
    assert [len(batch) for batch in plain.batches(1, 1)] == [8, 4]
    for a, b in zip(memory.batches(1, 1), plain.batches(1, 1), strict=True):
        assert torch.equal(a.x_NTF, b.x_NTF)
    for a, b in zip(memory.windows(), plain.windows(), strict=True):
        assert torch.equal(a, b)


def test_shorter_windows_are_filled_up_with_masked_steps():
    (x, y), z = (torch.ones(2, 3, 1), torch.tensor([0, 1])), torch.ones(2, 5, 1)

    x_NTF, mask_NT = feed_of([(x, y), (z, y)], "training").windows()

    assert x_NTF.isnan().sum(dim=(1, 2)).tolist() == [2, 2, 0, 0]
    assert torch.equal(mask_NT, ~x_NTF.isnan()[:, :, 0])
