"""Which dead letters were sent again: claimed before, confirmed after, so that none is sent twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamer.records import Partition
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys, partition_of

# Claims one dead letter for a run, unless it was sent, or another run's claim has not run out.
# KEYS: replayed.  ARGV: offset, run, now (epoch ms), oldest time of a claim that still holds (epoch ms).
# Returns nil, or what is held there.
_CLAIM = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local word, at = string.match(held, '^(%a+) (%d+)')
  if word == 'sent' or tonumber(at) > tonumber(ARGV[4]) then return held end
end
redis.call('HSET', KEYS[1], ARGV[1], 'claimed ' .. ARGV[3] .. ' ' .. ARGV[2])
return false
"""

# Takes back the claim of a run, if it is still there.
# KEYS: replayed.  ARGV: offset, run.
_RELEASE = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and string.match(held, '^claimed %d+ (%w+)$') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
"""


class Place(Protocol):
    """Where a record lies."""

    @property
    def source(self) -> Partition: ...

    @property
    def offset(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """What is held of a dead letter: that it was sent again, or that a run is about to."""

    sent: bool
    at_ms: int


class ReplayStore:
    """Claims and confirmations of one namespace.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._claim = client.register_script(_CLAIM)
        self._release = client.register_script(_RELEASE)

    def claim(self, origins: Sequence[Place], run: str, *, now_ms: int, lease_ms: int) -> list[Claim | None]:
        """Claims dead letters; None for each that is ours now, else what holds it."""
        with map_redis_errors("claiming dead letters"):
            pipe = self._client.pipeline(transaction=False)
            for origin in origins:
                key = self._keys.replayed(origin.source)
                args: list[str | int] = [origin.offset, run, now_ms, now_ms - lease_ms]
                self._claim(keys=[key], args=args, client=pipe)
            return [_parse(held) for held in pipe.execute()]

    def release(self, origins: Iterable[Place], run: str) -> None:
        """Gives claims back."""
        with map_redis_errors("releasing dead letters"):
            pipe = self._client.pipeline(transaction=False)
            for origin in origins:
                key = self._keys.replayed(origin.source)
                self._release(keys=[key], args=[origin.offset, run], client=pipe)
            pipe.execute()

    def confirm(self, origins: Iterable[Place], *, now_ms: int) -> None:
        """Notes dead letters as sent."""
        with map_redis_errors("confirming dead letters"):
            pipe = self._client.pipeline(transaction=False)
            for origin in origins:
                pipe.hset(self._keys.replayed(origin.source), str(origin.offset), f"sent {now_ms}")
            pipe.execute()

    def held(self, origins: Iterable[Place]) -> list[Claim | None]:
        """What is held of each dead letter."""
        with map_redis_errors("reading replays"):
            pipe = self._client.pipeline(transaction=False)
            for origin in origins:
                pipe.hget(self._keys.replayed(origin.source), str(origin.offset))
            return [_parse(held) for held in pipe.execute()]

    def forget(self, kept: Mapping[Partition, Collection[int]], *, before_ms: int) -> int:
        """Forgets what was sent before a time and whose dead letter is no longer kept.

        Args:
            kept: Offsets of all origins that lie in the dead-letter topic.

        Returns:
            How many were forgotten.
        """
        num = 0
        gone: dict[str, list[str]] = defaultdict(list)
        with map_redis_errors("forgetting replays"):
            for key in self._client.scan_iter(self._keys.all_replayed, count=1000):
                offsets = kept.get(partition_of(text(key)), ())
                for field, held in self._client.hscan_iter(key, count=1000):
                    claim = _parse(held)
                    if claim and claim.at_ms < before_ms and int(field) not in offsets:
                        gone[text(key)].append(text(field))
            for key, fields in gone.items():
                num += int(self._client.hdel(key, *fields))
        return num


def _parse(held: bytes | None) -> Claim | None:
    if held is None:
        return None
    word, at_ms, *_ = held.decode().split()
    return Claim(word == "sent", int(at_ms))
