"""Which windows a data set has, and how it is split."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from streamer.settings import Section


class DatasetConfig(Section):
    """Which windows a data set has, and how it is split in time."""

    windows: str = Field("default", description="name of the window spec")
    # Smaller: old casts are forgotten sooner. Larger: memory and time a cycle.
    max_windows: int = Field(50_000, ge=10, description="the newest ones are taken")
    # Smaller: an older data set cannot be read again sooner. Larger: Redis keeps casts that retention would take.
    num_kept: int = Field(
        3, ge=0, le=1_000, description="data sets held besides the champion's and the current one"
    )
    train_share: float = Field(0.6, gt=0, lt=1)
    validation_share: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _gate_is_left(self) -> Self:
        if self.train_share + self.validation_share >= 1:
            raise ValueError("train_share + validation_share must leave something for the gate")
        return self
