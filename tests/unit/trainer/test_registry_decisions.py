"""Decisions on disk: the outbox, the log, the pointer, and a kill between any two steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_release_registry import model, registry, states

from trainer import disk
from trainer.errors import DiskUnavailableError, RegistryError
from trainer.release import ModelEvent, Registry, write_artifact
from trainer.release.registry import decisions
from trainer.release.registry.decisions import Decisions
from trainer.release.registry.event import Decision

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PROMOTED = Decision.new("promoted", ("better",), AT)
REFUSED = Decision.new("refused", ("worse",), AT)


def event(seq: int, kind: str = "trained", version: int | None = 1, **fields: object) -> ModelEvent:
    return ModelEvent.model_validate(
        {"seq": seq, "kind": kind, "version": version, "at": AT, "ce_id": f"id-{seq}", **fields}
    )


def opened(folder: Path) -> Decisions:
    made = Decisions(folder)
    made.recover(range(1, 1_000))
    return made


def happened(of: Decisions, *events: ModelEvent) -> None:
    for each in events:
        of.put(each)
        of.apply(each)


def log_of(folder: Path) -> Path:
    return folder / "events.jsonl"


# Outbox, log and pointer


def test_what_is_put_has_happened_and_waits_until_it_is_dropped(tmp_path: Path) -> None:
    of = opened(tmp_path)
    first, second = event(1), event(2, "promoted", update_ce_id="u")
    happened(of, first, second)
    assert Decisions(tmp_path).outbox() == Decisions(tmp_path).events() == [first, second]
    of.drop(first)
    of.drop(first)
    assert (of.outbox(), of.events(), of.champion_version()) == ([second], [first, second], 1)


def test_an_event_that_is_applied_twice_is_in_the_log_once(tmp_path: Path) -> None:
    of = opened(tmp_path)
    happened(of, event(1), event(2, "promoted", update_ce_id="u"))
    for each in of.outbox():
        of.apply(each)
    assert [each.seq for each in of.events()] == [1, 2]


def test_the_pointer_never_moves_back_to_an_earlier_promotion(tmp_path: Path) -> None:
    of = opened(tmp_path)
    earlier, later = (event(n, "promoted", version, update_ce_id="u") for n, version in ((1, 1), (2, 2)))
    happened(of, earlier, later)
    of.apply(earlier)
    assert of.champion_version() == 2


def test_only_a_promotion_moves_the_pointer(tmp_path: Path) -> None:
    of = opened(tmp_path)
    happened(of, event(1), event(2, "refused"), event(3, "failed", None))
    assert of.champion_version() is None


def test_the_outbox_is_in_order_beyond_ten_events(tmp_path: Path) -> None:
    of = opened(tmp_path)
    happened(of, *(event(seq) for seq in range(1, 13)))
    assert [each.seq for each in of.outbox()] == list(range(1, 13))


def test_an_event_of_a_version_that_was_never_written_never_happened(tmp_path: Path) -> None:
    of = opened(tmp_path)
    of.put(event(1, version=1))
    of.put(event(2, version=2))
    of.put(event(3, "failed", None))
    again = Decisions(tmp_path)
    again.recover([1])
    assert [each.seq for each in again.events()] == [each.seq for each in again.outbox()] == [1, 3]


# The log


def test_the_log_is_rotated_and_bounded_and_numbers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "MAX_LOG_BYTES", 2_000)
    of = opened(tmp_path)
    line_bytes = len(event(100).model_dump_json()) + 1
    for expected in range(1, 101):
        assert of.next_seq() == expected
        happened(of, event(expected))
        of.drop(event(expected))
        sizes = [disk.size_bytes(path) for path in (log_of(tmp_path), tmp_path / "events.1.jsonl")]
        assert max(sizes) <= 2_000 + line_bytes
    seqs = [each.seq for each in of.events()]
    assert seqs == list(range(seqs[0], 101))
    assert 1 < seqs[0] < 90
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.1.jsonl", "events.jsonl", "outbox"]


def test_numbers_go_on_when_a_kill_came_between_the_two_steps_of_a_rotation(tmp_path: Path) -> None:
    happened(opened(tmp_path), event(1), event(2))
    log_of(tmp_path).rename(tmp_path / "events.1.jsonl")
    of = opened(tmp_path)
    assert (of.next_seq(), [each.seq for each in of.events()]) == (3, [1, 2])
    log_of(tmp_path).touch()
    assert of.next_seq() == 3


def test_numbers_go_on_after_a_log_that_somebody_removed(tmp_path: Path) -> None:
    of = opened(tmp_path)
    happened(of, event(1), event(2, "promoted", 1, update_ce_id="u"))
    for each in of.outbox():
        of.drop(each)
    log_of(tmp_path).unlink()
    assert of.next_seq() == 3
    happened(of, event(of.next_seq(), "promoted", 2, update_ce_id="v"))
    assert of.champion_version() == 2


def test_a_torn_last_line_is_cut_off_and_written_again(tmp_path: Path) -> None:
    of = opened(tmp_path)
    happened(of, event(1), event(2))
    text = log_of(tmp_path).read_text()
    log_of(tmp_path).write_text(text[:-10])
    assert Decisions(tmp_path).events() == [event(1)]
    assert Decisions(tmp_path).next_seq() == 3  # the outbox knows
    assert opened(tmp_path).events() == [event(1), event(2)]
    assert log_of(tmp_path).read_text() == text


def test_nothing_that_is_asked_again_and_again_reads_the_whole_log(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        writer.promote(1)
        for each in writer.outbox():
            writer.confirm(each)
    path = tmp_path / "defect-lstm/events.jsonl"
    lines = [event(seq, "refused").model_dump_json() for seq in range(3, 20_001)]
    lines[10_000] = "torn"
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    with registry(tmp_path) as writer:
        assert (writer.outbox(), writer.champion_version(), writer.last_version()) == ([], 1, 1)
        assert (writer.undecided(), states(writer), writer.decision(1) is not None) == (
            [],
            {1: "promoted"},
            True,
        )
        assert writer.champion() is not None
        writer.tell_failed("id", ["it broke"], {})
        assert [each.seq for each in writer.outbox()] == [20_001]
        assert writer.register(model(2)) == 2
        writer.refuse(2, ["worse"])
        with pytest.raises(RegistryError, match=f"{path}:10003: "):
            writer.events()


# A decision carried out twice, or cut off


class Killed(BaseException):
    """The process ends here."""


Act = Callable[[Registry], object]
# All that changes the disk, one call a step of the registry.
STEPS = ("write_file", "write_folder", "remove_file", "remove_folder", "append_line", "rename_synced")


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> Iterator[list[str]]:
    """Ends the process before or after so many writes; gives the names of those that were begun."""
    begun: list[str] = []
    depth = 0

    def counted(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            nonlocal depth
            if depth:
                return write(*args)
            begun.append(name)
            if len(begun) == step and not after:
                raise Killed
            depth += 1
            try:
                done = write(*args)
            finally:
                depth -= 1
            if len(begun) == step:
                raise Killed
            return done

        return wrapped

    with monkeypatch.context() as patched:
        for name in STEPS:
            patched.setattr(disk, name, counted(name, getattr(disk, name)))
        yield begun


def with_a_champion_and(*, register: int) -> Callable[[Registry], None]:
    """A registry whose version 1 serves; versions up to another one are registered and not decided."""

    def prepare(writer: Registry) -> None:
        for version in range(1, register + 1):
            writer.register(model(version))
            if version == 1:
                writer.promote(1)
        for each in writer.outbox():
            writer.confirm(each)

    return prepare


def seen(path: Path) -> dict[str, object]:
    """What can be told of a registry from outside, without ids that are drawn anew."""
    reader = registry(path)
    return {
        "states": states(reader),
        "champion": reader.champion_version(),
        "events": [(each.kind, each.version) for each in reader.events()],
        "outbox": [(each.kind, each.version) for each in reader.outbox()],
        "next": reader.next_version(),
        "left over": [path.name for path in path.rglob("*") if path.name.startswith(disk.TEMPORARY)],
    }


ACTS: dict[str, tuple[int, Act]] = {
    "register": (1, lambda writer: writer.register(model(2))),
    "promote": (2, lambda writer: writer.decide(2, PROMOTED)),
    "refuse": (2, lambda writer: writer.decide(2, REFUSED)),
    "adopt": (1, lambda writer: writer.adopt(model(7))),
    "adopt what is there": (2, lambda writer: writer.adopt(model(2))),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", ACTS)
def test_a_kill_between_any_two_steps_leaves_all_of_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, after: bool
) -> None:
    register, act = ACTS[what]
    untouched, whole = tmp_path / "untouched", tmp_path / "whole"
    for path in (untouched, whole):
        with registry(path) as writer:
            with_a_champion_and(register=register)(writer)
    with registry(whole) as writer, killed_at(0, monkeypatch, after=after) as steps:
        act(writer)
    assert len(steps) >= 3
    before, done = seen(untouched), seen(whole)
    found = []
    for step in range(1, len(steps) + 1):
        path = tmp_path / str(step)
        with registry(path) as writer:
            with_a_champion_and(register=register)(writer)
            with killed_at(step, monkeypatch, after=after), pytest.raises(Killed):
                act(writer)
        registry(path).open().close()
        found.append(seen(path))
        # The same once more comes to the same, as far as it is not refused for having been done.
        with registry(path) as writer:
            if what != "register" or found[-1] == before:
                act(writer)
        assert seen(path)["states"] == done["states"], steps[:step]
        assert seen(path)["champion"] == done["champion"], steps[:step]
        if not what.startswith("adopt"):
            assert seen(path) == done, steps[:step]
    # Never was, up to some step; from there on it is complete.
    kinds = ["never was" if each == before else "complete" if each == done else f"{each}" for each in found]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) <= {"never was", "complete"}
    assert kinds[-1] == "complete"


def test_a_decision_carried_out_twice_is_one_event(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=2)(writer)
        for _ in range(2):
            writer.decide(2, PROMOTED, {"lower": 0.05})
        (waiting,) = writer.outbox()
        writer.confirm(waiting)
    with registry(tmp_path) as writer:
        writer.decide(2, PROMOTED)
        assert (writer.outbox(), writer.decision(2), writer.champion_version()) == ([], PROMOTED, 2)
        assert [each.ce_id for each in writer.events()].count(PROMOTED.ce_id) == 1
        with pytest.raises(RegistryError, match="version 2 cannot be refused: it is promoted"):
            writer.decide(2, REFUSED)


@pytest.mark.parametrize("step", range(1, 5))
def test_a_decision_that_a_full_disk_cut_off_is_one_event_when_it_is_carried_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=2)(writer)
        with pytest.raises(Killed), killed_at(step, monkeypatch, after=False):
            writer.decide(2, PROMOTED)
        # The process goes on: nothing is opened again.
        writer.decide(2, PROMOTED)
        assert [each.ce_id for each in writer.outbox()] == [PROMOTED.ce_id]
        assert [each.ce_id for each in writer.events()].count(PROMOTED.ce_id) == 1
        assert (states(writer), writer.champion_version()) == ({1: "promoted", 2: "promoted"}, 2)


@pytest.mark.parametrize("act", ["register", "adopt"])
def test_a_version_that_the_disk_does_not_take_leaves_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    def full(path: Path, files: object) -> None:
        raise DiskUnavailableError(f"{path}: writing failed: No space left on device")

    with registry(tmp_path) as writer:
        with_a_champion_and(register=1)(writer)
        before = seen(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(disk, "write_folder", full)
            with pytest.raises(DiskUnavailableError):
                ACTS[act][1](writer)
        assert seen(tmp_path) == before
        ACTS[act][1](writer)
    assert seen(tmp_path) != before


def test_a_number_is_not_used_again_where_a_kill_came_before_it_was_noted(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=2)(writer)
    (tmp_path / "defect-lstm/numbers.json").unlink()
    assert registry(tmp_path).next_version() == 3


def test_the_failure_of_a_cycle_waits_once_however_often_it_is_told(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        for _ in range(2):
            writer.tell_failed("id", ["it broke"], {"cycle": 3})
    with registry(tmp_path) as writer:
        writer.tell_failed("id", ["it broke"], {"cycle": 3})
        (told,) = writer.outbox()
    assert (told.kind, told.version, told.details, writer.events()) == ("failed", None, {"cycle": 3}, [told])


def test_a_model_that_is_taken_in_is_the_champion_and_nobody_is_told(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=1)(writer)
        assert writer.adopt(model(7)) == 7
        assert (writer.champion_version(), writer.next_version(), writer.outbox()) == (7, 8, [])
        champion = writer.champion()
        assert champion is not None
        assert champion.tensors["w"][0] == 7
        for refused in (model(7, "other"), model(5)):
            with pytest.raises(RegistryError, match="cannot be taken in"):
                writer.adopt(refused)
        writer.register(model(8))
        another = write_artifact({"w": np.zeros(8, np.float32)}, writer.manifest(8))
        with pytest.raises(RegistryError, match="and its model of this version another"):
            writer.adopt(another)


# An older castloop


def test_an_old_registry_gets_a_decision_a_version_when_it_is_opened(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=3)(writer)
        writer.refuse(2, ["worse"])
        decided = {version: writer.decision(version) for version in (1, 2, 3)}
    for path in tmp_path.rglob("decision.json"):
        path.unlink()
    assert states(registry(tmp_path)) == {1: "trained", 2: "trained", 3: "trained"}
    with registry(tmp_path) as writer:
        assert {version: writer.decision(version) for version in (1, 2, 3)} == decided
        assert (writer.undecided(), writer.champion_version()) == ([3], 1)
    assert json.loads((tmp_path / "defect-lstm/versions/2/decision.json").read_text())["kind"] == "refused"
