"""A power cut tears Redis' append-only file inside a script; the start after the next carries its beginning out."""

from __future__ import annotations

from power_cuts import power_cut, sizes

from streamer.config import RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.records import Partition
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.positions import LastRecord, PositionStore
from streamer.timeline import LogClock

SOURCE = Partition("readings", 0)
# The end of a transaction in the file: "*1\r\n$4\r\nEXEC\r\n"; cut within it, the commands before are whole.
TORN_BYTES = 5


def test_a_count_that_was_torn_off_and_repeated_counts_once(server: EmbeddedRedis) -> None:
    move(server, 3)
    power_cut(server, {file: size - TORN_BYTES for file, size in sizes(server).items()})
    assert counts(server) == (2, 2)
    move(server, 3)
    assert counts(server) == (5, 5)
    server.kill()
    server.start()  # what was torn off is carried out now, before what was written after it
    assert counts(server) == (5, 5)


def move(server: EmbeddedRedis, times: int) -> None:
    """Moves the position by one record, so often."""
    client = connect(RedisConfig(url=server.url, namespace="n"))
    client.config_set("appendfsync", "always")
    positions = PositionStore(client, Keys("n"))
    held = positions.load(SOURCE)
    begin = held.offset if held else 0
    for offset in range(begin + 1, begin + times + 1):
        positions.move(SOURCE, offset, LogClock(), LastRecord(offset, 0), {"consumed": 1})
    client.close()


def counts(server: EmbeddedRedis) -> tuple[int, int]:
    """(next offset, records consumed) as they stand in Redis."""
    client = connect(RedisConfig(url=server.url, namespace="n"))
    position = PositionStore(client, Keys("n")).load(SOURCE)
    client.close()
    assert position is not None
    return position.offset, position.counts["consumed"]
