"""Where models are kept on disk."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from streamer.settings import Section


class RegistryConfig(Section):
    """Where models are kept on disk."""

    path: Path = Field(Path("registry"), description="folder, shared by all models; made when missing")
    model_name: str = Field("defect-lstm", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    # Smaller: fewer versions to go back to. Larger: disk; the champion always stays.
    keep: int = Field(50, ge=2, le=100_000, description="versions kept on disk, the newest ones")
