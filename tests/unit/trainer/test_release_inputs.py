"""What a model wants, held against what a plant has: told in words."""

from __future__ import annotations

from streamer.config import DataConfig, SensorConfig, WindowsConfig
from trainer.release.client.inputs import ModelInputs

LEVEL = SensorConfig(name="mold_level", unit="mm")
SPEED = SensorConfig(name="casting_speed", unit="m/min")
HEAT = SensorConfig(name="superheat")
OURS = ModelInputs((LEVEL, SPEED), 1000, 300)


def test_the_same_inputs_have_no_differences() -> None:
    data = DataConfig(sensors=(LEVEL, SPEED), period_ms=1000, grid_phase_ms=250)
    same = ModelInputs.of(data, WindowsConfig(size_steps=300, hop_steps=7, min_valid_ratio=0.1))
    assert same == OURS
    assert OURS.differences(same) == []


def test_sensors_in_another_order_are_told() -> None:
    assert OURS.differences(ModelInputs((SPEED, LEVEL), 1000, 300)) == [
        "sensors: mold_level mm, casting_speed m/min here, casting_speed m/min, mold_level mm there"
    ]


def test_only_the_columns_that_differ_are_told() -> None:
    other = SensorConfig(name="casting_speed", unit="m/s")
    assert OURS.differences(ModelInputs((LEVEL, other, HEAT), 1000, 300)) == [
        "sensors: casting_speed m/min here, casting_speed m/s, superheat there"
    ]
    assert OURS.differences(ModelInputs((LEVEL,), 1000, 300)) == [
        "sensors: casting_speed m/min here, none there"
    ]


def test_a_name_shows_where_it_ends() -> None:
    other = SensorConfig(name="Volume Flow, left", unit="L/min")
    assert OURS.differences(ModelInputs((LEVEL, other), 1000, 300)) == [
        'sensors: casting_speed m/min here, "Volume Flow, left" L/min there'
    ]


def test_of_many_sensors_the_first_are_named() -> None:
    many = tuple(SensorConfig(name=f"s{number}") for number in range(30))
    (told,) = ModelInputs(many, 1000, 300).differences(ModelInputs(many[::-1], 1000, 300))
    assert told.startswith("sensors: s0, s1, s2, s3, s4, s5, s6, s7 and 22 more here, s29, ")


def test_period_and_window_are_told_beside_the_sensors() -> None:
    assert OURS.differences(ModelInputs((LEVEL, SPEED), 100, "cast")) == [
        "period: 1000 ms here, 100 ms there",
        "window: 300 steps here, whole casts there",
    ]
    assert len(OURS.differences(ModelInputs((HEAT,), 100, 60))) == 3
