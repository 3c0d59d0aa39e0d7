"""Clients of kafka-python that come to nothing."""

from __future__ import annotations

import gc
import logging
import threading
import warnings
from typing import Any

import kafka
import kafka.errors
import pytest

from streamer.config import KafkaConfig
from streamer.kafka.connection import client_options, open_client


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of clients that found no broker
@pytest.mark.parametrize("kind", [kafka.KafkaConsumer, kafka.KafkaAdminClient])
def test_one_that_finds_no_broker_leaves_no_thread_behind(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # what is kept of it would keep its sockets
    threads = threading.active_count()
    nowhere = client_options(KafkaConfig(bootstrap_servers="127.0.0.1:1", request_timeout_ms=1_000))
    with pytest.raises(kafka.errors.KafkaError):
        open_client(kind, **nowhere)
    assert threading.active_count() == threads
    with warnings.catch_warnings(action="ignore"):
        gc.collect()
