"""A configuration file is read whole or refused with every fault at its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.config import StreamerSettings
from streamer.errors import ConfigError
from streamer.settings import SECTIONS, load_settings, read_secret
from trainer.config import TrainerSettings
from trainer.learn.config import ModelSettings

Load = Callable[[str], StreamerSettings]
Faults = Callable[[str], list[str]]

DATA = "data:\n  sensors: [{name: mold_level, unit: mm}]\n"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str) -> StreamerSettings:
        path = tmp_path / "s.yaml"
        path.write_text(text, encoding="utf-8")
        return load_settings(StreamerSettings, path)

    return load_text


@pytest.fixture
def faults(load: Load, tmp_path: Path) -> Faults:
    def faults_of(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return str(caught.value).replace(str(tmp_path / "s.yaml"), "s.yaml").splitlines()

    return faults_of


def test_defaults_stand_where_the_file_says_nothing(load: Load) -> None:
    settings = load(DATA)
    assert settings.windows.size_steps == 300
    assert settings.data.sensor_names == ("mold_level",)


def test_a_window_has_so_many_steps_or_is_a_whole_cast(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(DATA + "windows: {size_steps: 60}\n").windows.size_steps == 60
    assert load(DATA + "windows: {size_steps: cast}\n").windows.size_steps == "cast"
    monkeypatch.setenv("CASTING_WINDOWS__SIZE_STEPS", "120")
    assert load(DATA).windows.size_steps == 120


def test_all_faults_are_told_at_once_at_their_lines(faults: Faults) -> None:
    found = faults(
        DATA + "http:\n  port: 70000\n  prt: 1\nwindow: {}\nredis:\n  url: http://x\n  url: redis://x\n"
    )
    assert [line.split(": ")[:2] for line in sorted(found)] == [
        ["s.yaml:4", "http.port"],
        ["s.yaml:5", "http.prt"],
        ["s.yaml:6", "window"],
        ["s.yaml:9", "redis.url"],
    ]
    assert any("stands twice, first at line 8" in line for line in found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("data:\n  sensors:\n    - {name: a}\n    - {name: a}\n", "s.yaml:1: data: sensors named twice: a"),
        (
            "data:\n  sensors:\n    - {name: ts}\n",
            "s.yaml:3: data.sensors.0.name: ts is a field of the messages; give the sensor another name",
        ),
        (
            "data:\n  sensors:\n    - {name: a}\n    - {nam: b}\n",
            "s.yaml:4: data.sensors.1.name: Field required",
        ),
        ("data: {sensors: []}\n", "s.yaml:1: data.sensors: "),
        ("", "s.yaml:1: data: Field required"),
        ("- a\n", "s.yaml:1: expected sections such as 'kafka:'"),
        ("1: 2\n" + DATA, "s.yaml:1: expected sections such as 'kafka:'"),
        (DATA + "http: {port: [}\n", "s.yaml:3: not YAML"),
        (DATA + "a: &a [*a]\n", "s.yaml: an alias holds itself"),
        (DATA + "http: !!python/name:os.system\n", "s.yaml:3: not YAML"),
        (
            DATA + "windows: {size_steps: 1}\n",
            "s.yaml:3: windows.size_steps: expected 2 to 1000000 steps, or cast: one window a cast",
        ),
        (
            DATA + "windows: {size_steps: casts}\n",
            "s.yaml:3: windows.size_steps: expected 2 to 1000000 steps",
        ),
        (DATA + "windows: {size_steps: 9.5}\n", "s.yaml:3: windows.size_steps: expected 2 to 1000000 steps"),
        (DATA + "kafka: {security_protocol: SASL_SSL}\n", "s.yaml:3: kafka: SASL_SSL needs username"),
        (DATA + "redis: {username: castloop}\n", "s.yaml:3: redis: username needs password_file"),
        # what cannot be read would come back as a dead letter, to be read again, and so on
        (
            DATA + "topics:\n  readings: x\n  dead_letters: x\n",
            "s.yaml:3: topics: x is readings and dead_letters; each has a topic of its own",
        ),
        (
            DATA + "topics: {labels: casting.models}\n",
            "s.yaml:3: topics: casting.models is labels and models",
        ),
        (DATA + "topics: {labels: a b}\n", "s.yaml:3: topics.labels: String should match"),
        (DATA + "topics: {readings: ''}\n", "s.yaml:3: topics.readings: String should match"),
        *(
            (
                DATA + f"kafka: {{bootstrap_servers: {servers!r}}}\n",
                "s.yaml:3: kafka.bootstrap_servers: expected host:port[,host:port...]",
            )
            for servers in ("a:b:c", "127.0.0.1:x", "a:9092;b:9092", "a:9092,,b:9092", "a:9092,")
        ),
        *(
            (
                DATA + f"retention: {{{key}: {number}}}\n",
                f"s.yaml:3: retention.{key}: Input should be a finite number",
            )
            for key in ("max_age_s", "stubs_s", "pending_labels_s")
            for number in ("inf", "1e400")
        ),
        (
            DATA + "retention: {max_casts: true}\n",
            "s.yaml:3: retention.max_casts: true is no value of this key",
        ),
        (DATA + "retention: {max_age_s: false}\n", "s.yaml:3: retention.max_age_s: false is no value"),
        (
            DATA + "a: " + "[" * 3_000 + "]" * 3_000 + "\n",
            "s.yaml: an alias holds itself, or the file is nested",
        ),
    ],
)
def test_a_fault_names_its_place(faults: Faults, text: str, fault: str) -> None:
    assert any(line.startswith(fault) for line in faults(text)), faults(text)


@pytest.mark.parametrize("word", ["no", "on", "012", "22:30", "0x1F", "1_000", "2026-11-22"])
def test_words_stay_words(load: Load, word: str) -> None:
    assert load(DATA + f"consumer: {{group_id: {word}}}\n").consumer.group_id == word


def test_a_clock_time_is_no_number(faults: Faults) -> None:
    assert "s.yaml:3: event_time.idle_timeout_s" in faults(DATA + "event_time: {idle_timeout_s: 22:30}\n")[0]


def test_the_environment_wins(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTING_HTTP__PORT", "8080")
    assert load(DATA + "http: {port: 1, host: '::1'}\n").http.model_dump() == {
        "host": "::1",
        "port": 8080,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CASTING_HTTP__PORT", "no"),
        ("CASTING_HTTP__PROT", "1"),
        ("CASTING_KAFKA__BOOTSTRAP_SERVERS", ""),
        ("CASTING_DATA__SENSORS", "[not json"),
        ("CASTING_DATA", "not json"),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(
    faults: Faults, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert faults(DATA)[0].startswith(f"environment: {name}: ")


def test_a_fault_within_a_list_of_the_environment_is_not_told_of_the_file(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTING_SOURCES", '[{"topic": "x", "formt": "tag"}]')
    assert faults(DATA) == ["environment: CASTING_SOURCES: 0.formt: no such key; did you mean format?"]


@pytest.mark.parametrize(
    "servers", ["broker", "broker:9092", "a:9092,b:9093", "a:9092, b:9093", "[::1]:9092", "10.0.0.1:1"]
)
def test_servers_are_named_with_or_without_a_port(load: Load, servers: str) -> None:
    assert load(DATA + f"kafka: {{bootstrap_servers: '{servers}'}}\n").kafka.bootstrap_servers == servers


def test_a_variable_of_an_unknown_section_is_refused(
    load: Load, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTING_KAFAK__BOOTSTRAP_SERVERS", "x:1")
    assert faults(DATA)[0].startswith(
        "environment: CASTING_KAFAK__BOOTSTRAP_SERVERS: no such section: kafak;"
    )


def test_a_variable_of_the_other_service_is_left_alone(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTING_TRAINING__MAX_EPOCHS", "3")
    monkeypatch.setenv("CASTING_TEST_KAFKA", "x:1")
    assert load(DATA)


def test_the_sections_are_those_of_all_files() -> None:
    roots = (StreamerSettings, TrainerSettings, ModelSettings)
    assert frozenset().union(*(root.model_fields for root in roots)) == SECTIONS


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_settings(StreamerSettings, tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot read it"):
        load_settings(StreamerSettings, tmp_path)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"http: {host: \xff}\n")
    with pytest.raises(ConfigError, match="cannot read it"):
        load_settings(StreamerSettings, path)


def test_a_secret_is_the_file_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(" p w \n")
    assert read_secret(path) == " p w "


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="secret"):
        read_secret(path)
    with pytest.raises(ConfigError, match="elsewhere"):
        read_secret(tmp_path / "elsewhere")
