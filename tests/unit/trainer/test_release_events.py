"""What stands in the headers of a model update."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from streamer.config import SensorConfig, WindowsConfig
from trainer.release import DatasetInfo, Manifest
from trainer.release.client.cloudevent import from_record, to_binary
from trainer.release.publish.events import model_update

AT = datetime(2026, 11, 22, tzinfo=UTC)
MANIFEST = Manifest(
    model_name="defect-lstm",
    version=3,
    created_at=AT,
    architecture={},
    sensors=(SensorConfig(name="mold_level", unit="mm"),),
    period_ms=1000,
    window=WindowsConfig(),
    threshold=0.5,
    dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
)


@pytest.mark.parametrize(("rollback", "value"), [(True, b"true"), (False, None)])
def test_only_a_rollback_says_that_it_is_one(rollback: bool, value: bytes | None) -> None:
    event = model_update(MANIFEST, b"model", ce_id="a", at=AT, source="/trainer", rollback=rollback)
    headers, data = to_binary(event)
    assert dict(headers).get("ce_rollback") == value
    assert dict(headers)["ce_modelversion"] == b"3"
    assert from_record(headers, data) == event
