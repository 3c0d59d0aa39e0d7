"""The folders of the versions, one each, and what stands in them.

versions/<version>/
  model.safetensors   the model file
  manifest.json       its manifest, for whoever needs no weights
  training.json       how its training went
  decision.json       what became of it; missing until it is decided
  judged.safetensors  what the gate looked at, where that is not the model file to the bit
  ...                 what the cycle adds (metrics.csv, dataset.json)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer import disk
from trainer.errors import ArtifactError, RegistryError
from trainer.release.client.artifact import Artifact, Manifest, check_manifest, read_artifact
from trainer.release.registry.event import Decision, Kind

MODEL_FILE = "model.safetensors"
JUDGED_FILE = "judged.safetensors"
MANIFEST_FILE = "manifest.json"
TRAINING_FILE = "training.json"
DECISION_FILE = "decision.json"


class Versions:
    """Reads and writes the folders of the versions; a version is there with all its files or not at all.

    Args:
        folder: Of one model.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "versions"

    def folder(self, version: int) -> Path:
        """Where the files of a version lie."""
        return self._folder / str(version)

    def recover(self) -> None:
        """Makes the folder, and removes what a kill left unfinished; only the holder of the lock may call it."""
        disk.make_folder(self._folder)
        disk.remove_temporary(self._folder)

    def numbers(self) -> list[int]:
        """All versions on disk, the oldest first."""
        with disk.map_disk_errors("reading", self._folder):
            if not self._folder.is_dir():
                return []
            return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def write(self, version: int, files: Mapping[str, bytes]) -> None:
        """Adds a version."""
        disk.write_folder(self.folder(version), files)

    def remove(self, version: int) -> None:
        """Removes a version."""
        disk.remove_folder(self.folder(version))

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version, without reading its weights.

        Raises:
            RegistryError: It is missing, or torn.
        """
        found = self.manifest_if_there(version)
        if found is None:
            raise RegistryError(f"{self.folder(version) / MANIFEST_FILE}: it is missing")
        return found

    def manifest_if_there(self, version: int) -> Manifest | None:
        """The same; None if the version was removed meanwhile."""
        path = self.folder(version) / MANIFEST_FILE
        fields = disk.read_json_if_there(path)
        try:
            return None if fields is None else check_manifest(fields)[0]
        except ArtifactError as exc:
            raise RegistryError(f"{path}: {exc}") from exc

    def artifact(self, version: int) -> Artifact:
        """A version, read and checked.

        Raises:
            ArtifactError: The file is damaged, or missing.
        """
        try:
            return self._read(version, MODEL_FILE, self.model_file(version))
        except RegistryError as exc:
            raise ArtifactError(str(exc)) from exc

    def judged(self, version: int) -> Artifact:
        """What the gate looked at: a version as it was fitted without the windows of the gate.

        Raises:
            ArtifactError: The file is damaged.
        """
        data = self.file(version, JUDGED_FILE)
        return self.artifact(version) if data is None else self._read(version, JUDGED_FILE, data)

    def file(self, version: int, name: str) -> bytes | None:
        """A file of a version, None if it has no such file."""
        path = self.folder(version) / name
        with disk.map_disk_errors("reading", path):
            return path.read_bytes() if path.exists() else None

    def _read(self, version: int, name: str, data: bytes) -> Artifact:
        try:
            return read_artifact(data)
        except ArtifactError as exc:
            raise ArtifactError(f"{self.folder(version) / name}: {exc}") from exc

    def model_file(self, version: int) -> bytes:
        """The model file of a version as it was registered.

        Raises:
            RegistryError: It is missing.
        """
        path = self.folder(version) / MODEL_FILE
        with disk.map_disk_errors("reading", path):
            try:
                return path.read_bytes()
            except FileNotFoundError as exc:
                raise RegistryError(f"{path}: it is missing") from exc

    def training(self, version: int) -> dict[str, Any]:
        """How the training of a version went; empty for one that was registered without."""
        return disk.read_json_if_there(self.folder(version) / TRAINING_FILE) or {}

    def decision(self, version: int) -> Decision | None:
        """What became of a version, None as long as it is not decided."""
        path = self.folder(version) / DECISION_FILE
        fields = disk.read_json_if_there(path)
        try:
            return None if fields is None else Decision.model_validate(fields)
        except ValidationError as exc:
            raise RegistryError(f"{path}: not a decision: {exc}") from exc

    def decide(self, version: int, decision: Decision) -> None:
        """Writes down what became of a version."""
        disk.write_file(self.folder(version) / DECISION_FILE, decision.model_dump_json().encode())

    def states(self) -> dict[int, Kind]:
        """What became of each version, the oldest first."""
        decisions = {version: self.decision(version) for version in self.numbers()}
        return {version: each.kind if each else "trained" for version, each in decisions.items()}
