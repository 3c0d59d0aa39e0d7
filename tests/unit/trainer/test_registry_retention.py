"""Which versions stay on disk: champions to go back to, whatever is refused meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_release_registry import model, registry, states

from trainer.release import Registry, RegistryConfig
from trainer.release.registry.event import Kind
from trainer.release.registry.retention import surplus
from trainer.release.registry.versions import Versions


def decide(writer: Registry, *kinds: str, confirm: bool = True) -> None:
    """Registers a version a kind, and decides it; the last ones stay in the outbox if they are not confirmed."""
    for kind in kinds:
        version = writer.register(model(writer.next_version()))
        if kind == "promoted":
            writer.promote(version)
        elif kind == "refused":
            writer.refuse(version, ["worse"])
        for event in writer.outbox() if confirm else ():
            writer.confirm(event)


# The rule


def test_each_kind_is_counted_by_itself() -> None:
    states: dict[int, Kind] = {1: "promoted", 2: "refused", 3: "promoted", 4: "refused", 5: "promoted"}
    assert surplus(states, [], keep=2, keep_refused=1) == [1, 2]
    assert surplus(states, [], keep=3, keep_refused=0) == [2, 4]
    assert surplus(states, [1, 2], keep=2, keep_refused=1) == []


KINDS = st.sampled_from(["trained", "refused", "promoted"])


@settings(deadline=None)  # other tests keep this machine busy
@given(
    st.dictionaries(st.integers(1, 60), KINDS),
    st.sets(st.integers(1, 60)),
    st.integers(2, 9),
    st.integers(0, 9),
)
def test_what_goes_is_older_than_all_of_its_kind_that_stays(
    states: dict[int, Kind], needed: set[int], keep: int, keep_refused: int
) -> None:
    gone = set(surplus(states, needed, keep=keep, keep_refused=keep_refused))
    assert not gone & needed
    assert all(states[version] != "trained" for version in gone)
    for kind, number in (("promoted", keep), ("refused", keep_refused)):
        of_kind = sorted(version for version in states if states[version] == kind)
        newest = set(of_kind[max(0, len(of_kind) - number) :])
        assert not gone & newest
        assert set(of_kind) - newest - needed <= gone


# On disk


def test_sixty_refusals_leave_the_champions_before(tmp_path: Path) -> None:
    with registry(tmp_path, keep=3, keep_refused=5) as writer:
        decide(writer, *["promoted"] * 4, *["refused"] * 60)
        left = states(writer)
        assert [version for version, state in left.items() if state == "promoted"] == [2, 3, 4]
        assert [version for version, state in left.items() if state == "refused"] == [60, 61, 62, 63, 64]
        assert (writer.champion_version(), writer.next_version()) == (4, 65)
        assert writer.artifact(2).manifest.version == 2
    with registry(tmp_path, keep=3, keep_refused=5) as writer:
        assert states(writer) == left


def test_keep_counts_promotions(tmp_path: Path) -> None:
    with registry(tmp_path, keep=2, keep_refused=20) as writer:
        decide(writer, "promoted", "refused", "promoted", "refused", "promoted", "promoted")
        assert states(writer) == {2: "refused", 4: "refused", 5: "promoted", 6: "promoted"}


def test_refused_versions_may_go_at_once_and_their_numbers_are_not_used_again(tmp_path: Path) -> None:
    with registry(tmp_path, keep_refused=0) as writer:
        decide(writer, "promoted", "refused", "refused")
        # The last one waits for Kafka until then.
        assert states(writer) == {1: "promoted", 3: "refused"}
        decide(writer, "refused")
        assert states(writer) == {1: "promoted", 4: "refused"}
    with registry(tmp_path) as writer:
        assert writer.next_version() == 5


def test_what_waits_for_kafka_and_what_is_not_decided_stays(tmp_path: Path) -> None:
    with registry(tmp_path, keep=2, keep_refused=0) as writer:
        decide(writer, *["promoted"] * 4, "refused", "trained", "refused", confirm=False)
        assert list(states(writer)) == [1, 2, 3, 4, 5, 6, 7]
        for event in writer.outbox():
            writer.confirm(event)
        decide(writer, "refused")
        assert states(writer) == {3: "promoted", 4: "promoted", 6: "trained", 8: "refused"}
        assert writer.undecided() == [6]


def test_a_champion_that_was_promoted_long_ago_stays(tmp_path: Path) -> None:
    with registry(tmp_path, keep=2, keep_refused=0) as writer:
        decide(writer, "trained", "promoted", "promoted")
        # A version that was decided late: older numbers are pruned first, but not the one that serves.
        writer.promote(1)
        for event in writer.outbox():
            writer.confirm(event)
        decide(writer, "refused")
        assert writer.champion_version() == 1
        assert 1 in states(writer)


@pytest.mark.parametrize("file", ["manifest.json", "decision.json"])
def test_a_version_that_is_removed_while_the_versions_are_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    with registry(tmp_path) as writer:
        decide(writer, "promoted", "refused", "refused")
    reader, folder = registry(tmp_path), tmp_path / "defect-lstm/versions/2"
    read_bytes = Path.read_bytes

    def pruned_meanwhile(path: Path) -> bytes:
        if path == folder / file and folder.exists():
            if file == "decision.json":
                # Just after it was read; the manifest comes next, or has come before.
                data = read_bytes(path)
                Versions(tmp_path / "defect-lstm").remove(2)
                return data
            Versions(tmp_path / "defect-lstm").remove(2)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", pruned_meanwhile)
    assert states(reader) == {1: "promoted", 3: "refused"}
    assert not folder.exists()


def test_a_version_whose_folder_is_gone_between_listing_and_reading_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(tmp_path) as writer:
        decide(writer, "promoted", "refused")
    numbers = Versions.numbers

    def listed_before(of: Versions) -> list[int]:
        return sorted({*numbers(of), 7})

    monkeypatch.setattr(Versions, "numbers", listed_before)
    reader = Registry(RegistryConfig(path=tmp_path))
    assert states(reader) == {1: "promoted", 2: "refused"}


def test_a_removal_that_a_kill_cut_off_is_completed_at_the_next_opening(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        decide(writer, "promoted", "refused", "refused")
    folder = tmp_path / "defect-lstm/versions"
    (folder / "2").rename(folder / ".tmp-2")
    (folder / ".tmp-2/manifest.json").unlink()
    assert states(registry(tmp_path)) == {1: "promoted", 3: "refused"}
    registry(tmp_path).open().close()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "3"]
