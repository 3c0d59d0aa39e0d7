"""The peers' environment: a virtual environment of their own, made once from a list of requirements."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "peers.txt"


class PeersMissingError(Exception):
    """The peers' packages could not be installed; the message says what to do."""


def peers_python(requirements: Path = REQUIREMENTS, constraints: Path | None = None) -> str:
    """Path of an interpreter that has the peers' packages; installs them where they are missing.

    Args:
        requirements: What pip installs.
        constraints: Versions of what the requirements leave open.

    Raises:
        PeersMissingError: pip failed, for want of a network most often.
    """
    text = requirements.read_bytes() + (constraints.read_bytes() if constraints else b"")
    folder = ROOT / ".peers" / hashlib.sha256(text + sys.version.encode()).hexdigest()[:12]
    python = folder / "venv" / "bin" / "python"
    if not ((folder / "complete").exists() and python.exists()):
        relative = requirements.relative_to(ROOT)
        print(f"installing {relative} into {folder}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        packages = ["-r", str(requirements), *(["-c", str(constraints)] if constraints else [])]
        _install(folder, [sys.executable, "-m", "venv", "--clear", str(folder / "venv")])
        _install(folder, [str(python), "-m", "pip", "install", *packages])
        (folder / "complete").touch()
    return str(python)


def _install(folder: Path, command: list[str]) -> None:
    log = folder / "install.log"
    with log.open("ab") as out:
        failed = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    if failed:
        raise PeersMissingError(
            f"the peers' packages could not be installed: {_last_line(log)} (all of it: {log}). They need "
            "the package index once; --only ours leaves the peers out"
        )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
    return lines[-1] if lines else "pip failed"
