"""Names under which a model update is told on Kafka."""

from __future__ import annotations

MODEL_UPDATED = "io.castloop.model.updated"
MODEL_VERSION = "modelversion"
