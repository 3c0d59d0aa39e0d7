"""The messages of docs/formats.md are decoded, and mean what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from columns import decode_reading

from streamer.codec import Codec
from streamer.config import StreamerSettings
from streamer.records import Headers, Record, RecordBatch
from streamer.schema import CastEnd
from streamer.sensors import MAX_NAME_CHARS, RESERVED, fault_of_name
from streamer.settings import load_settings
from streamer.sources import ReadingFields, SourceConfig
from streamer.units import conversion

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
SETTINGS = load_settings(StreamerSettings, ROOT / "configs" / "streamer.yaml")
SECTIONS = {
    section.partition("\n")[0]: section.partition("\n")[2]
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)
}
ROW = np.array([1.21, 1502.4, 148.2, 1210.0, 27.5], np.float32)
NEXT_ROW = np.array([1.21, 1502.3, np.nan, 1210.4, 27.5], np.float32)


def block(section: str, language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
    return str(found)


def record(value: bytes, headers: Headers = ()) -> Record:
    return Record("r", 0, 0, 1_763_796_000_000, b"C000123", value, headers)


def rows(section: str, codec: Codec | None = None) -> Any:
    codec = Codec.of(SETTINGS) if codec is None else codec
    decoded = codec.decode(RecordBatch.of([record(block(section, "json").encode())]))
    assert decoded.refused == []
    assert decoded.num_unknown_fields == 0
    return decoded.readings.values_NF


def test_names_of_sensors() -> None:
    text = SECTIONS["Names of sensors"]
    assert f"1 to {MAX_NAME_CHARS} characters" in text
    (reserved,) = re.findall(r"^\| (.*) \| they are fields of the messages \|$", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", reserved)) == RESERVED
    (examples,) = re.findall(r"that print, such as (.*?)\.", text)
    for name in re.findall(r"`([^`]+)`", examples):
        assert fault_of_name(name) is None


def test_wide_rows() -> None:
    np.testing.assert_array_equal(rows("Wide rows"), [ROW])


def test_chunks() -> None:
    np.testing.assert_array_equal(rows("Chunks"), [ROW, NEXT_ROW])
    made: dict[str, Any] = {}
    exec(block("Chunks", "python"), made)  # noqa: S102 - the page's own code
    batch = RecordBatch.of([record(made["value"], tuple(made["headers"]))])
    np.testing.assert_array_equal(Codec.of(SETTINGS).decode(batch).readings.values_NF, [ROW, NEXT_ROW])


def test_tags() -> None:
    np.testing.assert_array_equal(rows("Tags"), [[np.nan, np.nan, ROW[2], np.nan, np.nan]])


def test_the_end_of_a_cast() -> None:
    end = decode_reading(Codec.of(SETTINGS), record(block("End of a cast", "json").encode()))
    assert end == CastEnd("C000123", 1_763_797_500_000, "H00042")


def test_connects_envelope() -> None:
    np.testing.assert_array_equal(rows("Kafka Connect"), [[np.nan, np.nan, ROW[2], np.nan, np.nan]])


def test_labels() -> None:
    label = Codec.of(SETTINGS).decode_label(record(block("Labels", "json").encode()))
    assert (label.defect, label.defect_type, label.group) == (True, "crack", "H00042")


def test_a_source() -> None:
    (source,) = yaml.safe_load(block("Sources", "yaml"))["sources"]
    codec = Codec(SETTINGS.data.sensors, SourceConfig.model_validate(source))
    np.testing.assert_allclose(rows("Sources", codec), [[np.nan, np.nan, 147.32, np.nan, np.nan]], rtol=1e-6)
    reading = decode_reading(codec, record(block("Sources", "json").encode()))
    assert reading.ts == 1_763_796_000_123


def test_the_example_reads_what_the_page_shows() -> None:
    settings = load_settings(
        StreamerSettings, ROOT / "configs" / "examples" / "historian_tags" / "streamer.yaml"
    )
    codec = Codec.of(settings, "plant.historian")
    message = block("Sources", "json").replace("5.8", "148.2")
    decoded = codec.decode(RecordBatch.of([record(message.encode())]))
    assert decoded.readings.values_NF[0, 2] == ROW[2]
    made: dict[str, Any] = {}
    exec(block("Chunks", "python"), made)  # noqa: S102 - the page's own code
    batch = RecordBatch.of([record(made["value"])])
    assert len(Codec.of(settings, "plant.gateway").decode(batch).readings.values_NF) == 2


def test_every_key_of_a_source_is_explained() -> None:
    keys = re.findall(r"^\| `(\w+)` \|", SECTIONS["Sources"], re.MULTILINE)
    assert keys == list(SourceConfig.model_fields)
    (fields,) = re.findall(r"^\| `fields` \|(.*)$", SECTIONS["Sources"], re.MULTILINE)
    assert all(f"`{name}`" in fields for name in ReadingFields.model_fields)


def test_units_that_are_named_are_known() -> None:
    (text,) = re.findall(r"\*\*Units\*\*.*", SECTIONS["Sources"])
    groups = [group.split("; ")[0].split(", ") for group in re.findall(r"\(([^)]*)\)", text)]
    assert len(groups) == 13
    for first, *others in groups:
        for unit in others:
            assert conversion(unit, first)
