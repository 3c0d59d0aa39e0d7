"""The peers' environment: a virtual environment of their own, made once from `benchmarks/peers.txt`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "peers.txt"


class PeersMissingError(Exception):
    """The peers' packages could not be installed; the message says what to do."""


def peers_python() -> str:
    """Path of an interpreter that has the peers' packages; installs them where they are missing.

    Raises:
        PeersMissingError: pip failed, for want of a network most often.
    """
    text = REQUIREMENTS.read_bytes() + sys.version.encode()
    folder = ROOT / ".peers" / hashlib.sha256(text).hexdigest()[:12]
    python = folder / "venv" / "bin" / "python"
    if (folder / "complete").exists():
        return str(python)
    print(f"installing {REQUIREMENTS.name} into {folder}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "install.log"
    with log.open("wb") as out:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder / "venv")],
            [str(folder / "venv/bin/python"), "-m", "pip", "install", "-r", str(REQUIREMENTS)],
        ):
            if subprocess.run(command, stdout=out, stderr=out, check=False).returncode:
                raise PeersMissingError(
                    f"the peers' packages could not be installed: {_last_line(log)} (all of it: {log}). They need "
                    "the package index once; --only ours leaves the peers out"
                )
    (folder / "complete").touch()
    return str(python)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
    return lines[0] if lines else "pip failed"
