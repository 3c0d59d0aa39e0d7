"""The registry: versions, decisions, outbox, the lock, and a kill at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from streamer.config import SensorConfig, WindowsConfig
from trainer.errors import ArtifactError, DiskUnavailableError, RegistryError
from trainer.release import DatasetInfo, Manifest, Registry, RegistryConfig, write_artifact
from trainer.release.registry.event import Decision, ModelEvent

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def model(version: int, model_name: str = "defect-lstm") -> bytes:
    """A model file whose weights tell its version."""
    manifest = Manifest(
        model_name=model_name,
        version=version,
        created_at=AT,
        architecture={},
        sensors=(SensorConfig(name="mold_level", unit="mm"),),
        period_ms=1000,
        window=WindowsConfig(),
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )
    return write_artifact({"w": np.full(8, version, dtype=np.float32)}, manifest)


def registry(path: Path, keep: int = 50, keep_refused: int = 20) -> Registry:
    config = RegistryConfig(path=path, keep=keep, keep_refused=keep_refused)
    return Registry(config, now=lambda: AT)


def states(of: Registry) -> dict[int, str]:
    return {entry.version: entry.state for entry in of.models()}


def told(event: ModelEvent) -> Decision:
    """The decision that an event tells of."""
    return Decision.model_validate(event.model_dump())


def test_an_empty_registry_reads_as_empty_and_is_not_made_by_reading(tmp_path: Path) -> None:
    reader = registry(tmp_path)
    assert (reader.models(), reader.champion(), reader.outbox(), reader.next_version()) == ([], None, [], 1)
    assert list(tmp_path.iterdir()) == []


def test_a_promoted_version_is_the_champion_and_a_refused_one_keeps_its_entry(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1), files={"metrics.csv": b"epoch,loss\n"})
        assert writer.champion() is None
        assert writer.undecided() == [1]
        writer.promote(1, ["good"])
        writer.register(model(2))
        writer.refuse(2, ["lower bound -0.2"], {"lower": -0.2})
        assert writer.undecided() == []
    reader = registry(tmp_path)
    first, second = reader.models()
    assert (first.version, first.state, first.is_champion, first.reasons) == (1, "promoted", True, ("good",))
    assert (second.version, second.state, second.is_champion) == (2, "refused", False)
    assert second.reasons == ("lower bound -0.2",)
    assert (first.folder / "metrics.csv").read_bytes() == b"epoch,loss\n"
    champion = reader.champion()
    assert champion is not None
    assert champion.manifest.version == 1
    assert reader.model_file(1) == model(1)
    assert [(event.kind, event.version) for event in reader.events()] == [
        ("trained", 1),
        ("promoted", 1),
        ("trained", 2),
        ("refused", 2),
    ]


def test_the_outbox_holds_each_decision_until_it_is_confirmed_also_over_a_restart(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        promoted = writer.promote(1)
    with registry(tmp_path) as writer:
        assert [event.kind for event in writer.outbox()] == ["trained", "promoted"]
        assert told(writer.outbox()[1]) == promoted == writer.decision(1)
        assert promoted.update_ce_id not in (None, promoted.ce_id)
        for event in writer.outbox():
            writer.confirm(event)
    assert registry(tmp_path).outbox() == []
    assert states(registry(tmp_path)) == {1: "promoted"}


def test_only_one_process_writes_and_the_other_is_told_where(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        with pytest.raises(RegistryError, match=rf"{tmp_path}/defect-lstm: another trainer \(process \d+\)"):
            registry(tmp_path).open()
        assert states(registry(tmp_path)) == {1: "trained"}
        other_name = Registry(RegistryConfig(path=tmp_path, model_name="other"))
        other_name.open().close()
    registry(tmp_path).open().close()


def test_writing_needs_the_lock(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
    for write in (lambda: writer.register(model(2)), lambda: writer.promote(1), lambda: writer.refuse(1, [])):
        with pytest.raises(RegistryError, match="opened for reading"):
            write()


def test_a_version_is_decided_once(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        writer.refuse(1, ["worse"])
        with pytest.raises(RegistryError, match="version 1 cannot be promoted: it is refused"):
            writer.promote(1)
        with pytest.raises(RegistryError, match="version 7 cannot be refused: it is not in the registry"):
            writer.refuse(7, ["worse"])


def test_a_model_of_another_name_or_number_is_not_registered(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        with pytest.raises(RegistryError, match=r"expected defect-lstm version 1, .* version 2"):
            writer.register(model(2))
        with pytest.raises(RegistryError, match="says other version 1"):
            writer.register(model(1, "other"))
        with pytest.raises(ArtifactError):
            writer.register(b"not a model")
        with pytest.raises(RegistryError, match="not the name of a file"):
            writer.register(model(1), files={"../metrics.csv": b""})
        assert (writer.models(), writer.outbox()) == ([], [])
        assert writer.register(model(1)) == 1


def test_old_versions_are_removed_but_never_the_champion_or_a_number_used_again(tmp_path: Path) -> None:
    with registry(tmp_path, keep=2, keep_refused=2) as writer:
        for version in range(1, 6):
            writer.register(model(version))
            if version == 1:
                writer.promote(1)
            else:
                writer.refuse(version, ["worse"])
            for event in writer.outbox():
                writer.confirm(event)
        assert states(writer) == {1: "promoted", 4: "refused", 5: "refused"}
        assert writer.next_version() == 6
        assert len(writer.events()) == 10


@pytest.mark.parametrize(
    ("name", "torn", "read"),
    [
        ("versions/1/manifest.json", lambda data: data[: len(data) // 2], Registry.models),
        ("versions/1/manifest.json", lambda _: b"{}", Registry.models),
        ("champion.json", lambda _: b"", Registry.champion),
        ("champion.json", lambda _: b'{"version": "x"}', Registry.champion),
        ("events.jsonl", lambda data: b"{...\n" + data, Registry.events),
        ("events.jsonl", lambda _: b"[]\n", Registry.open),
        ("outbox/0000000001.json", lambda data: data[:10], Registry.open),
        ("versions/1/decision.json", lambda data: data[:10], Registry.models),
        ("versions/1/decision.json", lambda _: b"{}", Registry.undecided),
        ("registry.json", lambda _: b"{}", Registry.open),
    ],
)
def test_a_torn_file_is_named(
    tmp_path: Path, name: str, torn: Callable[[bytes], bytes], read: Callable[[Registry], object]
) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        writer.promote(1)
    path = tmp_path / "defect-lstm" / name
    path.write_bytes(torn(path.read_bytes()))
    with pytest.raises(RegistryError, match=str(path)):
        read(registry(tmp_path))


def test_a_damaged_model_file_is_named(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        writer.promote(1)
    path = tmp_path / "defect-lstm/versions/1/model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match=f"{path}: "):
        registry(tmp_path).champion()


def test_a_registry_that_a_newer_version_writes_to_is_not_opened(tmp_path: Path) -> None:
    registry(tmp_path).open().close()
    path = tmp_path / "defect-lstm/registry.json"
    path.write_text(path.read_text().replace('"format":1', '"format":2'))
    with pytest.raises(RegistryError, match=f"{path}: format 2, this version knows 1: a newer castloop"):
        registry(tmp_path).open()


def test_a_manifest_in_the_registry_whose_threshold_was_changed_is_named(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
    path = tmp_path / "defect-lstm/versions/1/manifest.json"
    path.write_text(path.read_text().replace('"threshold":0.5', '"threshold":0.9'))
    with pytest.raises(RegistryError, match=f"{path}: manifest: its digest is"):
        registry(tmp_path).models()


def test_a_manifest_from_before_there_was_a_digest_is_read(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
    path = tmp_path / "defect-lstm/versions/1/manifest.json"
    fields = json.loads(path.read_text())
    assert fields.pop("manifest_sha256")
    path.write_text(json.dumps(fields))
    assert registry(tmp_path).manifest(1).threshold == 0.5


def test_a_champion_whose_files_are_gone_is_named(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        writer.promote(1)
    path = tmp_path / "defect-lstm/versions/1/model.safetensors"
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{path}: it is missing"):
        registry(tmp_path).champion()
    with pytest.raises(RegistryError, match=f"{path}: it is missing"):
        registry(tmp_path).model_file(1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DiskUnavailableError, match="file/defect-lstm: making the folder failed: Not a directory"
    ):
        registry(tmp_path / "file").open()


def test_what_a_kill_left_half_done_is_completed_or_never_was(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1))
        promoted = writer.promote(1)
        writer.register(model(2))
    folder = tmp_path / "defect-lstm"
    # Killed after the promotion was in the outbox: neither log nor pointer know of it; the line is torn.
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text(lines[0] + lines[1][:20])
    (folder / "champion.json").unlink()
    (folder / "versions/1/decision.json").unlink()
    # Killed while the files of version 2 were written.
    (folder / "versions/2").rename(folder / "versions/.tmp-2")
    (folder / "versions/.tmp-2/model.safetensors").write_bytes(b"half")
    (folder / "numbers.json").write_text('{"last_version": 1}')
    (folder / ".tmp-champion.json").write_text('{"ver')

    assert states(registry(tmp_path)) == {1: "trained"}
    with registry(tmp_path) as writer:
        assert states(writer) == {1: "promoted"}
        assert writer.champion_version() == 1
        assert [event.kind for event in writer.outbox()] == ["trained", "promoted"]
        assert told(writer.outbox()[1]) == promoted == writer.decision(1)
        assert writer.events() == writer.outbox()
        assert writer.next_version() == 2
        assert not [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]
        assert writer.register(model(2)) == 2


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_release_registry import model, registry
with registry(Path(sys.argv[1]), keep=5, keep_refused=5) as writer:
    for version in writer.undecided():
        writer.refuse(version, ["killed before"])
    print("ready", flush=True)
    while True:
        version = writer.register(model(writer.next_version()))
        writer.promote(version) if version % 2 else writer.refuse(version, ["even"])
        for event in writer.outbox():
            print(event.ce_id, flush=True)
            writer.confirm(event)
"""


def test_a_kill_at_any_moment_leaves_a_registry_that_reads_and_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    told: list[str] = []
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        told += [child.stdout.readline().strip() for _ in range(rng.integers(3, 12))]
        time.sleep(rng.uniform(0.0, 0.005))
        os.kill(child.pid, signal.SIGKILL)
        told += child.communicate()[0].split()
        reader = registry(tmp_path)
        assert all(
            reader.artifact(entry.version).manifest.version == entry.version for entry in reader.models()
        )
        reader.champion()
    with registry(tmp_path) as writer:
        events = writer.events()
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        assert {event.ce_id for event in events} >= set(told)
        assert writer.next_version() == 1 + max(event.version for event in events)
        last_promoted = max(event.version for event in events if event.kind == "promoted")
        champion = writer.champion()
        assert champion is not None
        assert champion.tensors["w"][0] == champion.manifest.version == last_promoted


def test_the_log_is_one_json_object_a_line(tmp_path: Path) -> None:
    with registry(tmp_path) as writer:
        writer.register(model(1), details={"epochs": 7})
    line = json.loads((tmp_path / "defect-lstm/events.jsonl").read_text())
    assert (line["kind"], line["version"], line["details"]) == ("trained", 1, {"epochs": 7})
    assert line["at"] == "2026-11-22T10:00:00Z"
