"""Names under which a model update is told on Kafka."""

from __future__ import annotations

MODEL_UPDATED = "io.castloop.model.updated"
MODEL_VERSION = "modelversion"
# An older version that is to be used again says so; the value is ROLLED_BACK.
ROLLBACK = "rollback"
ROLLED_BACK = "true"
