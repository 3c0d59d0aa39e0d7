"""Members killed between every two steps of their work, connections cut, a Redis that forgets: nothing shows.

The whole run is `python -m benchmarks.chaos_ingest --kills 50`.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import reference
from benchmarks.chaos_ingest.broken import VARIANTS
from benchmarks.chaos_ingest.cluster import Cluster
from benchmarks.chaos_ingest.generator import plant
from benchmarks.chaos_ingest.log import READINGS
from benchmarks.chaos_ingest.run import Size, Trouble, broken_variant, chaos

ROOT = Path(__file__).parents[2]
SHORT = Size(
    num_casts=48,
    num_partitions=2,
    num_members=2,
    kills=6,
    trouble=Trouble(broker_cuts=(1,), power_cuts=(2,)),
    assignment="cooperative-sticky",
)


def test_kills_cuts_and_a_redis_that_forgets_leave_what_a_calm_run_leaves() -> None:
    result = chaos(SHORT, print)
    assert result["differences"] == {}
    assert result["hash_equal"], result["hashes"]
    assert result["ledger_faults"] == {}
    assert result["ledger_balanced"]
    assert result["kills"] == SHORT.kills
    assert result["kills_by_point"].keys() >= {"write-commit", "seal-index", "letter-commit"}
    assert result["least_lag"] > 0
    assert result["troubles_done"]
    assert result["broker_connections_cut"] > 0
    assert result["redis_records_cut"] > 0


# The others take as long each: the whole run has them all.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "no_applied_check" else pytest.mark.slow) for name in VARIANTS],
)
def test_a_streamer_without_one_of_its_guards_is_noticed(name: str) -> None:
    with Cluster() as cluster:
        assert broken_variant(name, cluster) is not None


@pytest.mark.parametrize("seed", range(3))
def test_the_reference_finds_what_was_planted(seed: int) -> None:
    plan = plant(seed=seed, num_casts=60, num_partitions=3)
    found = reference.expected(plan.log)
    assert found.records == plan.records
    assert {source: steps for source, steps in found.steps.items() if steps} == plan.steps


def test_the_plan_holds_the_share_of_troubles_that_it_promises() -> None:
    plan = plant(seed=1, num_casts=200, num_partitions=4)
    readings = sum(
        (terms for source, terms in plan.records.items() if source[0] == READINGS), start=Counter()
    )
    assert readings["duplicate"] >= 0.05 * readings["consumed"]
    assert readings["dead_lettered"] >= 0.05 * readings["consumed"]


def test_the_reference_is_short_and_shares_nothing_with_the_product() -> None:
    assert len(Path(reference.__file__).read_text().splitlines()) < 100
    code = (
        "import sys, benchmarks.reference; print(sorted(m for m in sys.modules if m.startswith('streamer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
