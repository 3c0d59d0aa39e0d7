"""A counter is there, at 0, before there is something to count."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_names import ODD_NAMES
from prometheus_client.parser import text_string_to_metric_families

from streamer.config import StreamerSettings
from streamer.metrics import StreamerMetrics, exposition
from streamer.open_rows import OUTCOMES
from streamer.outcomes import REASONS, RECORD_KINDS
from streamer.settings import load_settings

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def settings() -> StreamerSettings:
    return load_settings(StreamerSettings, CONFIGS / "streamer.yaml")


def shown(metrics: StreamerMetrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Counters by name, then by the values of their labels."""
    return {
        family.name.removeprefix("casting_streamer_"): {
            tuple(sample.labels.values()): sample.value
            for sample in family.samples
            if sample.name.endswith("_total")
        }
        for family in metrics.registry.collect()
        if family.type == "counter"
    }


def test_every_label_that_is_known_at_the_start_is_shown_at_0(settings: StreamerSettings) -> None:
    sensors = [sensor.name for sensor in settings.data.sensors]
    values = {
        "records": RECORD_KINDS,
        "steps": OUTCOMES,
        "dead_letters": REASONS,
        "out_of_range": sensors,
        "log_gaps": (*settings.reading_topics, settings.topics.labels),
        "outages": ("kafka", "redis"),
    }
    counters = shown(StreamerMetrics.of(settings))
    for name, words in values.items():
        assert counters[name] == {(word,): 0 for word in words}, name


def test_no_counter_waits_for_its_first_count(settings: StreamerSettings) -> None:
    """One with a new label belongs into the constructor, with the values that it can have."""
    assert [name for name, samples in shown(StreamerMetrics.of(settings)).items() if not samples] == []


def test_each_source_has_a_topic_of_its_own(settings: StreamerSettings) -> None:
    topics = ["plant.a", "plant.b"]
    fields = settings.model_dump() | {"sources": [{"topic": topic} for topic in topics]}
    counters = shown(StreamerMetrics.of(StreamerSettings.model_validate(fields)))
    assert counters["log_gaps"].keys() == {(topic,) for topic in (*topics, settings.topics.labels)}


def test_prometheus_reads_a_sensor_of_any_name() -> None:
    metrics = StreamerMetrics(sensors=ODD_NAMES)
    for count, name in enumerate(ODD_NAMES, start=1):
        metrics.out_of_range.labels(name).inc(count)
    families = text_string_to_metric_families(exposition(metrics.registry).decode())
    (family,) = (each for each in families if each.name == "casting_streamer_out_of_range")
    read = {
        sample.labels["sensor"]: sample.value for sample in family.samples if sample.name.endswith("_total")
    }
    assert read == {name: count for count, name in enumerate(ODD_NAMES, start=1)}
