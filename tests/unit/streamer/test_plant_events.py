"""What a plant sends is what the streamer reads."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from columns import Reading, decode_reading

from streamer.codec import Codec
from streamer.config import SensorConfig
from streamer.plant.events import PlantEvent, encode_cast_end, encode_chunk, encode_label, encode_wide
from streamer.plant.recording import Recording
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.records import Record
from streamer.schema import CastEnd, Label

ASSET = Path(__file__).parents[2] / "assets" / "recording"
HEAD = {"cast_id": "C1", "strand": 2}
CONFIG = SimulatorConfig(num_casts=6, min_steps=60, max_steps=90, missing_share=0.1, late_share=0.1)


def record(event: PlantEvent) -> Record:
    return Record(
        topic=event.kind,
        partition=0,
        offset=0,
        timestamp_ms=event.sent_at,
        key=event.key,
        value=event.value,
        headers=[],
    )


@pytest.mark.parametrize("source", ["simulator", "recording", "recording in chunks"])
def test_the_streamer_reads_every_record(source: str) -> None:
    recording = Recording.open(ASSET)
    events = {
        "simulator": Simulator(CONFIG).events(),
        "recording": recording.events(),
        "recording in chunks": recording.events(chunk_rows=7, hold_back_labels=0.2),
    }[source]
    codec = Codec([SensorConfig(name=name) for name in Simulator.sensors])
    for event in events:
        if event.kind == "labels":
            assert codec.decode_label(record(event)).cast_id.encode() == event.key
            continue
        message = decode_reading(codec, record(event))
        assert message.cast_id.encode() == event.key
        if isinstance(message, Reading):
            assert message.unknown_fields == 0
            assert len(message.rows) == event.num_readings


def test_a_value_that_is_missing_is_null() -> None:
    wide = encode_wide(HEAD, 5, ("a", "b"), [1.5, math.nan])
    assert wide == b'{"cast_id":"C1","strand":2,"ts":5,"a":1.5,"b":null}'
    chunk = encode_chunk(HEAD, 5, 100, [[1.5, math.nan], [2.0, 3.0]])
    assert chunk == b'{"cast_id":"C1","strand":2,"ts":5,"period_ms":100,"values":[[1.5,null],[2.0,3.0]]}'


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        encode_wide(HEAD, 5, ("a", "b"), [1.5])


def test_what_says_nothing_is_left_out_but_a_withdrawn_verdict_is_null() -> None:
    assert encode_cast_end(CastEnd("C1", 5)) == b'{"cast_id":"C1","ts":5,"event":"cast_end"}'
    assert msgspec.json.decode(encode_cast_end(CastEnd("C1", 5, "H1")))["group"] == "H1"
    assert encode_label(Label("C1", None, 9)) == b'{"cast_id":"C1","defect":null,"inspected_at":9}'
    full = Label("C1", True, 9, 1, 2, "mold_level", "H1")
    assert Label(**msgspec.json.decode(encode_label(full))) == full
