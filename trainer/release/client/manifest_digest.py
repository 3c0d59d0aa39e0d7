"""The digest over a whole manifest, as it stands in the file: changed figures are noticed like changed weights.

It covers keys that this reader does not know, and through `weights_sha256` the tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from trainer.errors import ArtifactError

DIGEST = "manifest_sha256"


def json_with_digest(fields: Mapping[str, Any]) -> str:
    """A manifest with its digest, as JSON with sorted keys: the same manifest gives the same string."""
    return _canonical({**_without_digest(fields), DIGEST: _digest(fields)})


def check_digest(fields: Mapping[str, Any], known: Collection[str]) -> bool:
    """Checks the digest of a manifest.

    Args:
        fields: The manifest as parsed.
        known: The keys that writers without a digest wrote.

    Returns:
        Whether there is one; files from before there was a digest have none.

    Raises:
        ArtifactError: It does not match, or it is missing beside keys of a later writer.
    """
    if DIGEST not in fields:
        # Else a damaged name of the key would turn a file with a digest into one from before.
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ArtifactError(
                f"manifest: no {DIGEST}, but keys of a later writer ({', '.join(unknown)}): the file was changed "
                "or damaged"
            )
        return False
    digest = _digest(fields)
    if fields[DIGEST] != digest:
        raise ArtifactError(
            f"manifest: its digest is {digest[:12]}, it says {str(fields[DIGEST])[:12]}: thresholds, sensors, "
            "window or another field were changed or damaged"
        )
    return True


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(_without_digest(fields)).encode()).hexdigest()


def _without_digest(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != DIGEST}


def _canonical(fields: Mapping[str, Any]) -> str:
    try:
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except RecursionError as exc:
        raise ArtifactError("manifest: nested too deeply") from exc
