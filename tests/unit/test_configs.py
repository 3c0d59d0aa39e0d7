"""Every file in configs/ is one that the product reads, and loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.config import StreamerSettings
from streamer.settings import Settings, load_settings
from trainer.config import TrainerSettings
from trainer.learn.config import ModelSettings

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS: dict[str, type[Settings]] = {
    "streamer.yaml": StreamerSettings,
    "trainer.yaml": TrainerSettings,
    "model_config.yaml": ModelSettings,
}
# Read by Prometheus: test_alerts.py and test_compose.py look at them.
FOREIGN = {"prometheus"}
FILES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.rglob("*")
    if path.is_file() and path.relative_to(CONFIGS).parts[0] not in FOREIGN and path.suffix != ".md"
)


@pytest.mark.parametrize("name", FILES)
def test_loads(name: str) -> None:
    path = CONFIGS / name
    assert load_settings(SETTINGS[path.name], path)


def test_the_three_files_of_the_product_are_there() -> None:
    assert set(SETTINGS) <= set(FILES)


@pytest.mark.parametrize("folder", sorted({Path(name).parent.as_posix() for name in FILES}))
def test_streamer_and_trainer_of_one_folder_name_the_same_data(folder: str) -> None:
    streamer = load_settings(StreamerSettings, CONFIGS / folder / "streamer.yaml")
    trainer = load_settings(TrainerSettings, CONFIGS / folder / "trainer.yaml")
    assert trainer.topics == streamer.topics
    assert trainer.redis.namespace == streamer.redis.namespace


@pytest.mark.parametrize("name", [name for name in FILES if Path(name).name == "trainer.yaml"])
def test_models_go_into_the_folder_that_git_ignores(name: str) -> None:
    settings = load_settings(TrainerSettings, CONFIGS / name)
    assert settings.registry.path.resolve() == CONFIGS.parent / "registry"
