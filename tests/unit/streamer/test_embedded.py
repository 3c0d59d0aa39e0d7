"""The servers that a laptop and the tests start for themselves."""

from __future__ import annotations

from streamer.config import RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.store.connection import connect


def test_a_redis_that_comes_back_has_loaded_what_it_holds(server: EmbeddedRedis) -> None:
    client = connect(RedisConfig(url=server.url))
    client.config_set("appendfsync", "always")  # killed, it may lose what it put off
    pipe = client.pipeline(transaction=False)
    for number in range(100_000):
        pipe.set(str(number), number)
    pipe.execute()
    server.kill()
    server.start()
    assert client.get("99999") == b"99999"
    client.close()
