"""A relative path in a configuration file goes from the folder of that file, wherever a service is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.config import KafkaConfig, RedisConfig
from trainer.config import ModelConfig, TrainerSettings, load_trainer_settings
from trainer.release import RegistryConfig

GIVEN = """
kafka: {ssl_cafile: ca.pem, password_file: secrets/kafka}
redis: {password_file: ../redis}
registry: {path: models}
model: {config: lstm/model.yaml, tensorboard_dir: curves}
"""


@pytest.fixture(params=["beside the file", "elsewhere", "at the root"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, seen from several working directories."""
    folder, elsewhere = tmp_path / "etc/castloop", tmp_path / "elsewhere"
    for path in (folder / "lstm", elsewhere):
        path.mkdir(parents=True)
    for name in ("model_config.yaml", "lstm/model.yaml"):
        (folder / name).write_text("{}")
    places = {"beside the file": folder, "elsewhere": elsewhere, "at the root": Path("/")}
    monkeypatch.chdir(places[request.param])
    return folder


def load(folder: Path, text: str) -> TrainerSettings:
    (folder / "trainer.yaml").write_text(text)
    return load_trainer_settings(folder / "trainer.yaml")[0]


def test_what_is_given_goes_from_the_folder_of_the_file(folder: Path) -> None:
    settings = load(folder, GIVEN)
    assert settings.registry.path == folder / "models"
    assert settings.model == ModelConfig(config=folder / "lstm/model.yaml", tensorboard_dir=folder / "curves")
    assert (settings.kafka.ssl_cafile, settings.kafka.password_file) == (
        folder / "ca.pem",
        folder / "secrets/kafka",
    )
    assert settings.redis.password_file is not None
    assert settings.redis.password_file.resolve() == folder.parent / "redis"


@pytest.mark.parametrize("text", ["{}", "registry: {keep: 3}\nmodel: {tensorboard_dir: null}\n"])
def test_so_does_a_default_whether_its_section_stands_in_the_file_or_not(folder: Path, text: str) -> None:
    settings = load(folder, text)
    assert settings.registry.path == folder / "registry"
    assert settings.model == ModelConfig(config=folder / "model_config.yaml", tensorboard_dir=None)
    assert (settings.kafka.password_file, settings.redis.password_file) == (None, None)


def test_and_what_the_environment_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTING_REGISTRY__PATH", "of-the-environment")
    assert load(folder, GIVEN).registry.path == folder / "of-the-environment"


def test_an_absolute_path_stays(folder: Path) -> None:
    settings = load(
        folder,
        "kafka: {password_file: /run/kafka}\nredis: {password_file: /run/redis}\nregistry: {path: /var/models}\n"
        f"model: {{config: {folder}/lstm/model.yaml, tensorboard_dir: /var/curves}}\n",
    )
    assert (settings.kafka.password_file, settings.redis.password_file) == (
        Path("/run/kafka"),
        Path("/run/redis"),
    )
    assert (settings.registry.path, settings.model.tensorboard_dir) == (
        Path("/var/models"),
        Path("/var/curves"),
    )


def test_a_file_that_is_named_from_the_working_directory_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/trainer.yaml").write_text("{}")
    (tmp_path / "etc/model_config.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    settings, _ = load_trainer_settings(Path("etc/trainer.yaml"))
    monkeypatch.chdir("/")  # a service may go elsewhere once it runs
    assert settings.registry.path == tmp_path / "etc/registry"


def test_a_section_that_a_program_makes_keeps_its_path(folder: Path) -> None:
    load(folder, GIVEN)  # which leaves nothing behind
    assert RegistryConfig(path=Path("models")).path == Path("models")
    assert RegistryConfig().path == Path("registry")
    assert ModelConfig(tensorboard_dir=Path("curves")).tensorboard_dir == Path("curves")
    assert KafkaConfig(username="u", password_file=Path("k")).password_file == Path("k")
    assert RedisConfig(password_file=Path("r")).password_file == Path("r")
    assert TrainerSettings().registry.path == Path("registry")


def test_two_files_are_read_one_after_the_other_each_from_its_own_folder(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_config.yaml").write_text("{}")
        found.append(load(tmp_path / name, "{}").registry.path)
    assert found == [tmp_path / "a/registry", tmp_path / "b/registry"]
