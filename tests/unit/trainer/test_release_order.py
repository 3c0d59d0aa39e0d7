"""The order of updates: never back by itself, never to other inputs."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from streamer.config import SensorConfig, WindowsConfig
from trainer.release.client.artifact import DatasetInfo, Manifest
from trainer.release.client.inputs import ModelInputs
from trainer.release.client.order import REMEMBERED_IDS, UpdateOrder


def manifest(version: int, name: str = "defect-lstm", period_ms: int = 1000) -> Manifest:
    return Manifest(
        model_name=name,
        version=version,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture={},
        sensors=(SensorConfig(name="mold_level", unit="mm"),),
        period_ms=period_ms,
        window=WindowsConfig(),
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )


def reason(order: UpdateOrder, update: Manifest, ce_id: str, *, is_rollback: bool = False) -> str | None:
    refusal = order.judge(update, ce_id, is_rollback=is_rollback)
    return refusal and refusal[0]


def test_a_version_that_is_not_newer_is_older_unless_it_is_a_rollback() -> None:
    order = UpdateOrder()
    assert reason(order, manifest(3), "a") is None
    assert reason(order, manifest(2), "b") == "older"
    assert reason(order, manifest(3), "c") == "older"
    assert reason(order, manifest(1, "other"), "d") is None
    assert reason(order, manifest(1), "e", is_rollback=True) is None
    # From there on it goes up again, to a version that had been left.
    assert reason(order, manifest(1), "f") == "older"
    assert reason(order, manifest(3), "g") is None


def test_an_id_is_known_once_it_was_judged_also_if_it_was_refused() -> None:
    order = UpdateOrder()
    order.judge(manifest(3), "a", is_rollback=False)
    order.judge(manifest(2), "b", is_rollback=False)
    assert [order.has_seen(ce_id) for ce_id in "abc"] == [True, True, False]
    for number in range(REMEMBERED_IDS):
        order.judge(manifest(1), str(number), is_rollback=False)
    assert not order.has_seen("a")


def test_what_the_first_model_in_use_wants_binds_those_of_its_name() -> None:
    order = UpdateOrder()
    # Not in use yet: a newer one may want something else.
    assert reason(order, manifest(1, period_ms=10), "a") is None
    assert reason(order, manifest(2), "b") is None
    order.hand_out(manifest(2))
    assert reason(order, manifest(3, period_ms=10), "c") == "other_inputs"
    assert reason(order, manifest(1, period_ms=10), "d", is_rollback=True) == "other_inputs"
    assert reason(order, manifest(1, "other", period_ms=10), "e") is None
    # What was refused is not what the next one is held against.
    assert reason(order, manifest(3), "f") is None


def test_inputs_that_are_given_bind_every_model() -> None:
    order = UpdateOrder(manifest(1).inputs)
    assert reason(order, manifest(1, period_ms=10), "a") == "other_inputs"
    assert reason(order, manifest(1, "other", period_ms=10), "b") == "other_inputs"
    refusal = UpdateOrder(ModelInputs((), 1000, 300)).judge(manifest(1), "c", is_rollback=False)
    assert refusal == (
        "other_inputs",
        "it wants other inputs: sensors: none here, mold_level mm there; the old model is kept",
    )


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=20))
def test_in_use_is_the_highest_version_since_the_last_rollback(log: list[tuple[int, bool]]) -> None:
    order = UpdateOrder()
    taken = [
        version
        for number, (version, is_rollback) in enumerate(log)
        if reason(order, manifest(version), str(number), is_rollback=is_rollback) is None
    ]
    last_rollback = max((number for number, (_, is_rollback) in enumerate(log) if is_rollback), default=0)
    assert taken[-1] == max(version for version, _ in log[last_rollback:])
