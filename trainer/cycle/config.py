"""How often a cycle is tried, and how long the trainer waits after one that failed."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from streamer.settings import Section


class CycleConfig(Section):
    """What happens to a cycle that does not come through."""

    # Smaller: a machine that is restarted in long trainings gives them up. Larger: what fails each time costs more.
    max_attempts: int = Field(
        3, ge=1, le=100, description="of one phase without progress; then the cycle fails"
    )
    # Smaller: what fails again costs more. Larger: what was mended meanwhile is trained later.
    backoff_s: float = Field(300.0, ge=0, description="after a cycle that failed; doubled with each in a row")
    max_backoff_s: float = Field(21_600.0, ge=0)

    @model_validator(mode="after")
    def _ends_above_its_start(self) -> Self:
        if self.max_backoff_s < self.backoff_s:
            raise ValueError("max_backoff_s must not be less than backoff_s")
        return self
