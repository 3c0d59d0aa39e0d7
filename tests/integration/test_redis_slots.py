"""The key layout on a Redis in cluster mode: it refuses every step that touches two slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from plants import LABELS, READINGS, casts
from plants import Plant as Casts
from streamer_harness import Plant, make_settings, member, reader, story

from streamer.config import KafkaConfig, RedisConfig, RetentionConfig
from streamer.embedded import EmbeddedRedis, free_port
from streamer.errors import RefusedError
from streamer.records import Partition
from streamer.schema import Label
from streamer.store.connection import connect, map_redis_errors
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseHolder
from streamer.store.pending import PendingLabels
from streamer.store.requests import CycleRequests
from streamer.store.retention import Retention
from streamer.store.summary import summarise
from trainer.data.catalogue import keep, let_go
from trainer.data.dataset import freeze, load


class ClusterNode(EmbeddedRedis):
    """A cluster of one: it serves all slots, and checks each command, script and transaction as any cluster does."""

    def command(self) -> list[str]:
        return [*super().command(), "--cluster-enabled", "yes", "--cluster-port", str(free_port())]

    def serve_all_slots(self) -> None:
        client = connect(RedisConfig(url=self.url))
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            pass
        client.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterNode]:
    with ClusterNode() as node:
        node.serve_all_slots()
        yield node


def test_a_step_over_two_slots_is_refused_there(cluster: ClusterNode) -> None:
    client = connect(RedisConfig(url=cluster.url))
    one, other = "n:cast:{A}", "n:cast:{B}"
    with pytest.raises(RefusedError, match="slot"), map_redis_errors("trying"):
        client.mget(one, other)
    with pytest.raises(RefusedError, match="slot"), map_redis_errors("trying"):
        client.eval("redis.call('SET', KEYS[1], 1)", 2, one, other)
    with pytest.raises(RefusedError, match="slot"), map_redis_errors("trying"):
        client.pipeline(transaction=True).set(one, 1).set(other, 1).execute()
    client.close()


def test_the_streamer_touches_one_slot_a_step(cluster: ClusterNode, kafka: KafkaConfig, unique: str) -> None:
    settings = make_settings(kafka, RedisConfig(url=cluster.url, namespace="streamer"), unique)
    plant = Plant(settings)
    log = story(plant, num_casts=4, num_steps=12)
    plant.feed(log)
    with member(settings) as one:
        one.consume(len(log))
        one.let_time_pass(100)
        windows = reader(one.client, settings)
        assert len(windows.sealed()) > 4
        assert len(windows.labelled()) > 4
        assert summarise(one.client, one.keys, settings.windows.name).sealed_windows == len(windows.sealed())
        outages = one.metrics.registry.get_sample_value("casting_streamer_outages_total", {"server": "redis"})
        assert outages == 0
        assert Partition(settings.topics.readings, 0) in one.positions.load_all()


def test_the_trainer_touches_one_slot_a_step(cluster: ClusterNode) -> None:
    plant = Casts(RedisConfig(url=cluster.url, namespace="trainer"))
    plant.write(casts(range(6)))
    dataset = freeze(plant.reader(), 100)
    keep(plant.reader(), dataset.manifest)
    assert load(plant.reader(), dataset.manifest).manifest == dataset.manifest
    assert plant.reader().num_labelled_since(0) == 12
    plant.close()


def test_retention_touches_one_slot_a_step(cluster: ClusterNode) -> None:
    plant = Casts(RedisConfig(url=cluster.url, namespace="retention"))
    plant.write(casts(range(6)))
    plant.label([Label("unseen", True, inspected_at=1)])
    PendingLabels(plant.client, plant.keys).note({"unseen": 1})
    for owner in ("one", "other"):
        keep(plant.reader(), freeze(plant.reader(), 2, owner=owner).manifest, owner=owner)
    config = RetentionConfig(max_casts=2, stubs_s=100, pending_labels_s=1)
    keeper = Retention(plant.client, plant.keys, plant.data, config)
    result = keeper.sweep({READINGS: 1_000_300_000, LABELS: None})
    assert (result.num_evicted, result.num_stubs_dropped, result.num_labels_expired) == (3, 2, 1)
    assert let_go(plant.reader(), (), 0, owner="one")
    plant.close()


def test_the_lease_and_requests_of_a_model_touch_one_slot_a_step(cluster: ClusterNode) -> None:
    client, keys = connect(RedisConfig(url=cluster.url)), Keys("lease")
    lease = Lease(client, keys, "model", LeaseHolder("host", 1, "/registry", "registry"), ttl_s=60)
    lease.acquire()
    lease.raise_version(1)
    assert lease.claim_version(2)
    assert lease.ensure()
    lease.close()
    requests = CycleRequests(client, keys, "model")
    requests.ask("a")
    assert requests.pending() == "a"
    requests.answer("a", b"done")
    assert requests.take_answer("a") == b"done"
    requests.withdraw("a")
    client.close()
