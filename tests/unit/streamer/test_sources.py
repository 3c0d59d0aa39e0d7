"""The sources of a configuration file are read, or refused at the line that is wrong, with the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.codec import Codec
from streamer.config import StreamerSettings
from streamer.errors import ConfigError
from streamer.settings import load_settings
from streamer.sources import SourceConfig
from streamer.units import Conversion

DATA = "data:\n  sensors: [{name: speed, unit: m/min}, {name: level, unit: mm}]\nsources:\n"


def load(folder: Path, text: str) -> StreamerSettings:
    path = folder / "s.yaml"
    path.write_text(DATA + text, encoding="utf-8")
    return load_settings(StreamerSettings, path)


def test_without_sources_there_is_one_on_the_topic_of_readings() -> None:
    settings = StreamerSettings.model_validate(
        {"data": {"sensors": [{"name": "a"}]}, "topics": {"readings": "r"}}
    )
    assert settings.reading_topics == ("r",)
    assert settings.source_of("r") == SourceConfig(topic="r")


def test_a_source_says_everything_of_its_topic(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
  - topic: historian
    format: tag
    content_type: application/json
    fields: {cast_id: $key, ts: at.ms, tag: "$header:tag"}
    time: {unit: s, zone: Europe/Vienna}
    quality: {scheme: opc_ua, uncertain: bad}
    tags: {"PLC1/Level.PV": level}
    unknown_tags: refuse
    sensors:
      level: {unit: in, min: 0, max: 250.5}
      speed: {scale: 0.5}
    carry_forward_s: 60
  - topic: gateway
    sensors:
      level: {field: body.level}
label_source:
  fields: {cast_id: heat.cast}
  time: {unit: rfc3339, zone: UTC}
""",
    )
    assert settings.reading_topics == ("historian", "gateway")
    source = settings.source_of("historian")
    assert (source.carry_forward_s, source.tags) == (60, {"PLC1/Level.PV": "level"})
    assert source.sensors["level"].conversion("mm") == Conversion(25.4, 0)
    assert source.sensors["speed"].conversion("m/min") == Conversion(0.5, 0)
    for topic in settings.reading_topics:
        assert Codec.of(settings, topic)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("  - {format: tag}\n", "4: sources.0.topic: Field required"),
        ("  - {topic: a b}\n", "4: sources.0.topic: String should match"),
        (
            "  - topic: a\n    format: xml\n",
            "5: sources.0.format: Input should be 'auto', 'wide', 'chunk' or 'tag'",
        ),
        ("  - topic: a\n    formt: tag\n", "5: sources.0.formt: no such key; did you mean format?"),
        (
            "  - topic: a\n    sensors:\n      level:\n        mim: 1\n",
            "7: sources.0.sensors.level.mim: no such key; did you mean min?",
        ),
        (
            "  - topic: a\n    fields:\n      time: t\n",
            "6: sources.0.fields.time: no such key",
        ),
        (
            "  - topic: a\n  - topic: b\n  - topic: a\n",
            "6: sources.2.topic: a is the topic of sources.0 already; one source a topic",
        ),
        (
            "  - topic: casting.labels\n",
            "4: sources.0.topic: casting.labels is topics.labels already; readings need another",
        ),
        (
            "  - topic: casting.dead-letters\n",
            "4: sources.0.topic: casting.dead-letters is topics.dead_letters already; readings need another",
        ),
        (
            "  - topic: a\n    sensors:\n      levle: {min: 1}\n",
            "6: sources.0.sensors.levle: no such sensor in data.sensors; sensors are speed, level",
        ),
        (
            "  - topic: a\n    sensors:\n      level:\n        unit: degF\n",
            "7: sources.0.sensors.level.unit: cannot convert 'degF' into 'mm'; units for it are m, cm, mm",
        ),
        (
            "  - topic: a\n    sensors:\n      level: {unit: in, scale: 2}\n",
            "6: sources.0.sensors.level: give a unit, or scale and offset, not both",
        ),
        (
            "  - topic: a\n    sensors:\n      level: {scale: 0}\n",
            "6: sources.0.sensors.level: a scale of 0 leaves nothing of the value",
        ),
        (
            "  - topic: a\n    sensors:\n      level: {min: 2, max: 1}\n",
            "6: sources.0.sensors.level: min 2.0 lies above max 1.0",
        ),
        (
            "  - topic: a\n    tags:\n      PLC/Level: levle\n",
            "6: sources.0.tags.PLC/Level: levle is no sensor of data.sensors; sensors are speed, level",
        ),
        (
            "  - topic: a\n    format: wide\n    tags: {x: level}\n",
            "4: sources.0: tags are not read in format wide; set format: tag, or leave them out",
        ),
        (
            "  - topic: a\n    carry_forward_s: 5\n",
            "4: sources.0: carry_forward_s is for tags; set format: tag, or leave it out",
        ),
        (
            "  - topic: a\n    fields: {tag: $key}\n",
            "4: sources.0: a tag beside the value ($key) tells no message from another; set format: tag",
        ),
        (
            "  - topic: a\n    time: {zone: Vienna}\n",
            "5: sources.0.time.zone: no such time zone: 'Vienna'; names are like Europe/Vienna or UTC",
        ),
        (
            "  - topic: a\n    time: {zone: ../etc/passwd}\n",
            "5: sources.0.time.zone: no such time zone: '../etc/passwd'",
        ),
        (
            "  - topic: a\n    time: {unit: minutes}\n",
            "5: sources.0.time.unit: Input should be 'ms', 's', 'us', 'ns' or 'rfc3339'",
        ),
        (
            "  - topic: a\n    fields: {ts: a..b}\n",
            "5: sources.0.fields.ts: 'a..b' is no path; write a field such as ts, or payload.ts",
        ),
        ("  - topic: a\n    fields: {ts: $key}\n", "5: sources.0.fields.ts: '$key' is no path"),
        ("  - topic: a\n    fields: {cast_id: $keys}\n", "5: sources.0.fields.cast_id: '$keys' is no path"),
        (
            "  - topic: a\n    fields: {ts: meta}\n    sensors:\n      level: {field: meta.level}\n",
            "7: sources.0.sensors.level.field: meta.level holds fields.ts already; one field for each",
        ),
        (
            "  - topic: a\n    fields: {strand: level}\n",
            "5: sources.0.fields.strand: level holds sensors.level.field already; one field for each",
        ),
        (
            "  - topic: a\n    quality: {scheme: opcua}\n",
            "5: sources.0.quality.scheme: Input should be 'words', 'opc_ua', 'opc_da' or 'sparkplug'",
        ),
        (
            "  - topic: a\nlabel_source: {field: {}}\n",
            "5: label_source.field: no such key; did you mean fields?",
        ),
    ],
)
def test_a_fault_is_told_with_its_line_and_the_mend(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    told = str(caught.value).replace(f"{tmp_path / 's.yaml'}:", "")
    assert told.startswith(fault)
    assert "\n" not in told


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "  - topic: a\n    tags: {x: y}\n  - topic: a\n    sensors: {z: {}}\n")
    assert len(str(caught.value).splitlines()) == 3


def test_a_wide_source_may_use_names_that_tags_have_elsewhere(tmp_path: Path) -> None:
    text = "  - topic: a\n    format: wide\n    sensors: {speed: {field: value}}\n"
    assert load(tmp_path, text).source_of("a").sensors["speed"].field == "value"
    with pytest.raises(ConfigError, match=r"value holds fields\.value already"):
        load(tmp_path, text.replace("wide", "auto"))
