"""A sensor has the name that its plant gave it; what cannot be one is refused with the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from odd_names import ODD_NAMES
from pydantic import ValidationError

from streamer.config import SensorConfig, StreamerSettings
from streamer.errors import ConfigError
from streamer.sensors import RESERVED, fault_of_name, listed, quoted
from streamer.settings import load_settings

# A letter and the mark above it; a unit sign that is another letter when composed.
APART = ("Gie\u0301en", "R [\u2126]")
REFUSED = [
    ("", '"" is blank; write a name'),
    ("x" * 129, "x has 129 characters, more than 128; shorten it"),
    (" \n", "is blank; write a name"),
    (" level", '" level" begins or ends with a blank; write level'),
    ("in flow ", '"in flow " begins or ends with a blank; write "in flow"'),
    ("level\n", '"level\\n" begins or ends with a blank; write level'),
    ("\u00a0level", '"\\xa0level" begins or ends with a blank; write level'),
    ("a\nb", "holds U+000A, which does not print; write a space in its place"),
    ("a\tb", "holds U+0009, which does not print; write a space in its place"),
    ("12\u00a0bar", "holds U+00A0, which does not print; write a space in its place"),
    ("a\x00b", "holds U+0000, which does not print; leave it out"),
    ("\ufefflevel", "holds U+FEFF, which does not print; leave it out"),
    ("\u202elevel", "holds U+202E, which does not print; leave it out"),
    ("\ud800", "holds U+D800, which does not print; leave it out"),
    (APART[0], "is not in composed form (NFC); write 'Gi\\xe9en'"),
    (APART[1], "is not in composed form (NFC); write 'R [\\u03a9]'"),
    *((name, "is a field of the messages; give the sensor another name") for name in sorted(RESERVED)),
]


def load(folder: Path, *names: object, more: str = "") -> StreamerSettings:
    data = {"data": {"sensors": [{"name": name} for name in names]}}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False, default_style='"') + more, encoding="utf-8")
    return load_settings(StreamerSettings, path)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_what_prints_is_a_name(name: str) -> None:
    assert SensorConfig(name=name).name == name


def test_a_file_and_the_environment_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path, *ODD_NAMES).data.sensor_names == ODD_NAMES
    sources = [{"topic": "t", "sensors": {name: {"min": 0} for name in ODD_NAMES}, "tags": {"é": "7"}}]
    monkeypatch.setenv("CASTING_DATA__SENSORS", json.dumps([{"name": name} for name in ODD_NAMES]))
    monkeypatch.setenv("CASTING_SOURCES", json.dumps(sources, ensure_ascii=False))
    settings = load(tmp_path, "a")
    assert settings.data.sensor_names == ODD_NAMES
    assert tuple(settings.source_of("t").sensors) == ODD_NAMES


@pytest.mark.parametrize(("name", "said"), REFUSED)
def test_what_is_no_name_is_refused_with_the_mend(name: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SensorConfig(name=name)
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [7, 1.5, None, ["a"]])
def test_a_name_that_yaml_takes_for_something_else_wants_quotes(value: object) -> None:
    with pytest.raises(ValidationError, match="is no text; write it in quotes"):
        SensorConfig.model_validate({"name": value})


def test_the_fault_of_a_name_stands_on_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("data:\n  sensors:\n    - name: a b\n    - name: ts\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(StreamerSettings, path)
    assert str(caught.value).startswith(f"{path}:4: data.sensors.1.name: ts is a field of the messages")


def test_names_are_distinct(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'sensors named twice: "a, b"; give each a name of its own'):
        load(tmp_path, "a, b", "a, b", "c")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            'sources: [{topic: t, sensors: {"b\\nc": {}}}]\n',
            'sources.0.sensors.b\\nc: "b\\nc" holds U+000A, which',
        ),
        ('sources: [{topic: t, tags: {x: "b\\nc"}}]\n', 'sources.0.tags.x: "b\\nc" holds U+000A, which'),
        ("sources: [{topic: t, tags: {x: c}}]\n", 'c is no sensor of data.sensors; sensors are "a, b", d'),
        (
            "sources: [{topic: t, sensors: {c: {}}}]\n",
            'no such sensor in data.sensors; sensors are "a, b", d',
        ),
        ("sources: [{topic: t, tags: {x: 7}}]\n", "7 is no text; write it in quotes"),
    ],
)
def test_a_source_that_names_no_sensor_is_told_which_there_are(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "a, b", "d", more=more)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_of_a_source_may_have_blanks_inside(tmp_path: Path) -> None:
    more = 'sources: [{topic: t, sensors: {a: {field: "Body Part.Volume Flow [%]"}}}]\n'
    assert load(tmp_path, "a", more=more).source_of("t").sensors["a"].field == "Body Part.Volume Flow [%]"
    for field in (" x", "x ", "a. b", "a .b"):
        with pytest.raises(ConfigError, match="is no path"):
            load(tmp_path, "a", more=more.replace("Body Part.Volume Flow [%]", field))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mold_level", "mold_level"),
        ("TI-4711.PV", "TI-4711.PV"),
        ("Δp/°C%", "Δp/°C%"),
        ("Volume Flow RateRMS", '"Volume Flow RateRMS"'),
        ("a,b", '"a,b"'),
        ('3"', '"3\\""'),
        ("C:\\x", '"C:\\\\x"'),
        ("", '""'),
        ("\x1b[31m\u202e", '"\\u001b[31m\\u202e"'),
    ],
)
def test_in_a_sentence_a_name_shows_where_it_ends(name: str, shown: str) -> None:
    assert quoted(name) == shown


def test_names_in_a_list_are_told_apart() -> None:
    assert listed(["a", "b, c", "d"]) == 'a, "b, c", d'


@given(st.text(max_size=130))
def test_what_is_a_name_can_be_shown_and_read_back(name: str) -> None:
    assert quoted(name).isprintable()
    if fault_of_name(name) is None and quoted(name) != name:
        assert json.loads(quoted(name)) == name
