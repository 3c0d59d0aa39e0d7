"""What a write leaves behind: the old content or the new one, never a part. Files are read from their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import disk
from trainer.errors import DiskUnavailableError, RegistryError, RegistryLockedError

# A child whose files may not grow beyond a size, which is how a full disk looks to it.
LIMITED = """
import resource, sys
from pathlib import Path
from trainer import disk
from trainer.errors import DiskUnavailableError

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
folder = Path(sys.argv[2])
try:
    eval(sys.argv[3])
except DiskUnavailableError as exc:
    print(exc)
    sys.exit(7)
"""
MEGABYTE = 1024 * 1024


def within(num_bytes: int, folder: Path, call: str) -> subprocess.CompletedProcess[str]:
    """Runs a call in a process whose files take so many bytes each."""
    command = [sys.executable, "-c", LIMITED, str(num_bytes), str(folder), call]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Room


@pytest.mark.parametrize("num_bytes", [0, 1, 3 * MEGABYTE])
def test_room_that_is_there_leaves_no_file(tmp_path: Path, num_bytes: int) -> None:
    disk.require_room(tmp_path / "run", num_bytes)
    assert names(tmp_path / "run") == []


def test_room_that_is_missing_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    done = within(2 * MEGABYTE, tmp_path, "disk.require_room(folder, 3_000_000)")
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"{tmp_path}: making sure of 3,000,000 bytes failed: File too large\n"
    assert names(tmp_path) == []
    done = within(2 * MEGABYTE, tmp_path, "disk.require_room(folder, 2_000_000)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_that_takes_no_file_has_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DiskUnavailableError, match="file/run: making sure of 1 bytes failed: Not a directory"
    ):
        disk.require_room(tmp_path / "file/run", 1)


# A full disk


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    disk.write_file(path, b"old")
    done = within(1_000, tmp_path, "disk.write_file(folder / 'state.json', bytes(1_001))")
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"{path}: writing failed: File too large\n"
    assert path.read_bytes() == b"old"
    # Once there is room again the same write succeeds, over what the first one left.
    disk.write_file(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"new", ["state.json"])


def test_a_full_disk_leaves_no_part_of_a_folder(tmp_path: Path) -> None:
    done = within(1_000, tmp_path, "disk.write_folder(folder / '1', {'a': b'a', 'b': bytes(1_001)})")
    assert (done.returncode, done.stderr) == (7, "")
    assert not (tmp_path / "1").exists()
    disk.write_folder(tmp_path / "1", {"b": b"b"})
    assert (names(tmp_path), names(tmp_path / "1")) == (["1"], ["b"])


def test_a_line_that_does_not_fit_leaves_those_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    disk.append_line(path, "a" * 500)
    done = within(1_000, tmp_path, "disk.append_line(folder / 'log', 'b' * 600)")
    assert (done.returncode, done.stderr) == (7, "")
    assert disk.read_lines(path) == ["a" * 500]
    assert disk.last_line(path) == "a" * 500
    disk.append_line(path, "c")
    assert disk.read_lines(path) == ["a" * 500, "c"]


# Lines


def test_a_file_that_is_missing_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert (disk.last_line(path), disk.read_lines(path), disk.size_bytes(path)) == (None, [], 0)
    path.touch()
    assert (disk.last_line(path), disk.read_lines(path)) == (None, [])


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("one\n", "one"),
        ("one\ntwo\n", "two"),
        ("one\ntwo\nto", "two"),
        ("one\n{", "one"),
        ("torn", None),
        ("one\n" + "x" * (disk.BLOCK_BYTES + 5), "one"),
        ("one\n" + "x" * (3 * disk.BLOCK_BYTES) + "\n", "x" * (3 * disk.BLOCK_BYTES)),
        ("x" * (disk.BLOCK_BYTES - 1) + "\n", "x" * (disk.BLOCK_BYTES - 1)),
        ("x" * (3 * disk.BLOCK_BYTES), None),
    ],
    ids=lambda value: f"{(value or 'none')[:12]!r} of {len(value or '')}",
)
def test_the_last_line_is_the_last_that_was_finished(tmp_path: Path, text: str, last: str | None) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    assert disk.last_line(path) == last
    disk.append_line(path, "next")
    assert disk.read_lines(path) == [*text.split("\n")[:-1], "next"]
    assert disk.last_line(path) == "next"


@settings(deadline=None)  # other tests keep this machine busy
@given(st.lists(st.text("aé\\", min_size=1, max_size=6), max_size=8), st.text("aé", max_size=9))
def test_lines_that_are_appended_are_read_whatever_a_kill_left_between(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], torn: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "log"
    for number, line in enumerate(lines):
        disk.append_line(path, line)
        with path.open("ab") as file:
            file.write(torn.encode()[: number + 1])  # also in the middle of a character
        assert disk.last_line(path) == line
        assert disk.read_lines(path) == lines[: number + 1]


def test_the_last_line_of_a_long_log_is_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(100 * 1024**3)  # a hole: read from its beginning it would take minutes
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    assert disk.last_line(path) == "last"


# Kills


def test_what_a_kill_left_under_a_temporary_name_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-3").mkdir()
    (tmp_path / ".tmp-3/model").touch()
    (tmp_path / ".tmp-state.json").touch()
    (tmp_path / "state.json").touch()
    disk.remove_temporary(tmp_path)
    assert names(tmp_path) == ["state.json"]


def test_a_removal_goes_on_over_what_an_earlier_one_left(tmp_path: Path) -> None:
    for name in (".tmp-3", "3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").touch()
    disk.remove_folder(tmp_path / "3")
    assert names(tmp_path) == []
    disk.remove_file(tmp_path / "missing")


# JSON


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "nul", "[" * 100_000, "\xff"])
def test_json_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RegistryError, match=str(path)):
        disk.read_json(path)


def test_json_that_is_missing_is_named_or_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with pytest.raises(RegistryError, match=f"{path}: it is missing"):
        disk.read_json(path)
    assert disk.read_json_if_there(path) is None
    disk.write_file(path, json.dumps({"a": 1}).encode())
    assert disk.read_json_if_there(path) == disk.read_json(path) == {"a": 1}
    assert disk.read_json_if_there(path / "below a file") is None


# The lock


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    descriptor = disk.lock_exclusively(tmp_path / "new/lock")
    with pytest.raises(RegistryLockedError, match=rf"{tmp_path}/new: .*process {os.getpid()}\)"):
        disk.lock_exclusively(tmp_path / "new/lock")
    os.close(descriptor)
    os.close(disk.lock_exclusively(tmp_path / "new/lock"))
