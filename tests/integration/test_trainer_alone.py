"""One trainer a model name: the lease, the numbers on the topic, a registry that is behind them."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from plants import Plant, casts
from trainers import Life, Turns, life, settings

from streamer.config import KafkaConfig, RedisConfig
from streamer.embedded import EmbeddedRedis
from streamer.kafka import TopicReader, ensure_topics
from streamer.store.lease import LeaseTakenError
from streamer.store.requests import CycleRequests
from trainer.config import TrainerSettings
from trainer.errors import RegistryBehindError
from trainer.release import RegistryReader, release_topics

PATIENCE_S = 20.0


def elsewhere(config: TrainerSettings, path: Path) -> TrainerSettings:
    """The same trainer on another folder."""
    return config.model_copy(update={"registry": config.registry.model_copy(update={"path": path})})


@pytest.fixture
def nowhere() -> Iterator[KafkaConfig]:
    """A broker that is not there; clients that look for it leave their sockets to the collector."""
    log = logging.getLogger("kafka")
    log.setLevel(logging.CRITICAL)  # pytest keeps what they log, and with it their sockets
    yield KafkaConfig(bootstrap_servers="127.0.0.1:1", request_timeout_ms=1_000)
    log.setLevel(logging.NOTSET)
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


def versions_on_topic(config: TrainerSettings) -> list[int]:
    found: list[int] = []
    with TopicReader(config.kafka, config.topics.models) as reader:
        while batch := reader.poll(PATIENCE_S if not found else 0.3):
            found += [int(dict(record.headers)["ce_modelversion"] or b"0") for record in batch]
    return found


def train(plant: Plant, trainer: Life, begin: int) -> int:
    plant.write(casts(range(begin, begin + 60)))
    result = trainer.daemon.run_once()
    assert result is not None
    return result.version


class TestTheLease:
    def test_a_second_trainer_on_another_folder_is_refused_and_touches_nothing(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path
    ) -> None:
        with life(plant, config) as first:
            train(plant, first, 0)
            held = plant.reader().holds.holders()
            with (
                pytest.raises(LeaseTakenError, match="stop that trainer"),
                life(plant, elsewhere(config, tmp_path)),
            ):
                pass
            assert plant.reader().holds.holders() == held
            assert train(plant, first, 60) == 2
        assert versions_on_topic(config) == [1, 2]

    def test_one_that_lost_the_lease_in_training_registers_and_publishes_nothing(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path
    ) -> None:
        plant.write(casts(range(60)))

        def taken_over(_: object) -> None:
            # What a host that stood still for longer than its lease meets when it wakes up.
            plant.client.delete(plant.keys.lease(config.registry.model_name))
            with life(plant, elsewhere(config, tmp_path)):
                pass

        with life(plant, config, on_epoch=taken_over) as trainer, pytest.raises(LeaseTakenError):
            trainer.daemon.run_once()
        assert RegistryReader(config.registry).models() == []

    def test_a_redis_that_forgot_everything_gives_the_lease_back_to_the_one_that_had_it(
        self, kafka: KafkaConfig, unique: str, tmp_path: Path
    ) -> None:
        with EmbeddedRedis() as server:
            redis = RedisConfig(url=server.url, namespace=unique)
            plant = Plant(redis)
            config = settings(redis, tmp_path, kafka, unique)
            ensure_topics(kafka, release_topics(config.topics))
            with life(plant, config) as trainer:
                assert train(plant, trainer, 0) == 1
                plant.client.flushall()
                plant = Plant(redis)  # a streamer fills it again, from the beginning
                plant.write(casts(range(60, 120)))
                trainer.daemon.run(Turns(2))
                assert trainer.registry.last_version() == 2
            plant.close()

    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of clients that found no broker
    def test_a_version_that_another_registry_has_given_out_is_not_given_out_again(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path, nowhere: KafkaConfig
    ) -> None:
        away = config.model_copy(update={"kafka": nowhere})
        with life(plant, away) as trainer:  # what it decides stays in its outbox: Redis alone knows
            train(plant, trainer, 0)
        plant.write(casts(range(60, 120)))
        with life(plant, elsewhere(away, tmp_path)) as other:
            with pytest.raises(RegistryBehindError, match=r"version 1 .* was given out by another registry"):
                other.daemon.run_once()
            assert other.registry.models() == []


class TestARegistryBehindTheTopics:
    def behind(self, plant: Plant, config: TrainerSettings, tmp_path: Path) -> TrainerSettings:
        """A registry that was restored from a copy: of version 1, while the topic knows version 2."""
        with life(plant, config) as trainer:
            train(plant, trainer, 0)
            shutil.copytree(config.registry.path, tmp_path / "copy")
            train(plant, trainer, 60)
        return elsewhere(config, tmp_path / "copy")

    def test_is_refused_at_the_start_with_the_mend(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path
    ) -> None:
        old = self.behind(plant, config, tmp_path)
        with (
            life(plant, old) as trainer,
            pytest.raises(RegistryBehindError, match=r"ends at version 1.*--adopt"),
        ):
            trainer.daemon.run(Turns(1))

    def test_an_empty_folder_is_refused_as_well(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path
    ) -> None:
        self.behind(plant, config, tmp_path)
        empty = elsewhere(config, tmp_path / "empty")
        with life(plant, empty) as trainer, pytest.raises(RegistryBehindError, match="know of version 2"):
            trainer.daemon.run(Turns(1))

    def test_adopted_it_goes_on_behind_the_topic_with_the_model_in_use(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path
    ) -> None:
        self.behind(plant, config, tmp_path)
        plant.write(casts(range(120, 180)))
        empty = elsewhere(config, tmp_path / "empty")
        with life(plant, empty, adopts=True) as trainer:
            trainer.daemon.run(Turns(1))
            cycle = trainer.journal.state.cycle
            assert cycle is not None
            assert cycle.result is not None
            assert (cycle.number, cycle.result.version, cycle.result.parent) == (3, 3, 2)
            assert cycle.result.champion_scores is not None
        with life(plant, empty) as trainer:  # once is enough
            assert train(plant, trainer, 180) == 4
        assert sorted(set(versions_on_topic(config))) == versions_on_topic(config)

    def test_numbers_that_are_on_the_topic_never_come_again(
        self, plant: Plant, config: TrainerSettings, tmp_path: Path
    ) -> None:
        old = self.behind(plant, config, tmp_path)
        plant.client.delete(plant.keys.versions(config.registry.model_name))  # Redis has forgotten as well
        plant.write(casts(range(120, 180)))
        with life(plant, old) as trainer:
            # It has not looked at the topic yet, as while Kafka was away at its start.
            with pytest.raises(RegistryBehindError):
                trainer.daemon.run_once()
            assert len(trainer.registry.outbox()) > 0
        assert versions_on_topic(config) == [1, 2]


def test_what_kafka_does_not_take_blocks_only_itself_and_is_told(
    plant: Plant, config: TrainerSettings
) -> None:
    with life(plant, config) as trainer:
        train(plant, trainer, 0)
        trainer.registry.tell_failed("too-large", ["x" * 20_000_000], {})
        assert train(plant, trainer, 60) == 2
        assert [event.ce_id for event in trainer.registry.outbox()] == ["too-large"]
        trainer.daemon.run(Turns(2))
        assert trainer.metrics.refused_events._value.get() == 1
        assert trainer.metrics.unpublished._value.get() == 1
    assert versions_on_topic(config) == [1, 2]


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of clients that found no broker
def test_while_kafka_is_away_training_goes_on_and_all_is_sent_once_it_is_back(
    plant: Plant, config: TrainerSettings, nowhere: KafkaConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with life(plant, config.model_copy(update={"kafka": nowhere})) as trainer:
        for begin in (0, 60):
            plant.write(casts(range(begin, begin + 60)))
            trainer.daemon.run(Turns(2))
        assert trainer.registry.last_version() == 2
        assert len(trainer.registry.outbox()) == 4
        assert trainer.health.why_not_ready() is None
    assert capsys.readouterr().out.count("waiting") == 1
    with life(plant, config) as trainer:
        trainer.daemon.run(Turns(1))
        assert trainer.registry.outbox() == []
        cycle = trainer.journal.state.cycle
        assert cycle is not None
        assert cycle.phase == "published"
    assert versions_on_topic(config) == [1, 2]


def test_a_cycle_that_is_asked_for_is_run_by_the_trainer_that_runs(
    plant: Plant, config: TrainerSettings
) -> None:
    with life(plant, config) as trainer:
        train(plant, trainer, 0)
        requests = CycleRequests(plant.client, plant.keys, config.registry.model_name)
        for asker in ("a", "b"):
            requests.ask(asker)
        result = trainer.daemon.run_once()
        assert result is not None
        assert (result.number, result.trigger) == (2, "manual")
        for asker in ("a", "b"):
            answer = json.loads(requests.take_answer(asker) or b"{}")
            assert answer["result"]["number"] == 2
        assert trainer.daemon.run_once() is None
