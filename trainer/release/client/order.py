"""Which updates of the log a subscriber takes. No network, no clock.

log      v1   v3   v3   v2   v1, rollback   v2   v3, other inputs
taken    v1   v3    -    -   v1             v2    -
               repeated, older                    other_inputs
"""

from __future__ import annotations

from collections import deque

from trainer.release.client.artifact import Manifest
from trainer.release.client.inputs import ModelInputs
from trainer.release.client.results import SkipReason

# A repeat comes within the few updates that one restart sends again. Smaller than that: a model is swapped
# twice. Larger: memory, at about 100 bytes each.
REMEMBERED_IDS = 10_000


class UpdateOrder:
    """Takes each update once, none that is older than what it took, and none that wants other inputs.

    It keeps nothing over a restart: the log, judged from its beginning, gives the same newest update again.

    Args:
        inputs: What each model must want; None: what the first of its name that was handed out wants.
    """

    def __init__(self, inputs: ModelInputs | None = None) -> None:
        self._inputs = inputs
        self._wanted: dict[str, ModelInputs] = {}
        self._versions: dict[str, int] = {}
        self._seen: deque[str] = deque(maxlen=REMEMBERED_IDS)

    def has_seen(self, ce_id: str) -> bool:
        """Whether an update of this id was judged before."""
        return ce_id in self._seen

    def judge(self, manifest: Manifest, ce_id: str, *, is_rollback: bool) -> tuple[SkipReason, str] | None:
        """Takes an update, or says why not.

        Returns:
            None if it is taken; else the reason, and what is wrong in words.
        """
        self._seen.append(ce_id)
        name, version = manifest.model_name, manifest.version
        newest = self._versions.get(name)
        if newest is not None and version <= newest and not is_rollback:
            return "older", f"version {version} comes after version {newest} and is no rollback"
        wanted = self._inputs or self._wanted.get(name)
        differences = wanted.differences(manifest.inputs) if wanted else []
        if differences:
            return "other_inputs", f"it wants other inputs: {'; '.join(differences)}; the old model is kept"
        self._versions[name] = version
        return None

    def hand_out(self, manifest: Manifest) -> None:
        """Notes that a taken model is in use from now on: later ones of its name want what it wants."""
        self._wanted.setdefault(manifest.model_name, manifest.inputs)
