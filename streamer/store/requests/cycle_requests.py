"""Asks a running trainer for a cycle, and brings back what came of it."""

from __future__ import annotations

from typing import Any

from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys
from streamer.store.lua import read_script

ASK = read_script(__package__, "ask")
PENDING = read_script(__package__, "pending")
ANSWER = read_script(__package__, "answer")

# Smaller: an asker that stood still for a moment loses its request. Larger: one that was killed still gets a cycle.
REQUEST_LIFETIME_S = 15.0
# Smaller: an asker that could not reach Redis for a while misses its answer. Larger: memory.
ANSWER_LIFETIME_S = 600.0


class CycleRequests:
    """The requests for a cycle of one model name, and their answers.

    An asker calls `ask` and `take_answer` in turn until it has its answer, then `withdraw`. The trainer looks at
    `pending` between two cycles; one cycle answers all that were pending when it began. Killed at any moment, either
    leaves nothing behind that does not expire by Redis' clock. After a Redis that forgot everything the next `ask`
    puts the request at the end of the row; an answer is lost with it, and so asked for again.

    Args:
        lifetime_s: How long a request stands after each `ask`; call it a few times as often.
        answer_lifetime_s: How long an answer can be taken.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; call it again, each may be repeated.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        model_name: str,
        *,
        lifetime_s: float = REQUEST_LIFETIME_S,
        answer_lifetime_s: float = ANSWER_LIFETIME_S,
    ) -> None:
        self._client = client
        self._keys = keys
        self._model_name = model_name
        self._rows = [keys.cycle_requests(model_name), keys.cycle_askers(model_name)]
        self._lifetime_ms = round(lifetime_s * 1000)
        self._answer_lifetime_ms = round(answer_lifetime_s * 1000)
        self._ask = client.register_script(ASK)
        self._pending = client.register_script(PENDING)
        self._answer = client.register_script(ANSWER)

    def ask(self, request_id: str) -> None:
        """Puts a request at the end of the row, or says that its asker still waits; nothing once it is answered.

        Args:
            request_id: A word that nobody else uses, such as a uuid.
        """
        with map_redis_errors("asking for a cycle"):
            self._ask(keys=[*self._rows, self._at(request_id)], args=[request_id, self._lifetime_ms])

    def withdraw(self, request_id: str) -> None:
        """Takes a request back, with its answer; one that is not there changes nothing."""
        with map_redis_errors("withdrawing a request"):
            pipe = self._client.pipeline(transaction=True)
            for row in self._rows:
                pipe.zrem(row, request_id)
            pipe.delete(self._at(request_id))
            pipe.execute()

    def pending(self) -> str | None:
        """The request that has waited for the longest, None without one."""
        return next(iter(self.pending_all()), None)

    def pending_all(self) -> list[str]:
        """All requests whose askers still wait, the one that was asked first at the head."""
        with map_redis_errors("looking for requests"):
            found: list[Any] = self._pending(keys=self._rows)
        return [text(request_id) for request_id in found]

    def answer(self, request_id: str, payload: bytes) -> None:
        """Keeps the answer for its asker and removes the request, also one whose asker is gone by now."""
        args: list[str | bytes | int] = [request_id, payload, self._answer_lifetime_ms]
        with map_redis_errors("answering a request"):
            self._answer(keys=[*self._rows, self._at(request_id)], args=args)

    def take_answer(self, request_id: str) -> bytes | None:
        """The answer, None before it is there; it stays until `withdraw`, so one lost on its way is taken again."""
        with map_redis_errors("taking an answer"):
            found: Any = self._client.get(self._at(request_id))
        return None if found is None else bytes(found)

    def _at(self, request_id: str) -> str:
        return self._keys.cycle_answer(self._model_name, request_id)
