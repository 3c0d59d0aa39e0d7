"""The streamer with one guard taken out, to see that the run would notice.

Each variant is put in place of the product's methods in the process of one member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.chaos_ingest.patching import wrap
from streamer.assignment import Assignment
from streamer.dead_letters import DeadLetters
from streamer.service import StreamerService
from streamer.store import scripts
from streamer.store.casts import CastStore
from streamer.store.index import IndexResult, WindowIndex
from streamer.store.positions import PositionStore

At = Callable[[str], None]
APPLIED_CHECK = "if (redis.call('HGET', cast, ARGV[1]) or '') ~= ARGV[2] then return 0 end\n"


def commit_first(at: At) -> None:
    """Position and offsets move before the rows are written."""

    def take(original: Any) -> Any:
        def method(self: Any, batches: Any, result: Any) -> Any:
            labels = original(self, batches, result)
            self._move_positions(batches, result)
            self._commit(batches)
            if batches:
                at("variant")
            return labels

        return method

    wrap(StreamerService, "_decode_labels", take)


def no_applied_check(_: At) -> None:
    """A record is judged as often as it is read."""
    if APPLIED_CHECK not in scripts.APPLY:
        raise RuntimeError("the script has no such line any more: mend the variant")
    scripts.APPLY = scripts.APPLY.replace(APPLIED_CHECK, "")

    def load(original: Any) -> Any:
        def method(self: Any, *args: Any) -> Any:
            states = original(self, *args)
            for state in states.values():
                state.applied = None
            return states

        return method

    wrap(CastStore, "load", load)


def no_index_mend(_: At) -> None:
    """A member that is assigned a partition does not look at what is half done."""
    loading = []

    def load(original: Any) -> Any:
        def method(self: Any, partition: Any) -> Any:
            loading.append(partition)
            try:
                return original(self, partition)
            finally:
                loading.pop()

        return method

    def update(original: Any) -> Any:
        def method(self: Any, cast_ids: Any, *rest: Any) -> Any:
            return IndexResult() if loading else original(self, cast_ids, *rest)

        return method

    wrap(Assignment, "_load", load)
    wrap(WindowIndex, "update", update)


def position_not_compared(_: At) -> None:
    """Reading goes on from the committed offset, whatever Redis holds."""

    def start(original: Any) -> Any:
        def method(self: Any, partition: Any, position: Any, *rest: Any) -> Any:
            committed = self._consumer.committed(partition)
            return original(self, partition, position if committed is None else committed, *rest)

        return method

    def load(original: Any) -> Any:
        def method(self: Any, partition: Any) -> Any:
            position = original(self, partition)
            if position is not None:
                position.last = None  # nor is the record before it looked at
            return position

        return method

    wrap(Assignment, "_start_offset", start)
    wrap(PositionStore, "load", load)


def dead_letters_after_commit(at: At) -> None:
    """What cannot be used is sent once its offset is committed."""
    held: list[tuple[Any, ...]] = []
    add, flush = DeadLetters.add, DeadLetters.flush

    def later(_: Any) -> Any:
        def method(self: Any, *letter: Any) -> None:
            held.append((self, *letter))

        return method

    def commit(original: Any) -> Any:
        def method(self: Any, batches: Any) -> Any:
            original(self, batches)
            if any(not error.is_late for _, _, error in held):  # late ones are no term of dead letters
                at("variant")
            for letter in held:
                add(*letter)
            held.clear()
            flush(self._dead_letters)

        return method

    wrap(DeadLetters, "add", later)
    wrap(StreamerService, "_commit", commit)


VARIANTS: dict[str, Callable[[At], None]] = {
    variant.__name__: variant
    for variant in (
        commit_first,
        no_applied_check,
        no_index_mend,
        position_not_compared,
        dead_letters_after_commit,
    )
}
