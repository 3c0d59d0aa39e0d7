"""Which versions of a registry may go. No clock, no disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trainer.release.registry.event import Kind


def surplus(
    states: Mapping[int, Kind], needed: Collection[int], *, keep: int, keep_refused: int
) -> list[int]:
    """Versions that may go, the oldest first; each kind is counted by itself.

    However many challengers are refused, the champions of before stay: they are what one goes back to.

    Args:
        states: What became of each version; one that is not decided stays.
        needed: Versions that stay whatever they are.
        keep: How many of the newest promoted ones stay.
        keep_refused: How many of the newest refused ones stay.
    """
    gone: list[int] = []
    for kind, number in (("promoted", keep), ("refused", keep_refused)):
        of_kind = sorted(version for version, state in states.items() if state == kind)
        gone += of_kind[: max(0, len(of_kind) - number)]
    return sorted(set(gone) - set(needed))
