"""What every client of ours shares: options, errors mapped to ours, types of one side turned into the other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka
import kafka.errors

from streamer.config import KafkaConfig
from streamer.errors import BrokerUnavailableError, ConfigError
from streamer.records import Partition, Record
from streamer.settings import read_secret

# A model update is one record; brokers take 1 MiB by default, and a larger limit costs nothing here.
MAX_REQUEST_BYTES = 8 * 1024 * 1024


@contextmanager
def map_kafka_errors(action: str, servers: str) -> Iterator[None]:
    """Translates every error of kafka-python: credentials to `ConfigError`, the rest to a retriable one."""
    try:
        yield
    except (
        kafka.errors.SaslAuthenticationFailedError,
        kafka.errors.UnsupportedSaslMechanismError,
        kafka.errors.AuthorizationError,
    ) as exc:
        raise ConfigError(
            f"Kafka at {servers} refused us while {action}: {exc}; "
            "check kafka.username, kafka.password_file, kafka.sasl_mechanism and the rights of that user"
        ) from exc
    except (kafka.errors.KafkaConfigurationError, AssertionError) as exc:
        raise ConfigError(f"the Kafka client refused its settings while {action}: {exc}") from exc
    except (kafka.errors.KafkaError, OSError) as exc:
        raise BrokerUnavailableError(f"Kafka at {servers}: {action} failed: {exc}") from exc


def client_options(config: KafkaConfig) -> dict[str, Any]:
    """What every client is given: servers, credentials, timeouts."""
    options: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap_servers.split(","),
        "client_id": "castloop",
        "security_protocol": config.security_protocol,
        "request_timeout_ms": config.request_timeout_ms,
        "bootstrap_timeout_ms": config.request_timeout_ms,
        # The client's own default backs off to 30 s, which is how long a mended broker would go unseen.
        "reconnect_backoff_max_ms": 2_000,
    }
    if config.ssl_cafile:
        options["ssl_cafile"] = str(config.ssl_cafile)
    if config.security_protocol.startswith("SASL") and config.password_file:
        options |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.username,
            "sasl_plain_password": read_secret(config.password_file),
        }
    return options


def topic_partition(partition: Partition) -> Any:
    """The client's own type of a partition."""
    return kafka.TopicPartition(*partition)


def as_record(record: Any) -> Record:
    """Our type of a record that the client handed out."""
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )
