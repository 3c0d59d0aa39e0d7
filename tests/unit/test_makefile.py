"""The Makefile run for real in a folder of its own, with an interpreter that plays Python, venv and pip."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"PYTHON", "TORCH_INDEX", "RECORDING", "CONFIG", "JSON", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}

# Says it is the version that FAKE_VERSION names; notes each call of pip and of the demo in calls.txt.
FAKE_PYTHON = f"""#!{sys.executable}
import os, platform, shutil, sys, time
from pathlib import Path

def note(line):
    with Path("calls.txt").open("a") as calls:
        calls.write(line + chr(10))

if sys.argv[1] == "-c":
    sys.version_info = tuple(map(int, os.environ.get("FAKE_VERSION", "3.11.7").split(".")))
    platform.python_implementation = lambda: os.environ.get("FAKE_IMPLEMENTATION", "CPython")
    for name in os.environ.get("FAKE_MISSING", "").split():
        sys.modules[name] = None
    if "import torch" not in sys.argv[2]:
        code = sys.argv[2]
        sys.argv[1:3] = []
        exec(code)
elif sys.argv[1:3] == ["-m", "venv"]:
    Path(sys.argv[-1], "bin").mkdir(parents=True)
    shutil.copy(__file__, Path(sys.argv[-1], "bin", "python"))
elif sys.argv[1:3] == ["-m", "pip"]:
    time.sleep(float(os.environ.get("FAKE_PIP_S", "0")))
    note("pip " + " ".join(sys.argv[3:]))
    print("ERROR: No matching distribution found for torch")
    sys.exit(int(os.environ.get("FAKE_PIP_EXIT", "0")))
elif sys.argv[1:3] == ["-m", "demo"]:
    note("demo " + " ".join(sys.argv[3:]))
    time.sleep(float(os.environ.get("FAKE_DEMO_S", "0")))
    sys.exit(int(os.environ.get("FAKE_DEMO_EXIT", "0")))
"""


def _hear_interrupts() -> None:
    """A shell starts what runs in its background deaf to SIGINT, and every child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Checkout:
    """A folder that holds what the Makefile reads, and the fake interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        self.python = folder / "python3"
        self.python.write_text(FAKE_PYTHON, encoding="utf-8")
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts `make` with these arguments, PYTHON=./python3 unless they say otherwise."""
        clean = {name: value for name, value in os.environ.items() if name not in OURS}
        return subprocess.Popen(
            ["make", *arguments],  # noqa: S607 - the make of this machine
            cwd=self.folder,
            env={**clean, "PYTHON": "./python3", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_interrupts,  # noqa: PLW1509 - one system call
        )

    def make(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Runs `make` to its end; gives its exit code and what it said."""
        process = self.start(*arguments, **environment)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def calls(self, program: str) -> list[str]:
        """What was asked of the program so far, one line a call."""
        path = self.folder / "calls.txt"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line.removeprefix(program).strip() for line in lines if line.startswith(program)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_help_names_the_targets(checkout: Checkout) -> None:
    code, said = checkout.make()
    assert code == 0
    assert {"demo", "test", "lint", "test-slow", "clean", "help"} <= set(said.split())


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"FAKE_VERSION": "3.9.18"},
            "./python3 is CPython 3.9: castloop needs CPython 3.11 to 3.13; "
            "install it or run make PYTHON=python3.11",
        ),
        (
            {"FAKE_VERSION": "3.14.0"},
            "./python3 is CPython 3.14: castloop needs CPython 3.11 to 3.13; "
            "install it or run make PYTHON=python3.11",
        ),
        (
            {"FAKE_IMPLEMENTATION": "PyPy"},
            "./python3 is PyPy 3.11: castloop needs CPython 3.11 to 3.13; "
            "install it or run make PYTHON=python3.11",
        ),
        (
            {"PYTHON": "no-such-python"},
            "no-such-python does not run: castloop needs CPython 3.11 to 3.13; "
            "install it or run make PYTHON=python3.11",
        ),
        (
            {"FAKE_MISSING": "ensurepip"},
            "./python3 has no venv module: install it (Debian, Ubuntu: apt-get install python3.11-venv) "
            "and run make again",
        ),
        (
            {"FAKE_MISSING": "venv", "FAKE_VERSION": "3.12.1"},
            "./python3 has no venv module: install it (Debian, Ubuntu: apt-get install python3.12-venv) "
            "and run make again",
        ),
    ],
)
def test_an_interpreter_that_will_not_do_is_one_line_with_the_mend(
    checkout: Checkout, environment: dict[str, str], message: str
) -> None:
    code, said = checkout.make("demo", **environment)
    assert code != 0
    assert [line for line in said.splitlines() if not line.startswith("make")] == [message]
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("version", ["3.11.0", "3.12.1", "3.13.0"])
def test_a_supported_version_goes_through(checkout: Checkout, version: str) -> None:
    code, said = checkout.make("demo", FAKE_VERSION=version)
    assert code == 0, said


def test_the_demo_gets_the_arguments_that_were_given(checkout: Checkout) -> None:
    checkout.make("demo")
    checkout.make("demo", "RECORDING=my rig", "CONFIG=conf", "JSON=out.json")
    assert checkout.calls("demo") == ["", "--recording my rig --config conf --json out.json"]


def test_a_demo_that_fails_fails_make_and_its_exit_code_is_told(checkout: Checkout) -> None:
    code, said = checkout.make("demo", FAKE_DEMO_EXIT="1")
    assert code != 0
    assert "Error 1" in said


def test_what_is_installed_is_not_installed_again(checkout: Checkout) -> None:
    checkout.make("demo")
    asked = checkout.calls("pip")
    checkout.make("demo")
    assert (
        checkout.calls("pip")
        == asked
        == ["install --constraint constraints.txt --editable .[train,embedded]"]
    )


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_wanted_installs_again(checkout: Checkout, name: str) -> None:
    checkout.make("demo")
    later = time.time() + 5
    os.utime(checkout.folder / name, (later, later))
    checkout.make("demo")
    assert len(checkout.calls("pip")) == 2


def test_two_makes_at_once_install_once_and_both_run(checkout: Checkout) -> None:
    both = [checkout.start("demo", FAKE_PIP_S="0.5") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(checkout.calls("pip")) == 1
    assert len(checkout.calls("demo")) == 2


def test_a_failed_installation_shows_the_end_of_the_log_and_is_tried_again(checkout: Checkout) -> None:
    code, said = checkout.make("demo", FAKE_PIP_EXIT="1")
    assert code != 0
    assert "ERROR: No matching distribution found for torch" in said
    assert ".venv/install.log" in said
    assert checkout.calls("demo") == []
    assert checkout.make("demo")[0] == 0
    assert len(checkout.calls("pip")) == 2


def test_torch_alone_comes_from_the_index_that_is_named(checkout: Checkout) -> None:
    checkout.make("demo", "TORCH_INDEX=https://index.example/cpu")
    assert checkout.calls("pip") == [
        "install --constraint constraints.txt --force-reinstall --no-deps "
        "--index-url https://index.example/cpu torch",
        "install --constraint constraints.txt --editable .[train,embedded]",
    ]


def test_the_index_is_remembered_and_another_one_replaces_torch(checkout: Checkout) -> None:
    checkout.make("demo", "TORCH_INDEX=https://index.example/cpu")
    checkout.make("demo")
    assert len(checkout.calls("pip")) == 2
    checkout.make("demo", "TORCH_INDEX=https://index.example/cu")
    assert "--index-url https://index.example/cu torch" in checkout.calls("pip")[2]


def test_the_tools_of_the_checks_come_with_a_pip_that_knows_groups(checkout: Checkout) -> None:
    checkout.make("install-dev")
    assert checkout.calls("pip")[1:] == [
        "install --constraint constraints.txt pip",
        "install --constraint constraints.txt --group dev",
    ]


def test_an_interrupt_ends_make_and_the_demo(checkout: Checkout) -> None:
    process = checkout.start("demo", FAKE_DEMO_S="60")
    deadline = time.monotonic() + 30
    while not checkout.calls("demo") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
