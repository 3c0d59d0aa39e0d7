"""A registry that the topics are ahead of: it publishes nothing, or goes on behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_registry_decisions import Killed, killed_at, seen, with_a_champion_and
from test_release_registry import model, registry, states

from trainer.errors import ArtifactError, RegistryBehindError
from trainer.release import Registry
from trainer.release.publish.head import Head, adopt, require_abreast

# The topics know of version 9, which was refused; version 7 is in use.
AHEAD = Head(version=9, cycle=12, model=model(7), model_version=7)


def restored(path: Path) -> None:
    """An older copy: version 1 serves, version 2 was promoted and not published."""
    with registry(path) as writer:
        with_a_champion_and(register=2)(writer)
        writer.promote(2)


def test_a_registry_abreast_of_the_topics_or_ahead_of_them_may_publish(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        require_abreast(writer, Head())
        with_a_champion_and(register=2)(writer)
        for version in (1, 2):
            require_abreast(writer, Head(version=version, ids=told(writer, version)))


def told(writer: Registry, version: int) -> frozenset[str]:
    """What the topics have of a version once it was published from here."""
    return frozenset(event.ce_id for event in writer.events() if event.version == version)


def test_a_version_that_another_registry_has_told_of_is_refused_as_well(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=2)(writer)
        with pytest.raises(RegistryBehindError, match="version 2 on the topics is not the one that it holds"):
            require_abreast(writer, Head(version=2, ids=frozenset(["of another registry"])))


def test_a_registry_behind_the_topics_is_refused_with_the_mend(tmp_path: Path) -> None:
    restored(tmp_path)
    with registry(tmp_path) as writer, pytest.raises(RegistryBehindError) as told:
        require_abreast(writer, AHEAD)
    assert str(told.value) == (
        f"{tmp_path}/defect-lstm: it ends at version 2, the topics know of version 9 of defect-lstm: it was restored "
        "from an older copy, or is another folder. Point registry.path to the right one, or start once with --adopt "
        "to go on behind version 9"
    )


def test_adopting_takes_the_model_in_use_in_and_goes_on_behind_the_topics(tmp_path: Path) -> None:
    restored(tmp_path)
    with registry(tmp_path) as writer:
        adopt(writer, AHEAD)
        require_abreast(writer, AHEAD)
        assert (writer.champion_version(), writer.model_file(7)) == (7, model(7))
        assert states(writer) == {1: "promoted", 2: "promoted", 7: "promoted"}
        assert (writer.outbox(), writer.undecided(), writer.next_version()) == ([], [], 10)
    with registry(tmp_path) as writer:
        assert (writer.champion_version(), writer.register(model(10))) == (7, 10)


def test_a_second_adopting_changes_nothing(tmp_path: Path) -> None:
    restored(tmp_path)
    for _ in range(2):
        with registry(tmp_path) as writer:
            adopt(writer, AHEAD)
            adopt(writer, AHEAD)
            events = writer.events()
    assert [(event.kind, event.version) for event in events].count(("promoted", 7)) == 1
    with registry(tmp_path) as writer:
        writer.register(model(10))
        writer.promote(10)
        before = seen(tmp_path)
        adopt(writer, AHEAD)
    assert seen(tmp_path) == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_in_the_middle_of_adopting_is_made_good_by_adopting_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    restored(tmp_path / "whole")
    with registry(tmp_path / "whole") as writer, killed_at(0, monkeypatch, after=after) as steps:
        adopt(writer, AHEAD)
    done = seen(tmp_path / "whole")
    for step in range(1, len(steps) + 1):
        path = tmp_path / str(step)
        restored(path)
        with registry(path) as writer, killed_at(step, monkeypatch, after=after), pytest.raises(Killed):
            adopt(writer, AHEAD)
        with registry(path) as writer:
            assert writer.undecided() == [], steps[:step]  # nothing that the trainer would refuse
            adopt(writer, AHEAD)
        assert seen(path) == done, steps[:step]


def test_a_number_that_was_raised_before_does_not_keep_the_model_out(tmp_path: Path) -> None:
    restored(tmp_path)
    with registry(tmp_path) as writer:
        writer.raise_version(9)  # Redis knows it as well, and is asked first
        adopt(writer, AHEAD)
        assert (writer.champion_version(), writer.next_version(), writer.outbox()) == (7, 10, [])


def test_a_new_registry_takes_the_model_in_use_in(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        adopt(writer, Head(version=7, model=model(7), model_version=7))
        assert (writer.champion_version(), writer.next_version()) == (7, 8)


def test_topics_that_know_of_no_model_give_numbers_only(tmp_path: Path) -> None:
    restored(tmp_path)
    with registry(tmp_path) as writer:
        adopt(writer, Head(version=9))
        assert (writer.champion_version(), writer.next_version(), writer.outbox()) == (2, 10, [])


def test_a_registry_ahead_of_the_topics_keeps_its_champion_and_its_outbox(tmp_path: Path) -> None:
    restored(tmp_path)
    before = seen(tmp_path)
    for version in (0, 2):
        with registry(tmp_path) as writer:
            adopt(writer, Head(version=version, ids=told(writer, version), model=model(1), model_version=1))
        assert seen(tmp_path) == before


def test_another_model_of_the_same_number_stays_and_numbers_go_on(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with_a_champion_and(register=2)(writer)
        writer.refuse(2, ["worse"])
        adopt(writer, Head(version=4, model=model(2)[:-4], model_version=2))
        assert (states(writer), writer.champion_version()) == ({1: "promoted", 2: "refused"}, 1)
        assert writer.next_version() == 5


def test_a_damaged_model_in_the_topic_is_not_taken_in(tmp_path: Path) -> None:
    restored(tmp_path)
    with registry(tmp_path) as writer:
        with pytest.raises(ArtifactError):
            adopt(writer, Head(version=7, model=model(7)[:-4], model_version=7))
        assert (writer.champion_version(), writer.next_version()) == (2, 3)
