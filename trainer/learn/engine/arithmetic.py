"""What a result depends on beside seed and data: the arithmetic of this machine."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def arithmetic(device: torch.device, num_threads: int) -> dict[str, str | int]:
    """What must be the same for a resumed run to end with the same bits."""
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "num_threads": num_threads,
    }


def cpu_model() -> str:
    """The processor by family, model and stepping where Linux tells, else by its name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model", "stepping")
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    stripped = {name.strip(): value.strip() for name, value in fields.items()}
    return " ".join(stripped[name] for name in wanted if name in stripped) or platform.machine()
