"""`.ci/run` for real in a folder of its own, with programs that play make, apt-get and the rights of the user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = "test_alerts_fire_where_they_must_and_nowhere_else"
BORROWED = ("bash", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "tail", "tee", "touch", "chmod", "cat")

# Reports one test, which is skipped where promtool is missing, as pytest does with --junitxml.
MAKE = f"""
report=${{PYTEST_ADDOPTS##*--junitxml=}}
command -v promtool >/dev/null || skip='<skipped message="promtool is not on PATH"/>'
test="<testcase classname='tests.unit.test_alerts' name='{SKIPPED}'>${{skip:-}}</testcase>"
echo "<testsuite>$test</testsuite>" >"$report"
echo "==== 1 passed in 0.01s ===="
"""
# The package is an empty file, and unpacking it makes a promtool that runs.
APT_GET = """
echo "$1" >>"$CALLS"
[[ $1 != download ]] || touch prometheus_2_amd64.deb
"""
DPKG_DEB = """
[[ $1 == --extract && -f $2 ]]
mkdir -p "$3/usr/bin"
echo '#!/usr/bin/env bash' >"$3/usr/bin/promtool"
chmod +x "$3/usr/bin/promtool"
"""


class Machine:
    """A checkout with `.ci/run`, and a PATH that holds what it borrows from this machine and what is played."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        (folder / ".ci").mkdir()
        self.bin.mkdir()
        shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
        for name in BORROWED:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        self.play("make", MAKE)

    def play(self, name: str, script: str) -> None:
        """Puts a program on PATH."""
        path = self.bin / name
        path.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}", encoding="utf-8")
        path.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        """Runs `.ci/run` to its end."""
        played = {"PATH": str(self.bin), "PYTHON": sys.executable, "CALLS": str(self.folder / "calls.txt")}
        (self.folder / "tmp").mkdir()
        return subprocess.run(
            [self.folder / ".ci" / "run"],
            env={**os.environ, **played, "TMPDIR": str(self.folder / "tmp")},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """What was asked of apt-get."""
        path = self.folder / "calls.txt"
        return path.read_text(encoding="utf-8").split() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.play("id", "echo 0")
    machine.play("apt-get", APT_GET)
    machine.play("dpkg-deb", DPKG_DEB)
    return machine


def test_root_fetches_promtool_and_installs_nothing(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert machine.calls() == ["update", "download"]
    assert done.stdout.splitlines()[-1] == "==== 1 passed in 0.01s ===="
    assert list((machine.folder / "tmp").iterdir()) == []


def test_a_promtool_that_is_there_is_taken(machine: Machine) -> None:
    machine.play("promtool", "")
    assert machine.run().returncode == 0
    assert machine.calls() == []


def test_without_root_it_says_so_and_lets_the_tests_be_skipped(machine: Machine) -> None:
    machine.play("id", "echo 1000")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "no promtool" in done.stderr
    assert machine.calls() == []


def test_any_other_test_that_is_skipped_fails(machine: Machine) -> None:
    machine.play("id", "echo 1000")
    machine.play("make", MAKE.replace(SKIPPED, "test_another"))
    done = machine.run()
    assert done.returncode != 0
    assert "test_another: promtool is not on PATH" in done.stderr


def test_a_package_that_cannot_be_fetched_fails(machine: Machine) -> None:
    machine.play("apt-get", "exit 100")
    assert machine.run().returncode != 0


def test_the_tests_that_may_be_skipped_are_there() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    tests = (ROOT / "tests" / "unit" / "test_alerts.py").read_text(encoding="utf-8")
    named = [
        line.strip().split("::")[1] for line in script.splitlines() if "tests.unit.test_alerts::" in line
    ]
    assert [f"@needs_promtool\ndef {name}(" in tests for name in named] == [True] * tests.count(
        "@needs_promtool"
    )
