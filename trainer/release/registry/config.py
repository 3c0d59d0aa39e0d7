"""Where models are kept on disk."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from streamer.settings import ConfigPath, Section


class RegistryConfig(Section):
    """Where models are kept on disk, and who may write there."""

    path: ConfigPath = Field(Path("registry"), description="folder, shared by all models; made when missing")
    model_name: str = Field("defect-lstm", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    # Smaller: fewer versions to go back to. Larger: disk; the champion always stays.
    keep: int = Field(50, ge=2, le=100_000, description="promoted versions kept on disk, the newest ones")
    keep_refused: int = Field(20, ge=0, le=100_000, description="the same of refused versions")
    accept_new_inputs: bool = Field(
        False, description="a model of other sensors, units, period or window may replace the champion"
    )
    # Smaller: a pause of the process loses the lease. Larger: after a host is gone another one waits for longer.
    lease_s: float = Field(30.0, ge=1, le=3_600, description="how long the lease of a silent trainer stands")
