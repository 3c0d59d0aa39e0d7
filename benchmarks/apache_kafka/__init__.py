"""Apache Kafka itself, one broker that is its own controller; it needs Java 17 and, the first time, Maven.

Unlike the embedded broker it keeps its topics when it ends, so it can be killed and started again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from streamer.embedded import EmbeddedServerError, LocalServer, free_port

POM = Path(__file__).with_name("pom.xml")
_MAX_HEAP = "-Xmx640m"
_CLUSTER_ID = "castloopBenchmarksKafka"
_LOG4J = """<Configuration status="WARN"><Appenders><Console name="log"><PatternLayout pattern="%d %p %m (%c)%n"/>
</Console></Appenders><Loggers><Root level="WARN"><AppenderRef ref="log"/></Root></Loggers></Configuration>
"""


class ApacheBroker(LocalServer):
    """A broker of Apache Kafka on a free port of 127.0.0.1, with its log in a temporary folder until `stop`."""

    name = "apache-kafka"
    start_timeout_s = 60.0
    stop_timeout_s = 20.0

    def __init__(self) -> None:
        super().__init__()
        self._controller_port = free_port()
        self._jars = class_path()

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Starts it on what its log holds; the first time on an empty one."""
        properties = self._folder / "server.properties"
        if not properties.exists():
            (self._folder / "log4j2.xml").write_text(_LOG4J)
            properties.write_text(self._properties())
            tool = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties)]
            done = subprocess.run(self._java(*tool), capture_output=True, text=True, check=False)
            if done.returncode:
                raise EmbeddedServerError(
                    f"Kafka's log cannot be formatted: {done.stdout[-600:]}{done.stderr[-600:]}"
                )
        return super().start()

    def command(self) -> list[str]:
        """The broker's own command."""
        return self._java("kafka.Kafka", str(self._folder / "server.properties"))

    def go_away(self) -> None:
        """Ends it as a power cut would; its log stays."""
        self.kill()

    def come_back(self) -> None:
        """Starts it again on the same port."""
        self.start()

    def _java(self, *arguments: str) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise EmbeddedServerError("Apache Kafka needs Java 17: no java on PATH")
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.xml'}"
        return [java, _MAX_HEAP, logging, "-cp", f"{self._jars}/*", *arguments]

    def _properties(self) -> str:
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._folder / "log-dir",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        return "".join(f"{key}={value}\n" for key, value in lines.items())


def class_path() -> Path:
    """The folder of Kafka's jars, in this Python's environment; fetched with Maven where it is not there yet.

    Raises:
        EmbeddedServerError: They are not there and cannot be fetched.
    """
    folder = Path(sys.prefix) / "apache-kafka"
    wanted = POM.read_text()
    fetched = folder / "pom.xml"  # a copy, written last
    if fetched.exists() and fetched.read_text() == wanted:
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise EmbeddedServerError(f"no Apache Kafka in {folder}, and no mvn on PATH to fetch it with")
    shutil.rmtree(folder, ignore_errors=True)
    fetch = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddedServerError(f"Apache Kafka cannot be fetched: {done.stdout[-600:]}")
    fetched.write_text(wanted)
    return folder
