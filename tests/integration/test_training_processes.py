"""Training as processes that are killed, asked to stop, or share the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import same

ROOT = Path(__file__).parents[2]


def _run(folder, *arguments, processes=1):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launcher += [] if processes == 1 else ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    return subprocess.run(
        [sys.executable, *launcher, "tests/train_small.py", str(folder), *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def _outcome(folder):
    weights = torch.load(folder / "weights.pt", weights_only=True)
    return weights, (folder / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = _run(folder)
    assert done.returncode == 0, done.stderr
    return _outcome(folder)


@pytest.mark.parametrize(("step", "signal", "code"), [(7, "KILL", -9), (13, "TERM", 143)])
def test_a_process_that_is_ended_and_started_again_ends_with_the_same_bits(
    tmp_path, whole, step, signal, code
):
    ended = _run(tmp_path, str(step), signal)
    assert ended.returncode == code, ended.stderr
    again = _run(tmp_path)

    assert again.returncode == 0, again.stderr
    weights, metrics = _outcome(tmp_path)
    assert same(weights, whole[0])
    assert metrics == whole[1]


def test_two_processes_end_with_the_bits_of_one(tmp_path, whole):
    done = _run(tmp_path, processes=2)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("max_epochs ()") == 2
    weights, metrics = _outcome(tmp_path)
    assert same(weights, whole[0])
    assert metrics == whole[1]


def test_two_processes_that_do_not_begin_alike_are_told(tmp_path):
    assert _run(tmp_path / "0", "7", "KILL").returncode == -9

    done = _run(tmp_path / "RANK", processes=2)

    assert done.returncode != 0
    assert "the processes of the group do not begin alike" in done.stderr


def test_two_processes_go_on_where_one_was_killed(tmp_path, whole):
    assert _run(tmp_path, "7", "KILL").returncode == -9

    done = _run(tmp_path, processes=2)

    assert done.returncode == 0, done.stderr
    assert same(_outcome(tmp_path)[0], whole[0])
