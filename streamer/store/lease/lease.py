"""Lets one process at a time write for a model name, wherever it runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

import structlog

from streamer.errors import CastingError
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys
from streamer.store.lease.holder import LeaseHolder, LeaseTakenError
from streamer.store.lua import read_script

ACQUIRE = read_script(__package__, "taking", "acquire")
ENSURE = read_script(__package__, "taking", "ensure")
CLAIM = read_script(__package__, "taking", "raising", "claim")
RAISE = read_script(__package__, "raising", "raise")
RELEASE = read_script(__package__, "release")

# Smaller: one renewal that is late loses the lease. Larger: more round trips, and none of them is news.
RENEWALS_A_TTL = 3
# Smaller: a waiter asks again before Redis has let the lease go. Larger: it comes later.
EXPIRY_MARGIN_S = 0.01

log = structlog.get_logger()


class Lease:
    """The right to write for one model name, with a fencing token that rises with each taking.

    All of it is decided by scripts inside Redis and by Redis' clock. A Redis that forgot everything in the middle
    gives the lease to the first who asks; of all who had it, only that one goes on. Tokens rise over that as well,
    unless the clock of Redis was set back at the same time. All methods may be called from any thread.

    Args:
        holder: This process; what other processes are shown of it.
        ttl_s: How long the lease outlives its holder. Smaller than a few times `redis.timeout_s`: one slow answer
            loses it. Larger: after a host died, another one waits longer.

    Raises:
        StoreUnavailableError: From every method but `close`, when Redis does not answer; call it again, each may be
            repeated.
    """

    def __init__(
        self, client: Client, keys: Keys, model_name: str, holder: LeaseHolder, *, ttl_s: float
    ) -> None:
        self._model_name = model_name
        self._holder = holder
        self._ttl_s = ttl_s
        self._keys = [keys.lease(model_name), keys.last_taking(model_name)]
        self._versions = keys.versions(model_name)
        self._owner = uuid.uuid4().hex
        self._token = 0
        self._highest = (0, "")
        self._taker: LeaseHolder | None = None
        self._lock = Lock()  # held over each call: what an older answer says never comes after a newer one
        self._closing = Event()
        self._thread: Thread | None = None
        self._acquire = client.register_script(ACQUIRE)
        self._ensure = client.register_script(ENSURE)
        self._claim = client.register_script(CLAIM)
        self._raise = client.register_script(RAISE)
        self._release = client.register_script(RELEASE)

    @property
    def is_lost(self) -> bool:
        """Whether somebody else was seen to have the lease, and we have not acquired it since."""
        return self._taker is not None

    def acquire(self) -> int:
        """Takes the lease if it is free, has expired, or was held from this very place.

        Returns:
            The fencing token: larger than all that anybody had for this model name.

        Raises:
            LeaseTakenError: Somebody else holds it.
        """
        with self._lock:
            self._ask(self._acquire, "taking the lease")
            self._taker = None
            return self._token

    def acquire_or_wait(self, stop: Callable[[float], bool]) -> int | None:
        """Takes the lease, if need be once its holder has let it expire; says once whom it waits for.

        Args:
            stop: Sleeps for so many seconds and says whether to give up.

        Returns:
            The fencing token, or None after a stop.

        Raises:
            LeaseTakenError: The holder renews the lease, so it lives; or another one was quicker.
        """
        seen: int | None = None
        while True:
            try:
                return self.acquire()
            except LeaseTakenError as exc:
                if seen not in (None, exc.expires_at_ms):
                    raise
                if seen is None:
                    log.warning("waiting for the lease to expire", error=str(exc), seconds=exc.expires_in_s)
                seen, left_s = exc.expires_at_ms, exc.expires_in_s
            if stop(min(left_s + EXPIRY_MARGIN_S, self._ttl_s / RENEWALS_A_TTL)):
                return None

    def ensure(self) -> int:
        """Renews the lease, or takes it again if it ended and nobody else had it; call it before each write.

        Returns:
            The fencing token, a new one if it was taken again. The lease stands for `ttl_s` from this call on.

        Raises:
            LeaseTakenError: Somebody else holds it or has held it since: write nothing.
        """
        with self._lock:
            self._check_lost()
            self._ask(self._ensure, "renewing the lease")
            return self._token

    def claim_version(self, version: int) -> bool:
        """Makes a version number ours, in one step with `ensure`.

        Returns:
            Whether it is higher than all before, or our registry's highest already (a restart in the middle).

        Raises:
            LeaseTakenError: As from `ensure`; nothing is claimed.
        """
        ours = (version, self._holder.registry_id)
        with self._lock:
            self._check_lost()
            args: list[int | str] = [*ours, *self._highest]
            _, _, *highest = self._ask(self._claim, "claiming a version", self._versions, args=args)
            self._learn(*highest)
            return self._highest == ours

    def highest_version(self) -> int:
        """The highest version that was ever claimed or raised to, 0 if none; needs no lease."""
        return self._raise_to(*self._highest)

    def raise_version(self, version: int, *, registry_id: str = "") -> None:
        """Takes up a version found elsewhere, if it is higher; needs no lease.

        Args:
            registry_id: Whose it is: that registry may still claim it. Without it nobody may.
        """
        self._raise_to(version, registry_id)

    def start_renewing(self) -> None:
        """Renews the lease from a thread until `close`; call it once.

        While Redis is away it keeps trying and says nothing: whoever calls `ensure` next is told. A lease that it
        finds taken is logged once and shown by `is_lost`.
        """
        self._thread = Thread(target=self._keep_renewing, name=f"lease-{self._model_name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and releases the lease if it is ours; without Redis it expires by itself."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with suppress(CastingError), map_redis_errors("releasing the lease"):
            self._release(keys=self._keys[:1], args=[self._owner])

    def _keep_renewing(self) -> None:
        while not self._closing.wait(self._ttl_s / RENEWALS_A_TTL):
            if not self.is_lost:
                self._renew()

    def _renew(self) -> None:
        try:
            self.ensure()
        except LeaseTakenError as exc:
            log.error("lease lost", error=str(exc))  # noqa: TRY400 - the message says all
        except CastingError:
            pass  # the next `ensure` of the main thread meets it as well, and says it

    def _raise_to(self, version: int, registry_id: str) -> int:
        with self._lock, map_redis_errors("raising the version"):
            reply: Any = self._raise(keys=[self._versions], args=[version, registry_id])
            self._learn(*reply)
            return self._highest[0]

    def _learn(self, version: int, registry_id: bytes) -> None:
        if version >= self._highest[0]:  # else Redis forgot, and the next claim tells it
            self._highest = (version, text(registry_id))

    def _check_lost(self) -> None:
        if self._taker is not None:
            raise LeaseTakenError(self._model_name, self._taker, -1, -1)

    def _ask(self, script: Any, action: str, *keys: str, args: Sequence[int | str] = ()) -> Any:
        """Runs a script of the lease and takes up its token."""
        ours = [self._owner, self._holder.place, self._holder.to_json(), round(self._ttl_s * 1000)]
        with map_redis_errors(action):
            reply = script(keys=[*self._keys, *keys], args=[*ours, self._token, *args])
        if not reply[0]:
            raise self._taken(*reply[1:])
        self._token = int(reply[1])
        return reply

    def _taken(self, holder: bytes, since_ms: bytes, ttl_ms: int, expires_at_ms: int) -> LeaseTakenError:
        self._taker = LeaseHolder.from_json(holder, int(since_ms))
        return LeaseTakenError(self._model_name, self._taker, ttl_ms, expires_at_ms)
