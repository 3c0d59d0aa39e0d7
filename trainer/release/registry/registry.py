"""Writes to the registry of one model; what lies where stands in `trainer.release.registry.reader`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from trainer import disk
from trainer.errors import DiskUnavailableError, RegistryError
from trainer.release.client.artifact import manifest_json, read_artifact
from trainer.release.registry.config import RegistryConfig
from trainer.release.registry.event import Decision, Kind, ModelEvent, Verdict
from trainer.release.registry.reader import Identity, RegistryReader
from trainer.release.registry.retention import surplus
from trainer.release.registry.versions import DECISION_FILE, MANIFEST_FILE, MODEL_FILE, TRAINING_FILE


class Registry(RegistryReader):
    """The registry of one model name. Reading needs no lock; writing needs `open`, or a `with` block.

    A kill or a power cut at any moment leaves the state before or after each call. A file that is torn
    nevertheless (a bad disk, an editor) is a `RegistryError` that names it; a disk that does not take a write is a
    `DiskUnavailableError`, and the same call may be repeated.

    Args:
        config: Where, and of which model.
        now: The clock, for the times in events.
    """

    def __init__(
        self, config: RegistryConfig, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(config)
        self._config = config
        self._now = now
        self._lock: int | None = None

    def open(self) -> Self:
        """Takes the lock and completes what an earlier process left undone.

        Raises:
            RegistryLockedError: Another trainer on this machine writes here.
            RegistryError: A file is torn, or a newer version wrote it.
            DiskUnavailableError: The folder cannot be written.
        """
        if self._lock is None:
            self._lock = disk.lock_exclusively(self.folder / "lock")
            try:
                self._versions.recover()
                if disk.read_json_if_there(self._identity_file) is None:
                    self._write_identity()
                self.identity()
                self._decisions.recover(self._versions.numbers())
                self._complete_decisions()
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

    def register(
        self,
        data: bytes,
        *,
        files: Mapping[str, bytes] | None = None,
        training: bytes = b"{}",
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """Adds a trained model, not yet decided, and queues its `trained` event.

        Args:
            data: The model file; its manifest bears this model name and `next_version`.
            files: More files for its folder, such as metrics.csv, by name.
            training: How the training went: a JSON object.
            details: More figures for the event; JSON values.

        Raises:
            ArtifactError: The model file is not one.
            RegistryError: Another name or version, or a name that no file of a version may have.
            DiskUnavailableError: The disk does not take it; nothing was registered.
        """
        self._require_lock()
        manifest = read_artifact(data).manifest
        version = self.next_version()
        if (manifest.model_name, manifest.version) != (self.model_name, version):
            raise RegistryError(
                f"{self.folder}: expected {self.model_name} version {version}, the model file says "
                f"{manifest.model_name} version {manifest.version}"
            )
        event = self._new_event("trained", version, details)
        own = {MODEL_FILE: data, MANIFEST_FILE: manifest_json(manifest).encode(), TRAINING_FILE: training}
        # Killed between the two, the version has an event and no files: `Decisions.recover` drops the event.
        try:
            self._decisions.put(event)
            self._versions.write(version, {**(files or {}), **own})
        except (DiskUnavailableError, RegistryError):
            self._decisions.drop(event)
            raise
        self.raise_version(version)
        self._decisions.apply(event)
        return version

    def decide(self, version: int, decision: Decision, details: Mapping[str, Any] | None = None) -> None:
        """Carries a decision out, and queues its event, with a promotion its model update as well.

        The same decision once more changes nothing, wherever the first time was cut off.

        Raises:
            RegistryError: There is no such version, or another decision stands.
        """
        self._require_lock()
        if version not in self._versions.numbers():
            raise RegistryError(
                f"{self.folder}: version {version} cannot be {decision.kind}: it is not in the registry"
            )
        if standing := self.decision(version):
            if standing.ce_id == decision.ce_id:
                return
            raise RegistryError(
                f"{self.folder}: version {version} cannot be {decision.kind}: it is {standing.kind}"
            )
        event = next((each for each in self.outbox() if each.ce_id == decision.ce_id), None)
        if event is None:
            event = self._new_event(decision.kind, version, details, decision)
            self._decisions.put(event)
        self._decisions.apply(event)
        self._versions.decide(version, decision)
        self._prune()

    def promote(
        self, version: int, reasons: Sequence[str] = (), details: Mapping[str, Any] | None = None
    ) -> Decision:
        """Makes a trained version the champion."""
        return self._decide_now("promoted", version, reasons, details)

    def refuse(
        self, version: int, reasons: Sequence[str], details: Mapping[str, Any] | None = None
    ) -> Decision:
        """Records that a trained version is not good enough; the champion stays."""
        return self._decide_now("refused", version, reasons, details)

    def tell_failed(self, ce_id: str, reasons: Sequence[str], details: Mapping[str, Any]) -> None:
        """Queues the event of a cycle that failed; the same one once more changes nothing while it waits."""
        self._require_lock()
        if any(event.ce_id == ce_id for event in self.outbox()):
            return
        event = ModelEvent(
            seq=self._decisions.next_seq(),
            kind="failed",
            version=None,
            at=self._now(),
            ce_id=ce_id,
            reasons=tuple(reasons),
            details=dict(details),
        )
        self._decisions.put(event)
        self._decisions.apply(event)

    def confirm(self, event: ModelEvent) -> None:
        """Takes an event out of the outbox: the broker has acknowledged all its records."""
        self._require_lock()
        self._decisions.apply(event)  # not yet, if the disk was full when it was decided
        self._decisions.drop(event)

    def raise_version(self, version: int, *, adopted: bool = False) -> None:
        """Makes sure that the next version is higher than this one.

        Args:
            adopted: All up to it were told of by another registry, and this one goes on behind them.
        """
        self._require_lock()
        numbers = self._numbers()
        raised = numbers.raised(version, adopted=adopted)
        if raised != numbers:
            disk.write_file(self._numbers_file, raised.model_dump_json().encode())

    def adopt(self, data: bytes) -> int:
        """Takes a published model in as the champion, as it is on the topic; nothing is published.

        Returns:
            Its version.

        Raises:
            ArtifactError: The model file is damaged.
            RegistryError: It is of another model name, there is another model of its version, or a later champion.
            DiskUnavailableError: The disk does not take it; call again.
        """
        self._require_lock()
        manifest = read_artifact(data).manifest
        version, champion = manifest.version, self.champion_version() or 0
        is_there = version in self._versions.numbers()
        is_other = is_there and self.model_file(version) != data
        if manifest.model_name != self.model_name or is_other or version < champion:
            raise RegistryError(
                f"{self.folder}: {manifest.model_name} version {version} cannot be taken in: the registry is of "
                f"{self.model_name}, its champion is version {champion}"
                f"{', and its model of this version another' if is_other else ''}"
            )
        # Without the id of an update: it is in the topic.
        decision = Decision.new("promoted", ("taken in from the topic",), self._now(), is_published=True)
        event = self._new_event("promoted", version, None, decision)
        own = {MODEL_FILE: data, MANIFEST_FILE: manifest_json(manifest).encode()}
        # As in `register`: killed between the two, it never was; killed later, `Decisions.recover` completes it.
        try:
            self._decisions.put(event)
            if not is_there:
                self._versions.write(version, {**own, DECISION_FILE: decision.model_dump_json().encode()})
        except DiskUnavailableError:
            self._decisions.drop(event)
            raise
        self._versions.decide(version, decision)
        self.raise_version(version)
        self.confirm(event)
        return version

    def _decide_now(
        self, kind: Verdict, version: int, reasons: Sequence[str], details: Mapping[str, Any] | None
    ) -> Decision:
        decision = Decision.new(kind, tuple(reasons), self._now())
        self.decide(version, decision, details)
        return decision

    def _new_event(
        self,
        kind: Kind,
        version: int,
        details: Mapping[str, Any] | None,
        decision: Decision | None = None,
    ) -> ModelEvent:
        return ModelEvent(
            seq=self._decisions.next_seq(),
            kind=kind,
            version=version,
            at=decision.at if decision else self._now(),
            ce_id=decision.ce_id if decision else str(uuid.uuid4()),
            update_ce_id=decision.update_ce_id if decision else None,
            reasons=decision.reasons if decision else (),
            details=dict(details or {}),
        )

    def _complete_decisions(self) -> None:
        """Versions whose decision stands in the log alone: of a kill, or from before there were such files."""
        undecided = self.undecided()
        for version, decision in (self._logged_decisions() if undecided else {}).items():
            if version in undecided:
                self._versions.decide(version, decision)

    def _prune(self) -> None:
        needed = {self.champion_version(), *(event.version for event in self.outbox())}
        kept = {"keep": self._config.keep, "keep_refused": self._config.keep_refused}
        for version in surplus(self._versions.states(), {each for each in needed if each}, **kept):
            self._versions.remove(version)

    def _write_identity(self) -> None:
        identity = Identity(id=str(uuid.uuid4()), created_at=self._now())
        disk.write_file(self._identity_file, identity.model_dump_json().encode())

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RegistryError(f"{self.folder}: opened for reading; use `with registry:` to write")
