"""Who holds a lease, and the error that names them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Self

from streamer.errors import RefusedError


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """One process and the registry that it writes to.

    Attributes:
        folder: The registry's folder, resolved, so that two names of one folder are one.
        registry_id: A uuid that lies in the registry: two hosts of one name do not share it.
        since_ms: When it took the lease, by Redis' clock; 0 until Redis has said so.
    """

    host: str
    pid: int
    folder: str
    registry_id: str
    since_ms: int = 0

    @property
    def place(self) -> str:
        """Who was here before is dead: the file lock of the folder lets in one process at a time."""
        return json.dumps([self.host, self.folder, self.registry_id])

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, raw: bytes | str, since_ms: int) -> Self:
        """Reads what `to_json` wrote, and leaves out what a later version of it may add."""
        held = json.loads(raw) | {"since_ms": since_ms}
        return cls(**{field.name: held[field.name] for field in fields(cls)})


class LeaseTakenError(RefusedError):
    """Somebody else holds the lease of a model name, or has held it since the caller took it.

    Attributes:
        holder: Who.
        expires_in_s: How long it stands if it is not renewed; 0 if it has ended.
        expires_at_ms: The same by Redis' clock; it moves when its holder renews.
    """

    def __init__(self, model_name: str, holder: LeaseHolder, ttl_ms: int, expires_at_ms: int) -> None:
        held = "trains it" if ttl_ms >= 0 else "has trained it meanwhile"
        super().__init__(
            f"model {model_name}: process {holder.pid} on {holder.host} {held} in {holder.folder}; "
            "stop that trainer, or give this one another registry.model_name"
        )
        self.holder = holder
        self.expires_in_s = max(0, ttl_ms) / 1000
        self.expires_at_ms = expires_at_ms
