"""Which frozen data sets are kept in Redis, and for how long: retention leaves their casts alone."""

from __future__ import annotations

from collections.abc import Collection

from trainer.data.dataset import NEXT, OWNER, DatasetManifest
from trainer.data.source import WindowSource


def held_as(owner: str, dataset_id: str) -> str:
    """The name under which an owner holds the casts of a data set."""
    return f"{owner}/{dataset_id}"


def keep(reader: WindowSource, manifest: DatasetManifest, *, owner: str = OWNER) -> None:
    """Keeps a manifest in Redis under its id, and holds its casts there, until `let_go`.

    Raises:
        StoreUnavailableError: Redis does not answer; call again.
    """
    reader.holds.hold(held_as(owner, manifest.id), manifest.casts)
    reader.save_manifest(manifest.id, manifest.model_dump_json().encode())
    reader.holds.release(held_as(owner, NEXT))


def let_go(
    reader: WindowSource, keep_ids: Collection[str], num_kept: int, *, owner: str = OWNER
) -> list[str]:
    """Lets go of the older data sets of an owner: retention may take their casts, and their manifests go.

    Args:
        keep_ids: Data sets that stay, whatever their age.
        num_kept: How many of the newest others stay.

    Returns:
        Ids of the data sets that were let go.

    Raises:
        StoreUnavailableError: Redis does not answer; call again.
    """
    ids = [name.removeprefix(f"{owner}/") for name in reader.holds.holders() if name.startswith(f"{owner}/")]
    others = [dataset_id for dataset_id in ids if dataset_id not in {NEXT, *keep_ids}]
    old = others[: max(0, len(others) - num_kept)]
    for dataset_id in old:
        reader.holds.release(held_as(owner, dataset_id))
        if not any(name.endswith(f"/{dataset_id}") for name in reader.holds.holders()):
            reader.drop_manifest(dataset_id)
    return old
