from __future__ import annotations

import pytest

from trainer.learn.engine.distributed import backend_for


@pytest.mark.parametrize(
    ("num_gpus", "num_processes", "backend"), [(0, 1, "gloo"), (1, 1, "nccl"), (1, 2, "gloo"), (2, 2, "nccl")]
)
def test_all_processes_of_a_machine_talk_by_the_same(num_gpus, num_processes, backend):
    assert backend_for(num_gpus, num_processes) == backend
