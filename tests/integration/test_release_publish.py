"""From the registry over a real broker to a subscriber: what is decided arrives, and swaps once."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from cloudevents.core.bindings import kafka as oracle
from cloudevents.core.formats.json import JSONFormat
from prometheus_client import CollectorRegistry, generate_latest

from streamer.config import KafkaConfig, SensorConfig, TopicsConfig, WindowsConfig
from streamer.embedded import EmbeddedBroker
from streamer.errors import BrokerUnavailableError
from streamer.kafka import Producer, TopicReader, ensure_topics
from streamer.records import Record
from trainer.release import (
    DatasetInfo,
    Manifest,
    ModelInputs,
    ModelSubscriber,
    ModelUpdate,
    Publisher,
    Registry,
    RegistryConfig,
    release_topics,
    write_artifact,
)
from trainer.release.client.cloudevent import to_binary
from trainer.release.client.metrics import SubscriberMetrics
from trainer.release.client.results import SKIP_REASONS
from trainer.release.publish.events import model_update
from trainer.release.publish.publisher import Flushed

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
# Enough for a loaded machine; a test that passes does not wait for it.
PATIENCE_S = 20.0
# Long enough to see an update that should not come.
QUIET_S = 0.4


@pytest.fixture
def topics(kafka: KafkaConfig, unique: str) -> TopicsConfig:
    topics = TopicsConfig(models=f"models-{unique}", model_events=f"model-events-{unique}")
    ensure_topics(kafka, release_topics(topics))
    return topics


@pytest.fixture
def producer(kafka: KafkaConfig) -> Iterator[Producer]:
    with Producer(kafka) as producer:
        yield producer


@pytest.fixture
def publisher(producer: Producer, topics: TopicsConfig) -> Publisher:
    return Publisher(lambda: producer, topics)


def manifest(version: int, name: str = "defect-lstm") -> Manifest:
    return Manifest(
        model_name=name,
        version=version,
        created_at=AT,
        architecture={},
        sensors=(SensorConfig(name="mold_level", unit="mm"),),
        period_ms=1000,
        window=WindowsConfig(),
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )


def model(version: int, name: str = "defect-lstm") -> bytes:
    return write_artifact({"w": np.full(8, version, dtype=np.float32)}, manifest(version, name))


def publish(publisher: Publisher, version: int, ce_id: str, name: str = "defect-lstm") -> None:
    publisher.publish_model(manifest(version, name), model(version, name), ce_id=ce_id, at=AT)


def roll_back(producer: Producer, topics: TopicsConfig, version: int, ce_id: str) -> None:
    event = model_update(
        manifest(version), model(version), ce_id=ce_id, at=AT, source="/castloop/trainer", rollback=True
    )
    headers, value = to_binary(event)
    producer.send(topics.models, value, key=b"defect-lstm", headers=headers)


def publish_for(publisher: Publisher, version: int, ce_id: str, **inputs: object) -> None:
    """A model of another plant."""
    other = manifest(version).model_copy(update=inputs)
    data = write_artifact({"w": np.zeros(8, np.float32)}, other)
    publisher.publish_model(other, data, ce_id=ce_id, at=AT)


def skipped(subscriber: ModelSubscriber, **reasons: int) -> bool:
    """Whether so many were skipped, and none for another reason."""
    return dict(subscriber.skipped) == dict.fromkeys(SKIP_REASONS, 0) | reasons


def next_update(subscriber: ModelSubscriber) -> ModelUpdate:
    update = subscriber.poll(PATIENCE_S)
    assert update is not None
    return update


def records(kafka: KafkaConfig, topic: str, num: int) -> list[Record]:
    found: list[Record] = []
    with TopicReader(kafka, topic) as reader:
        while len(found) < num:
            batch = reader.poll(PATIENCE_S)
            assert batch, f"{len(found)} of {num} records"
            found += batch
    return found


def test_what_the_registry_decides_arrives_at_the_subscriber(
    kafka: KafkaConfig, topics: TopicsConfig, publisher: Publisher, tmp_path: Path
) -> None:
    with (
        ModelSubscriber(kafka, topics.models) as subscriber,
        Registry(RegistryConfig(path=tmp_path), now=lambda: AT) as registry,
    ):
        assert subscriber.poll(QUIET_S) is None
        registry.register(model(1))
        promoted = registry.promote(1, ["median +0.1"], {"lower": 0.05})
        assert [event.kind for event in publisher.flush_outbox(registry).sent] == ["trained", "promoted"]
        assert registry.outbox() == []
        assert publisher.flush_outbox(registry) == Flushed((), 0)
        update = next_update(subscriber)
        assert (update.model_name, update.version, update.ce_id) == ("defect-lstm", 1, promoted.update_ce_id)
        assert update.data == model(1)
        assert update.artifact.tensors["w"][0] == 1
        assert (update.published_at, update.manifest.threshold) == (AT, 0.5)

        registry.register(model(2))
        registry.refuse(2, ["median -0.1"])
        publisher.flush_outbox(registry)
        assert subscriber.poll(QUIET_S) is None
    told = [json.loads(record.value or b"") for record in records(kafka, topics.model_events, 4)]
    assert [(event["type"], event["data"]["version"]) for event in told] == [
        ("io.castloop.model.trained", 1),
        ("io.castloop.model.promoted", 1),
        ("io.castloop.model.trained", 2),
        ("io.castloop.model.refused", 2),
    ]
    assert told[1]["data"]["details"] == {"lower": 0.05}
    assert told[3]["data"]["reasons"] == ["median -0.1"]


def test_records_on_both_topics_are_cloudevents_keyed_by_model_name(
    kafka: KafkaConfig, topics: TopicsConfig, publisher: Publisher, tmp_path: Path
) -> None:
    with Registry(RegistryConfig(path=tmp_path)) as registry:
        registry.register(model(1))
        promoted = registry.promote(1)
        publisher.flush_outbox(registry)
    (update,) = records(kafka, topics.models, 1)
    event = oracle.from_binary(_message(update), JSONFormat())
    assert (event.get_id(), event.get_type()) == (promoted.update_ce_id, "io.castloop.model.updated")
    assert (event.get_subject(), event.get_extension("modelversion")) == ("defect-lstm", "1")
    assert event.get_datacontenttype() == "application/vnd.safetensors"
    told = records(kafka, topics.model_events, 2)[1]
    assert not [name for name, _ in told.headers if name.startswith("ce_")]
    event = oracle.from_structured(_message(told), JSONFormat())
    assert (event.get_id(), event.get_type()) == (promoted.ce_id, "io.castloop.model.promoted")
    assert (update.key, told.key) == (b"defect-lstm", b"defect-lstm")


def _message(record: Record) -> oracle.KafkaMessage:
    headers = {name: raw for name, raw in record.headers if raw is not None}
    return oracle.KafkaMessage(headers, None, record.value or b"")


def test_a_decision_that_was_sent_but_not_confirmed_is_sent_again_and_swaps_once(
    kafka: KafkaConfig, topics: TopicsConfig, publisher: Publisher, producer: Producer, tmp_path: Path
) -> None:
    config = RegistryConfig(path=tmp_path)
    with ModelSubscriber(kafka, topics.models) as subscriber:
        with Registry(config) as registry:
            registry.register(model(1))
            promoted = registry.promote(1)
            assert promoted.update_ce_id
            # Killed after the broker had the record and before the outbox knew.
            publisher.publish_model(manifest(1), model(1), ce_id=promoted.update_ce_id, at=promoted.at)
            producer.flush()
        with Registry(config) as registry:
            publisher.flush_outbox(registry)
        assert next_update(subscriber).ce_id == promoted.update_ce_id
        assert subscriber.poll(QUIET_S) is None
    first, again = records(kafka, topics.models, 2)
    assert (first.value, first.headers) == (again.value, again.headers)


@pytest.fixture
def collect_sockets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """kafka-python leaves the socket of each refused connection to the garbage collector: run it now.

    The records of its log, which pytest keeps to the end, hold exceptions that hold those sockets.
    """
    yield
    caplog.get_records("call").clear()
    gc.collect()


@pytest.mark.usefixtures("collect_sockets")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_a_dead_broker_did_not_take_is_sent_with_the_same_ids_when_it_is_back(tmp_path: Path) -> None:
    topics = TopicsConfig()
    with EmbeddedBroker() as broker, Registry(RegistryConfig(path=tmp_path)) as registry:
        kafka = KafkaConfig(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1_000)
        ensure_topics(kafka, release_topics(topics))
        registry.register(model(1))
        promoted = registry.promote(1)
        with Producer(kafka) as producer, ModelSubscriber(kafka) as subscriber:
            assert subscriber.poll(QUIET_S) is None
            broker.kill()
            with pytest.raises(BrokerUnavailableError):
                Publisher(lambda: producer, topics).flush_outbox(registry)
            assert [event.kind for event in registry.outbox()] == ["trained", "promoted"]
        broker.start()
        ensure_topics(kafka, release_topics(topics))
        with Producer(kafka) as producer:
            Publisher(lambda: producer, topics).flush_outbox(registry)
        assert registry.outbox() == []
        (update,) = records(kafka, topics.models, 1)
        assert dict(update.headers)["ce_id"] == (promoted.update_ce_id or "").encode()


def test_a_subscriber_that_starts_late_gets_the_newest_of_each_model_at_once(
    kafka: KafkaConfig, topics: TopicsConfig, publisher: Publisher, producer: Producer
) -> None:
    publish(publisher, 1, "a")
    publish(publisher, 5, "b", "other")
    publish(publisher, 2, "c")
    producer.flush()
    with ModelSubscriber(kafka, topics.models) as subscriber:
        assert [next_update(subscriber).ce_id for _ in range(2)] == ["b", "c"]
        assert subscriber.poll(QUIET_S) is None
        roll_back(producer, topics, 1, "d")
        publish(publisher, 2, "c")
        producer.flush()
        assert next_update(subscriber).version == 1
        assert subscriber.poll(QUIET_S) is None
        assert skipped(subscriber, repeated=1)
    with ModelSubscriber(kafka, topics.models, "defect-lstm", history=True) as subscriber:
        assert [next_update(subscriber).ce_id for _ in range(3)] == ["a", "c", "d"]


def test_an_older_version_is_handed_out_only_if_it_is_told_as_a_rollback_also_after_a_restart(
    kafka: KafkaConfig,
    topics: TopicsConfig,
    publisher: Publisher,
    producer: Producer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ModelSubscriber(kafka, topics.models) as subscriber:
        publish(publisher, 3, "a")
        publish(publisher, 2, "b")
        publish(publisher, 3, "c")
        publish(publisher, 1, "d", "other")
        producer.flush()
        assert [next_update(subscriber).ce_id for _ in range(2)] == ["a", "d"]
        assert subscriber.poll(QUIET_S) is None
        assert skipped(subscriber, older=2)
        # A reader that hands out the past goes by the same order.
        with ModelSubscriber(kafka, topics.models, history=True) as reader:
            assert [next_update(reader).ce_id for _ in range(2)] == ["a", "d"]
            assert skipped(reader, older=2)
    said = capsys.readouterr().out
    assert said.count("version 2 comes after version 3 and is no rollback") == 2
    assert said.count("skipped a model update") == 4
    # In the middle of it the service is started again: the log is read from its beginning.
    with ModelSubscriber(kafka, topics.models, "defect-lstm") as subscriber:
        assert next_update(subscriber).ce_id == "a"
        assert skipped(subscriber, older=2)
        roll_back(producer, topics, 1, "e")
        publish(publisher, 2, "b")
        publish(publisher, 2, "f")
        producer.flush()
        assert [next_update(subscriber).ce_id for _ in range(2)] == ["e", "f"]
        assert skipped(subscriber, older=2, repeated=1)
    with ModelSubscriber(kafka, topics.models, "defect-lstm") as subscriber:
        assert next_update(subscriber).ce_id == "f"
        assert subscriber.poll(QUIET_S) is None


def test_a_model_of_another_plant_is_skipped_with_what_differs_and_the_old_one_stays(
    kafka: KafkaConfig,
    topics: TopicsConfig,
    publisher: Publisher,
    producer: Producer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = manifest(1).inputs
    assert ours == ModelInputs((SensorConfig(name="mold_level", unit="mm"),), 1000, 300)
    publish(publisher, 1, "a")
    publish_for(publisher, 2, "b", sensors=(SensorConfig(name="pressure", unit="bar"),))
    producer.flush()
    with ModelSubscriber(kafka, topics.models, inputs=ours) as subscriber:
        assert next_update(subscriber).ce_id == "a"
        publish_for(publisher, 3, "c", period_ms=100)
        publish(publisher, 4, "d")
        producer.flush()
        assert next_update(subscriber).ce_id == "d"
        assert skipped(subscriber, other_inputs=2)
    said = capsys.readouterr().out
    assert "sensors: mold_level mm here, pressure bar there; the old model is kept" in said
    assert "period: 1000 ms here, 100 ms there; the old model is kept" in said
    assert said.count("skipped a model update") == 2
    # Without inputs the newest one that catching up finds is the first that is handed out.
    with ModelSubscriber(kafka, topics.models) as subscriber:
        assert next_update(subscriber).ce_id == "d"
        publish_for(publisher, 5, "e", window=WindowsConfig(size_steps="cast"))
        publish_for(publisher, 1, "f", period_ms=100, model_name="other")
        producer.flush()
        assert next_update(subscriber).ce_id == "f"
        assert skipped(subscriber, other_inputs=1)
    assert "window: 300 steps here, whole casts there" in capsys.readouterr().out


def test_what_a_subscriber_hands_out_and_skips_is_shown_to_prometheus(
    kafka: KafkaConfig, topics: TopicsConfig, publisher: Publisher, producer: Producer
) -> None:
    registry = CollectorRegistry()
    metrics = SubscriberMetrics(registry)
    publish(publisher, 4, "a")
    publish(publisher, 3, "b")
    publish(publisher, 4, "a")
    producer.flush()
    with ModelSubscriber(kafka, topics.models, on_result=metrics.on_result) as subscriber:
        next_update(subscriber)
        publish_for(publisher, 5, "c", period_ms=100)
        producer.send(topics.models, b"no event", key=b"defect-lstm")
        producer.flush()
        assert subscriber.poll(QUIET_S) is None
        assert skipped(subscriber, older=1, repeated=1, unreadable=1, other_inputs=1)
    lines = generate_latest(registry).decode().splitlines()
    assert "casting_model_updates_total 1.0" in lines
    assert 'casting_model_update_version{model="defect-lstm"} 4.0' in lines
    for reason in SKIP_REASONS:
        assert f'casting_model_updates_skipped_total{{reason="{reason}"}} 1.0' in lines


def test_a_torn_update_that_comes_again_whole_is_handed_out(
    kafka: KafkaConfig, topics: TopicsConfig, publisher: Publisher, producer: Producer
) -> None:
    publisher.publish_model(manifest(1), model(1)[:-3], ce_id="a", at=AT)
    publish(publisher, 1, "a")
    producer.flush()
    with ModelSubscriber(kafka, topics.models) as subscriber:
        assert next_update(subscriber).ce_id == "a"
        assert skipped(subscriber, unreadable=1)


def test_a_file_from_before_the_digest_of_the_manifest_is_handed_out_and_told(
    kafka: KafkaConfig,
    topics: TopicsConfig,
    publisher: Publisher,
    producer: Producer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tensors = {"w": np.zeros(2, np.float32)}
    header = write_artifact(tensors, manifest(1))
    fields = json.loads(
        json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["castloop"]
    )
    del fields["manifest_sha256"]
    old = safetensors.numpy.save(tensors, metadata={"castloop": json.dumps(fields)})
    publisher.publish_model(manifest(1), old, ce_id="a", at=AT)
    producer.flush()
    with ModelSubscriber(kafka, topics.models) as subscriber:
        update = next_update(subscriber)
    assert not update.artifact.has_manifest_digest
    assert capsys.readouterr().out.count("no digest over the manifest") == 1


def test_a_bad_model_is_skipped_and_the_good_one_stays(
    kafka: KafkaConfig,
    topics: TopicsConfig,
    publisher: Publisher,
    producer: Producer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(publisher, 1, "a")
    publisher.publish_model(manifest(2), model(2)[:-3], ce_id="torn", at=AT)
    publisher.publish_model(manifest(2), model(3), ce_id="contradicts itself", at=AT)
    producer.send(topics.models, b"no event", key=b"defect-lstm")
    producer.send(topics.models, None, key=b"withdrawn")
    producer.flush()
    with ModelSubscriber(kafka, topics.models) as subscriber:
        assert next_update(subscriber).ce_id == "a"
        assert skipped(subscriber, unreadable=3)
        publish(publisher, 4, "b")
        producer.flush()
        assert next_update(subscriber).version == 4
    assert capsys.readouterr().out.count("skipped a model update") == 3


def test_a_subscriber_may_be_there_before_the_topic(
    kafka: KafkaConfig, unique: str, producer: Producer, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = TopicsConfig(models=f"models-{unique}", model_events=f"events-{unique}")
    with ModelSubscriber(kafka, topics.models) as subscriber:
        assert subscriber.poll(0.1) is None
        assert subscriber.poll(0.1) is None
        ensure_topics(kafka, release_topics(topics))
        publish(Publisher(lambda: producer, topics), 1, "a")
        producer.flush()
        for update in subscriber:
            assert update.version == 1
            break
    assert capsys.readouterr().out.count("waiting for the models topic") == 1
