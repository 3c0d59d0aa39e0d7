"""What a registry says: every version of one model on disk, which of them is the champion, what is to be published.

<path>/<model_name>/
  registry.json         names this registry, wherever it is copied or mounted
  numbers.json          the highest version ever, so that a number is never used twice
  versions/<version>/   see `trainer.release.registry.versions`
  outbox/<seq>.json     what was decided and is not yet confirmed by the broker
  events.jsonl          what happened, one line each, for people; events.1.jsonl is the part before
  champion.json         which version serves
  lock                  held by the one trainer that writes
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from trainer import disk
from trainer.errors import RegistryError
from trainer.release.client.artifact import Artifact, Manifest
from trainer.release.registry.config import RegistryConfig
from trainer.release.registry.decisions import Decisions
from trainer.release.registry.event import Decision, Kind, ModelEvent
from trainer.release.registry.versions import Versions

# Raised when an older reader could not understand what this one writes.
FORMAT = 1


class Identity(BaseModel):
    """Which registry this is.

    Attributes:
        format: Of the files.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    created_at: AwareDatetime
    format: int = Field(FORMAT, ge=1)


class Numbers(BaseModel):
    """What must not be forgotten when versions are removed.

    Attributes:
        last_version: The highest that was registered, or that there is elsewhere.
        adopted: Up to here the topics tell of versions of another registry.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    last_version: int = Field(0, ge=0)
    adopted: int = Field(0, ge=0)

    def raised(self, version: int, *, adopted: bool) -> Numbers:
        """With a version that there is."""
        return Numbers(
            last_version=max(self.last_version, version),
            adopted=max(self.adopted, version) if adopted else self.adopted,
        )


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


class RegistryReader:
    """Reads the registry of one model name, also beside the one that writes to it.

    A file that is torn (a bad disk, an editor) is a `RegistryError` that names it.

    Args:
        config: Where, and of which model.
    """

    def __init__(self, config: RegistryConfig) -> None:
        self.model_name = config.model_name
        self.folder = config.path / config.model_name
        self._versions = Versions(self.folder)
        self._decisions = Decisions(self.folder)
        self._identity_file = self.folder / "registry.json"
        self._numbers_file = self.folder / "numbers.json"

    def identity(self) -> Identity:
        """Which registry this is.

        Raises:
            RegistryError: Nobody has opened it yet, or a newer version has.
        """
        fields = disk.read_json(self._identity_file)
        try:
            identity = Identity.model_validate(fields)
        except ValidationError as exc:
            raise RegistryError(f"{self._identity_file}: {exc}") from exc
        if identity.format > FORMAT:
            raise RegistryError(
                f"{self._identity_file}: format {identity.format}, this version knows {FORMAT}: a newer castloop "
                "writes to this registry; update this one"
            )
        return identity

    def models(self) -> list[ModelEntry]:
        """All versions on disk, the oldest first; one that is removed meanwhile is left out."""
        champion, logged = self.champion_version(), dict[int, Decision]()
        if disk.read_json_if_there(self._identity_file) is None:
            logged = self._logged_decisions()  # an older castloop wrote here last
        else:
            self.identity()
        entries = (self._entry(version, champion, logged) for version in self._versions.numbers())
        return [entry for entry in entries if entry is not None]

    def undecided(self) -> list[int]:
        """Versions that were registered and neither promoted nor refused."""
        return [version for version, state in self._versions.states().items() if state == "trained"]

    def events(self) -> list[ModelEvent]:
        """What happened, as far as the log still holds it, the oldest first."""
        return self._decisions.events()

    def champion_version(self) -> int | None:
        """The version that serves, None before the first promotion."""
        return self._decisions.champion_version()

    def champion(self) -> Artifact | None:
        """The model that serves, None before the first promotion.

        Raises:
            ArtifactError: Its file is damaged.
        """
        version = self.champion_version()
        return None if version is None else self.artifact(version)

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version, without reading its weights."""
        return self._versions.manifest(version)

    def artifact(self, version: int) -> Artifact:
        """A version, read and checked.

        Raises:
            ArtifactError: Its file is damaged.
        """
        return self._versions.artifact(version)

    def judged(self, version: int) -> Artifact:
        """What the gate looked at: a version as it was fitted without the windows of the gate.

        Raises:
            ArtifactError: Its file is damaged.
        """
        return self._versions.judged(version)

    def file(self, version: int, name: str) -> bytes | None:
        """A file that was registered with a version, None if there was none of this name."""
        return self._versions.file(version, name)

    def model_file(self, version: int) -> bytes:
        """The model file of a version as it was registered."""
        return self._versions.model_file(version)

    def decision(self, version: int) -> Decision | None:
        """What became of a version, None as long as it is not decided."""
        return self._versions.decision(version)

    def training(self, version: int) -> dict[str, Any]:
        """How the training of a version went, as it was registered."""
        return self._versions.training(version)

    def trained_in(self, cycle: int) -> int | None:
        """The version that a cycle has registered and that is not decided, None if there is none."""
        for version in reversed(self.undecided()):
            if self._versions.manifest(version).cycle == cycle:
                return version
        return None

    def last_version(self) -> int:
        """The highest version that there ever was, 0 before the first."""
        told = [event.version or 0 for event in self.outbox()]
        champion = self.champion_version() or 0
        return max([self._numbers().last_version, champion, *self._versions.numbers(), *told])

    def adopted_version(self) -> int:
        """Up to which version the topics tell of another registry's, which this one goes on behind; 0: none."""
        return self._numbers().adopted

    def has_told(self, version: int, ids: Collection[str]) -> bool:
        """Whether one of these events of a version is of this registry; reads the log."""
        events = (*self.outbox(), *self.events())
        own = {(event.version, each) for event in events for each in (event.ce_id, event.update_ce_id)}
        return any((version, each) in own for each in ids)

    def next_version(self) -> int:
        """The number that the next model bears: numbers are never used twice."""
        return self.last_version() + 1

    def outbox(self) -> list[ModelEvent]:
        """What is not yet confirmed as published, in order."""
        return self._decisions.outbox()

    def _numbers(self) -> Numbers:
        fields = disk.read_json_if_there(self._numbers_file) or {}
        try:
            return Numbers.model_validate(fields)
        except ValidationError as exc:
            raise RegistryError(f"{self._numbers_file}: {exc}") from exc

    def _logged_decisions(self) -> dict[int, Decision]:
        """What the log says of versions, which may have no file that does."""
        decided = [event for event in self.events() if event.kind in ("promoted", "refused")]
        return {
            event.version: Decision.model_validate(event.model_dump()) for event in decided if event.version
        }

    def _entry(self, version: int, champion: int | None, logged: Mapping[int, Decision]) -> ModelEntry | None:
        # In this order: a version that is removed in between has lost its manifest as well.
        decision = self.decision(version) or logged.get(version)
        manifest = self._versions.manifest_if_there(version)
        if manifest is None:
            return None
        return ModelEntry(
            version=version,
            state=decision.kind if decision else "trained",
            is_champion=version == champion,
            reasons=decision.reasons if decision else (),
            manifest=manifest,
            folder=self._versions.folder(version),
        )
