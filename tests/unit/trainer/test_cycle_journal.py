"""The state of the cycles outlasts the process, and the disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamer.config import DataConfig, SensorConfig, WindowsConfig
from trainer import disk
from trainer.cycle.config import CycleConfig
from trainer.cycle.journal import CycleJournal
from trainer.cycle.state import FORMAT, Cycle, State
from trainer.data.config import DatasetConfig
from trainer.data.dataset import DatasetManifest
from trainer.errors import DiskUnavailableError, RegistryError

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
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


def begun(state: State) -> State:
    return state.begun(
        Cycle(
            number=state.last_number + 1,
            trigger="interval",
            began_at=AT,
            config=DatasetConfig(train_share=0.5),
            configuration="A",
        )
    )


def current(journal: CycleJournal) -> Cycle:
    assert journal.state.cycle is not None
    return journal.state.cycle


def abandoned(state: State) -> State:
    return state.abandoned("its rows are gone", AT)


def current_of(state: State) -> Cycle:
    assert state.cycle is not None
    return state.cycle


class FullDisk:
    """A disk that takes nothing until it is emptied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(disk, "write_file", self._refuse)

    def _refuse(self, path: Path, _: bytes) -> None:
        raise DiskUnavailableError(f"{path}: writing failed: No space left on device")

    def empty(self) -> None:
        self._monkeypatch.undo()


def test_before_the_first_cycle_everything_is_news_and_reading_makes_nothing(tmp_path: Path) -> None:
    assert CycleJournal(tmp_path).state == State()
    assert list(tmp_path.iterdir()) == []


def test_a_restart_finds_the_state_as_it_was_written(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    for state in (begun(State()), begun(State()).moved(current_of(begun(State())).attempt("epoch-1"))):
        journal.write(state)
        assert journal.state == state
        assert CycleJournal(tmp_path).state == state


def test_a_restart_in_the_middle_of_a_training_finds_its_windows_and_its_checkpoint(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()))
    journal.freeze(current(journal), MANIFEST)
    journal.run_dir(current(journal)).mkdir()
    (journal.run_dir(current(journal)) / "last.pt").write_bytes(b"checkpoint")
    again = CycleJournal(tmp_path)
    again.clear()
    assert again.manifest(current(again)) == MANIFEST
    assert (again.run_dir(current(again)) / "last.pt").read_bytes() == b"checkpoint"


def test_a_write_that_was_cut_off_never_was(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()))
    (tmp_path / "cycle/.tmp-state.json").write_text('{"format": 2, "last_num')
    again = CycleJournal(tmp_path)
    assert again.state == begun(State())
    again.clear()
    assert [path.name for path in (tmp_path / "cycle").iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text",
    ['{"format": 2, "last_num', '{"format": 2, "last_number": "many"}', "[]", "", "{}", '{"format": "2"}'],
)
def test_a_torn_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cycle").mkdir()
    (tmp_path / "cycle/state.json").write_text(text)
    with pytest.raises(RegistryError, match=f"{tmp_path}/cycle/state.json: "):
        _ = CycleJournal(tmp_path).state


def test_a_state_that_a_newer_version_wrote_is_named_and_left_alone(tmp_path: Path) -> None:
    CycleJournal(tmp_path).write(begun(State()))
    path = tmp_path / "cycle/state.json"
    newer = json.loads(path.read_text()) | {"format": FORMAT + 1}
    path.write_text(json.dumps(newer))
    with pytest.raises(
        RegistryError, match=rf"state.json: format {FORMAT + 1}, .* a newer castloop wrote it"
    ):
        CycleJournal(tmp_path).clear()
    assert json.loads(path.read_text()) == newer


def test_a_key_that_is_not_known_goes_on_and_one_that_is_missing_has_its_default(tmp_path: Path) -> None:
    CycleJournal(tmp_path).write(begun(State(failures=0, arrival=7)))
    path = tmp_path / "cycle/state.json"
    fields = json.loads(path.read_text()) | {"of_a_newer_version": 1}
    fields["cycle"] |= {"of_a_newer_version": {"more": 2}}
    del fields["failures"], fields["cycle"]["faults"]
    path.write_text(json.dumps(fields))
    assert CycleJournal(tmp_path).state == begun(State(arrival=7))


@pytest.mark.parametrize("text", [None, '{"id": "d1", "arr', "{}", "[]"])
def test_a_manifest_that_is_missing_or_torn_is_named(tmp_path: Path, text: str | None) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()))
    journal.freeze(current(journal), MANIFEST)
    path = tmp_path / "cycle/1/dataset.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(RegistryError, match=f"{path}: "):
        CycleJournal(tmp_path).manifest(current(journal))


# A disk that is full


def test_what_the_disk_does_not_take_is_raised_and_the_state_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()))
    full = FullDisk(monkeypatch)
    with pytest.raises(DiskUnavailableError, match=r"state\.json"):
        journal.write(abandoned(journal.state))
    with pytest.raises(DiskUnavailableError, match=r"dataset\.json"):
        journal.freeze(current(journal), MANIFEST)
    full.empty()
    assert journal.state == CycleJournal(tmp_path).state == begun(State())


def test_a_note_is_kept_in_memory_while_the_disk_takes_nothing_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()))
    full = FullDisk(monkeypatch)
    journal.note(abandoned(journal.state))
    assert journal.state == abandoned(begun(State()))
    # Killed here, the process that comes next has not heard of it.
    assert CycleJournal(tmp_path).state == begun(State())
    full.empty()
    journal.note(journal.state.numbered_from(9))
    assert CycleJournal(tmp_path).state == abandoned(begun(State())).numbered_from(9)


def test_a_note_that_the_disk_takes_is_written_at_once(tmp_path: Path) -> None:
    CycleJournal(tmp_path).note(begun(State()))
    assert CycleJournal(tmp_path).state == begun(State())


# Folders


def test_folders_of_cycles_that_are_over_go_and_the_one_in_progress_stays(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    for _ in range(3):
        journal.write(begun(journal.state))
        journal.freeze(current(journal), MANIFEST)
    (tmp_path / "cycle/.tmp-2").mkdir()
    (tmp_path / "cycle/notes").mkdir()  # of a person
    journal.clear()
    assert sorted(path.name for path in (tmp_path / "cycle").iterdir()) == ["3", "notes", "state.json"]
    journal.write(abandoned(journal.state))
    journal.clear()
    assert sorted(path.name for path in (tmp_path / "cycle").iterdir()) == ["notes", "state.json"]
    journal.clear()


def test_clearing_before_the_first_cycle_does_nothing(tmp_path: Path) -> None:
    CycleJournal(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []


def test_another_checkpoint_is_progress_and_a_training_begun_anew_has_none(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()))
    cycle = current(journal)
    assert journal.progress(cycle) == ""
    journal.begin_training_anew(cycle)
    file = journal.run_dir(cycle) / "scratch" / "last.pt"
    file.parent.mkdir(parents=True)
    disk.write_file(file, b"1")
    first = journal.progress(cycle)
    assert journal.progress(cycle) == CycleJournal(tmp_path).progress(cycle) == first != ""
    disk.write_file(file, b"2")
    assert journal.progress(cycle) not in ("", first)
    journal.begin_training_anew(cycle)
    assert (journal.progress(cycle), journal.run_dir(cycle).exists()) == ("", False)


# An older castloop


def former(tmp_path: Path, last: str | None, *, in_progress: bool) -> None:
    (tmp_path / "cycles").mkdir()
    if last is not None:
        (tmp_path / "cycles/last.json").write_text(last)
    if in_progress:
        (tmp_path / "cycles/current/run").mkdir(parents=True)
        (tmp_path / "cycles/current/cycle.json").write_text('{"number": 6}')


LAST = '{"number": 5, "arrival": 70, "finished_at": "2026-11-22T10:00:00Z"}'


@pytest.mark.parametrize(
    ("last", "in_progress", "last_number", "arrival"),
    [(LAST, False, 5, 70), (LAST, True, 6, 70), (None, True, 1, 0), (None, False, 0, 0)],
)
def test_what_an_older_castloop_has_counted_counts_on(
    tmp_path: Path, last: str | None, in_progress: bool, last_number: int, arrival: int
) -> None:
    former(tmp_path, last, in_progress=in_progress)
    state = CycleJournal(tmp_path).state
    decided_at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC) if last else None
    assert state == State(
        last_number=last_number, arrival=arrival, arrival_before=arrival, decided_at=decided_at
    )
    assert state.news_after("A", "casting/default", is_remembered=True) == arrival


def test_a_cycle_that_an_older_castloop_had_begun_is_begun_anew_under_a_new_number(tmp_path: Path) -> None:
    former(tmp_path, LAST, in_progress=True)
    journal = CycleJournal(tmp_path)
    journal.clear()
    # Killed before the first state was written, the next process still finds what there was.
    assert CycleJournal(tmp_path).state.last_number == 6
    journal.write(begun(journal.state))
    assert current(journal).number == 7
    journal.clear()
    assert not (tmp_path / "cycles").exists()
    again = CycleJournal(tmp_path)
    assert (current(again).number, again.state.arrival) == (7, 70)


@pytest.mark.parametrize("text", ['{"number": 1, "arr', '{"number": "many"}', "[]", '{"arrival": null}'])
def test_a_torn_file_of_an_older_castloop_is_named(tmp_path: Path, text: str) -> None:
    former(tmp_path, text, in_progress=False)
    with pytest.raises(RegistryError, match=f"{tmp_path}/cycles/last.json: "):
        _ = CycleJournal(tmp_path).state


def test_a_failure_is_remembered_over_a_restart(tmp_path: Path) -> None:
    journal = CycleJournal(tmp_path)
    journal.write(begun(State()).failed("it broke", AT, CycleConfig(backoff_s=60)))
    again = CycleJournal(tmp_path).state
    assert (again.failures, again.waits_until("A")) == (1, AT.replace(minute=1))
