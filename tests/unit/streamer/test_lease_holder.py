"""What a lease says about its holder."""

from __future__ import annotations

import json
from dataclasses import replace

from streamer.store.lease import LeaseHolder

HOLDER = LeaseHolder("host", 11, "/registry", "registry-1")


def test_reads_what_it_wrote_with_the_time_that_redis_adds() -> None:
    assert LeaseHolder.from_json(HOLDER.to_json(), 5) == replace(HOLDER, since_ms=5)


def test_what_a_later_version_adds_is_left_out() -> None:
    raw = json.dumps(json.loads(HOLDER.to_json()) | {"started_by": "cron"})
    assert LeaseHolder.from_json(raw, 0) == HOLDER


def test_the_process_is_no_part_of_its_place_and_parts_cannot_run_into_each_other() -> None:
    assert HOLDER.place == replace(HOLDER, pid=12, since_ms=9).place
    assert LeaseHolder("a", 1, "b c", "d").place != LeaseHolder("a b", 1, "c", "d").place
