"""The cycle in progress outlasts the process."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamer.config import DataConfig, SensorConfig, WindowsConfig
from trainer.cycle.journal import CycleJournal, LastCycle
from trainer.data.config import DatasetConfig
from trainer.data.dataset import DatasetManifest
from trainer.errors import RegistryError

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CONFIG = DatasetConfig(train_share=0.5)
MANIFEST = DatasetManifest(
    id="d1",
    namespace="casting",
    arrival=7,
    data=DataConfig(sensors=(SensorConfig(name="mold_level", unit="mm"),)),
    spec=WindowsConfig(),
    windows=(("C1", 100, 300, True),),
    casts={"C1": ("heat-1", "rev")},
    content_sha256="sha",
)


def test_before_the_first_cycle_everything_is_news(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    assert (journal.last(), journal.current()) == (LastCycle(number=0, arrival=0), None)


def test_a_restart_finds_the_cycle_as_it_was_begun(tmp_path: Path) -> None:
    cycle = CycleJournal(tmp_path).begin("interval", MANIFEST, CONFIG, AT)
    assert (cycle.number, cycle.trigger, cycle.config) == (1, "interval", CONFIG)
    again = CycleJournal(tmp_path)
    assert again.current() == cycle
    assert again.run_dir.is_dir()


def test_a_finished_cycle_is_the_last_one_and_its_state_is_gone(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    cycle = journal.begin("manual", MANIFEST, CONFIG, AT)
    (journal.run_dir / "last.pt").write_bytes(b"checkpoint")
    journal.finish(cycle, AT)
    again = CycleJournal(tmp_path)
    assert (again.last(), again.current()) == (LastCycle(number=1, arrival=7, finished_at=AT), None)
    assert not again.run_dir.exists()
    assert again.begin("manual", MANIFEST, CONFIG, AT).number == 2


def test_a_cycle_given_up_leaves_its_windows_as_news_and_no_checkpoint(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    journal.begin("manual", MANIFEST, CONFIG, AT)
    (journal.run_dir / "last.pt").write_bytes(b"checkpoint")
    journal.abandon()
    journal.abandon()
    assert (journal.last().number, journal.current()) == (0, None)
    assert journal.begin("manual", MANIFEST, CONFIG, AT).number == 1
    assert list(journal.run_dir.iterdir()) == []


def test_killed_before_the_cycle_was_written_it_never_began(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    journal.run_dir.mkdir(parents=True)
    (journal.run_dir / "last.pt").write_bytes(b"of a cycle that no one knows")
    assert journal.current() is None
    journal.begin("manual", MANIFEST, CONFIG, AT)
    assert list(journal.run_dir.iterdir()) == []


def test_killed_while_the_end_was_written_the_cycle_ends_once_more_under_its_number(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    cycle = journal.begin("manual", MANIFEST, CONFIG, AT)
    state = (tmp_path / "cycles/current/cycle.json").read_bytes()
    journal.finish(cycle, AT)
    # What a kill between the two writes of `finish` leaves.
    (tmp_path / "cycles/current").mkdir()
    (tmp_path / "cycles/current/cycle.json").write_bytes(state)
    again = CycleJournal(tmp_path)
    current = again.current()
    assert current == cycle
    again.finish(cycle, AT)
    assert (again.last().number, again.current()) == (1, None)


@pytest.mark.parametrize("name", ["cycles/last.json", "cycles/current/cycle.json"])
@pytest.mark.parametrize("text", ['{"number": 1, "arr', '{"number": "many"}', "[]"])
def test_a_torn_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    journal = CycleJournal(tmp_path)
    cycle = journal.begin("manual", MANIFEST, CONFIG, AT)
    if name.endswith("last.json"):
        journal.finish(cycle, AT)
    (tmp_path / name).write_text(text)
    again = CycleJournal(tmp_path)
    with pytest.raises(RegistryError, match=name):
        again.last() if name.endswith("last.json") else again.current()
