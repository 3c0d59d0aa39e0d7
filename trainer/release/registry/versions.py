"""Every version of one model on disk, which of them is the champion, and what still has to be published.

<path>/<model_name>/
  versions/<version>/   model.safetensors, manifest.json and what the cycle adds (metrics.csv, ...)
  outbox/<seq>.json     what was decided and is not yet confirmed by the broker
  events.jsonl          what happened, one line each
  champion.json         which version serves
  lock                  held by the one trainer that writes
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from trainer import disk
from trainer.errors import ArtifactError, RegistryError
from trainer.release.client.artifact import Artifact, Manifest, check_manifest, manifest_json, read_artifact
from trainer.release.registry.config import RegistryConfig
from trainer.release.registry.decisions import Journal
from trainer.release.registry.event import Kind, ModelEvent

MODEL_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One version in the registry.

    Attributes:
        state: `trained` until it is decided.
        reasons: Of the decision.
        folder: Where its files lie.
    """

    version: int
    state: Kind
    is_champion: bool
    reasons: tuple[str, ...]
    manifest: Manifest
    folder: Path


class Registry:
    """The registry of one model name. Reading needs no lock; writing needs `open`, or a `with` block.

    A kill or a power cut at any moment leaves the state before or after each call. A file that is torn
    nevertheless (a bad disk, an editor) is a `RegistryError` that names it.

    Args:
        config: Where, and of which model.
        now: The clock, for the times in events.
    """

    def __init__(
        self, config: RegistryConfig, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.model_name = config.model_name
        self.folder = config.path / config.model_name
        self._keep = config.keep
        self._now = now
        self._lock: int | None = None
        self._versions = self.folder / "versions"
        self._journal = Journal(self.folder)

    def open(self) -> Self:
        """Takes the lock and completes what an earlier process left undone.

        Raises:
            RegistryError: Another trainer writes here, the folder cannot be written, or a file is torn.
        """
        if self._lock is None:
            self._lock = disk.lock_exclusively(self.folder / "lock")
            try:
                disk.make_folder(self._versions)
                disk.remove_temporary(self._versions)
                self._journal.recover(self._numbers())
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def models(self) -> list[ModelEntry]:
        """All versions on disk, the oldest first."""
        last = {event.version: event for event in self.events()}
        champion = self.champion_version()
        return [self._entry(version, last.get(version), champion) for version in self._numbers()]

    def undecided(self) -> ModelEntry | None:
        """The newest version that was registered and neither promoted nor refused, if there is one."""
        return next((entry for entry in reversed(self.models()) if entry.state == "trained"), None)

    def events(self) -> list[ModelEvent]:
        """What happened, the oldest first."""
        return self._journal.events()

    def champion_version(self) -> int | None:
        """The version that serves, None before the first promotion."""
        return self._journal.champion_version()

    def champion(self) -> Artifact | None:
        """The model that serves, None before the first promotion."""
        version = self.champion_version()
        return None if version is None else self.artifact(version)

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version, without reading its weights."""
        path = self._versions / str(version) / MANIFEST_FILE
        try:
            return check_manifest(disk.read_json(path))[0]
        except ArtifactError as exc:
            raise RegistryError(f"{path}: {exc}") from exc

    def artifact(self, version: int) -> Artifact:
        """A version, read and checked."""
        try:
            return read_artifact(self.model_file(version))
        except ArtifactError as exc:
            raise RegistryError(f"{self._versions / str(version) / MODEL_FILE}: {exc}") from exc

    def model_file(self, version: int) -> bytes:
        """The model file of a version as it was registered."""
        path = self._versions / str(version) / MODEL_FILE
        with disk.map_disk_errors("reading", path):
            return path.read_bytes()

    def next_version(self) -> int:
        """The number that the next model bears: numbers are never used twice."""
        used = self._numbers() + [event.version for event in self.events()]
        return max(used, default=0) + 1

    def register(
        self,
        data: bytes,
        *,
        files: Mapping[str, bytes] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """Adds a trained model, not yet decided, and queues its `trained` event.

        Args:
            data: The model file; its manifest bears this model name and `next_version`.
            files: More files for its folder, such as metrics.csv, by name.
            details: More figures for the event; JSON values.

        Raises:
            ArtifactError: The model file is not one.
            RegistryError: Another name or version, or the disk does not take it.
        """
        self._require_lock()
        manifest = read_artifact(data).manifest
        version = self.next_version()
        if (manifest.model_name, manifest.version) != (self.model_name, version):
            raise RegistryError(
                f"{self.folder}: expected {self.model_name} version {version}, the model file says "
                f"{manifest.model_name} version {manifest.version}"
            )
        event = self._new_event("trained", version, (), details)
        folder = {**(files or {}), MODEL_FILE: data, MANIFEST_FILE: manifest_json(manifest).encode()}
        # Killed between the two, the version has an event and no files: `Journal.recover` drops the event.
        self._journal.put(event)
        try:
            disk.write_folder(self._versions / str(version), folder)
        except RegistryError:
            self._journal.drop(event)
            raise
        self._journal.apply(event)
        self._prune()
        return version

    def promote(
        self, version: int, reasons: Sequence[str] = (), details: Mapping[str, Any] | None = None
    ) -> ModelEvent:
        """Makes a trained version the champion, and queues its event and the model update."""
        return self._decide("promoted", version, reasons, details)

    def refuse(
        self, version: int, reasons: Sequence[str], details: Mapping[str, Any] | None = None
    ) -> ModelEvent:
        """Records that a trained version is not good enough, and queues the event; the champion stays."""
        return self._decide("refused", version, reasons, details)

    def outbox(self) -> list[ModelEvent]:
        """What is not yet confirmed as published, in order."""
        return self._journal.outbox()

    def confirm(self, event: ModelEvent) -> None:
        """Takes an event out of the outbox: the broker has acknowledged all its records."""
        self._require_lock()
        self._journal.apply(event)  # not yet, if the disk was full when it was decided
        self._journal.drop(event)

    def _decide(
        self, kind: Kind, version: int, reasons: Sequence[str], details: Mapping[str, Any] | None
    ) -> ModelEvent:
        self._require_lock()
        state = next((entry.state for entry in self.models() if entry.version == version), None)
        if state != "trained":
            raise RegistryError(
                f"{self.folder}: version {version} cannot be {kind}: it is {state or 'not in the registry'}"
            )
        event = self._new_event(kind, version, reasons, details)
        self._journal.put(event)
        self._journal.apply(event)
        return event

    def _new_event(
        self, kind: Kind, version: int, reasons: Sequence[str], details: Mapping[str, Any] | None
    ) -> ModelEvent:
        return ModelEvent(
            seq=self._journal.next_seq(),
            kind=kind,
            version=version,
            at=self._now(),
            ce_id=str(uuid.uuid4()),
            update_ce_id=str(uuid.uuid4()) if kind == "promoted" else None,
            reasons=tuple(reasons),
            details=dict(details or {}),
        )

    def _entry(self, version: int, event: ModelEvent | None, champion: int | None) -> ModelEntry:
        return ModelEntry(
            version=version,
            state=event.kind if event else "trained",
            is_champion=version == champion,
            reasons=event.reasons if event else (),
            manifest=self.manifest(version),
            folder=self._versions / str(version),
        )

    def _prune(self) -> None:
        needed = {self.champion_version(), *(event.version for event in self.outbox())}
        for version in self._numbers()[: -self._keep]:
            if version not in needed:
                disk.remove_folder(self._versions / str(version))

    def _numbers(self) -> list[int]:
        with disk.map_disk_errors("reading", self._versions):
            if not self._versions.is_dir():
                return []
            return sorted(int(path.name) for path in self._versions.iterdir() if path.name.isdecimal())

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RegistryError(f"{self.folder}: opened for reading; use `with registry:` to write")
