"""What a demo's children say becomes its table."""

from __future__ import annotations

from typing import Any

import pytest

from demo.child import Event
from demo.story import Story


def decision(version: int, **changes: Any) -> dict[str, Any]:
    details = {"trigger": "new-windows", "windows": 100, "defects": 15, "seconds": 9.5, "epochs": 7}
    return {
        "version": version,
        "parent": version - 1 or None,
        "scores": {"auc_roc": 0.9, "auc_pr": 0.6},
        "reasons": ["because"],
        "details": details,
        **changes,
    }


def test_a_promotion_is_a_cycle_and_a_model() -> None:
    story = Story()
    line = story.take_decision("promoted", decision(1))
    assert line is not None
    assert "version 1 promoted" in line
    assert story.report()["cycles"] == [
        {
            "trigger": "new-windows",
            "windows": 100,
            "seconds": 9.5,
            "epochs": 7,
            "decision": "promoted",
            "reasons": ["because"],
        }
    ]
    assert story.report()["models"] == [
        {"version": 1, "parent": None, "windows": 100, "defects": 15, "auc_roc": 0.9, "auc_pr": 0.6}
    ]


def test_a_refusal_is_a_cycle_and_no_model() -> None:
    story = Story()
    story.take_decision("refused", decision(1))
    assert [cycle["decision"] for cycle in story.report()["cycles"]] == ["refused"]
    assert story.report()["models"] == []


def test_a_trained_event_decides_nothing() -> None:
    story = Story()
    assert story.take_decision("trained", decision(1)) is None
    assert story.report()["cycles"] == []


def test_scored_windows_add_up_by_version_and_a_received_version_that_scored_nothing_does_not_count() -> None:
    story = Story()
    for version, windows in ((1, 5), (1, 7)):
        story.take(Event("subscriber", {"event": "scored", "version": version, "windows": windows}))
    received = {"event": "received", "version": 2, "bytes": 2048, "parent": 1}
    line = story.take(Event("subscriber", received))
    assert line == "subscriber received version 2 (2 KiB) and loaded it"
    assert story.report()["subscriber"] == [{"version": 1, "scored": 12}, {"version": 2, "scored": 0}]
    assert story.num_received() == 1


def test_held_back_casts_are_scored_against_their_verdicts_and_unsealed_ones_left_out() -> None:
    story = Story()
    verdicts = {"a": True, "b": False, "c": True, "d": False, "never sealed": True}
    story.score_holdout(3, {"a": 0.9, "b": 0.2, "c": 0.4, "d": 0.5}, verdicts)
    holdout = story.report()["holdout"]
    # Of the four pairs of a defective and a good cast, three are in order.
    assert holdout == {"version": 3, "casts": 4, "auc_roc": 0.75, "auc_pr": pytest.approx(5 / 6)}


def test_what_other_children_say_is_no_line() -> None:
    assert Story().take(Event("streamer", {"event": "training"})) is None
    assert Story().take(Event("trainer", {"event": "http"})) is None
