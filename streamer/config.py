"""The sections of the configuration files that both services share, and the streamer's own file."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from streamer.sensors import SensorName, listed
from streamer.settings import ConfigPath, PlacedError, Section, Settings
from streamer.sources import LabelSourceConfig, SourceConfig, Topic, faults_of_sources

_SERVER = re.compile(r"\s*([A-Za-z_]+://)?(\[[0-9A-Fa-f:.]+\]|[^\s:;\[\]]+)(:[0-9]{1,5})?\s*")


def _servers(text: str) -> str:
    if not all(_SERVER.fullmatch(server) for server in text.split(",")):
        raise ValueError("expected host:port[,host:port...]")
    return text


class KafkaConfig(Section):
    """How to reach the brokers."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: ConfigPath | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password_file: ConfigPath | None = Field(
        None, description="a file that holds the password and nothing else"
    )
    request_timeout_ms: int = Field(10_000, ge=1_000, le=300_000)

    @model_validator(mode="after")
    def _sasl_needs_credentials(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.username and self.password_file):
            raise ValueError(f"{self.security_protocol} needs username and password_file")
        return self


class TopicsConfig(Section):
    """Names of the topics."""

    readings: Topic = "casting.readings"
    labels: Topic = "casting.labels"
    dead_letters: Topic = "casting.dead-letters"
    models: Topic = "casting.models"
    model_events: Topic = "casting.model-events"
    num_partitions: int = Field(4, ge=1, le=1024, description="of readings and labels, when we create them")
    replication_factor: int = Field(1, ge=1, le=10)
    create: bool = Field(True, description="create a missing topic; false: wait for it")

    @model_validator(mode="after")
    def _topics_are_distinct(self) -> Self:
        uses: dict[str, str] = {}
        for key in ("readings", "labels", "dead_letters", "models", "model_events"):
            topic = getattr(self, key)
            if topic in uses:
                raise ValueError(f"{topic} is {uses[topic]} and {key}; each has a topic of its own")
            uses[topic] = key
        return self


class RedisConfig(Section):
    """How to reach Redis, and under which namespace our keys stand."""

    url: str = Field("redis://127.0.0.1:6379/0", pattern=r"^(redis|rediss|unix)://")
    username: str | None = None
    password_file: ConfigPath | None = Field(
        None, description="a file that holds the password and nothing else"
    )
    namespace: str = Field("casting", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    timeout_s: float = Field(5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _a_user_has_a_password(self) -> Self:
        if self.username and not self.password_file:
            raise ValueError("username needs password_file")
        return self


class SensorConfig(Section):
    """One sensor: a field of a wide reading, a column of the data set."""

    name: SensorName
    unit: str = ""


class DataConfig(Section):
    """What a namespace fixes for good: sensors in order, period, grid."""

    sensors: tuple[SensorConfig, ...] = Field(min_length=1, max_length=1024)
    period_ms: int = Field(1000, ge=1, le=3_600_000)
    grid_phase_ms: int = Field(0, ge=0, description="offset of the step grid from the epoch")
    # Smaller: more keys a cast. Larger: short casts waste memory, since a block is created at full length.
    block_steps: int = Field(256, ge=16, le=65_536)

    @model_validator(mode="after")
    def _sensors_are_distinct(self) -> Self:
        names = self.sensor_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sensors named twice: {listed(twice)}; give each a name of its own")
        if self.grid_phase_ms >= self.period_ms:
            raise ValueError("grid_phase_ms must be below period_ms")
        return self

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """Names in column order."""
        return tuple(sensor.name for sensor in self.sensors)


class EventTimeConfig(Section):
    """When a step is final."""

    # Smaller: stragglers become late dead letters. Larger: windows seal later and more state is held a cast.
    allowed_lateness_s: float = Field(30.0, ge=0, le=86_400)
    idle_timeout_s: float = Field(600.0, gt=0, le=7 * 86_400)
    max_future_s: float = Field(300.0, ge=0, le=7 * 86_400)
    # Smaller: what a gateway kept back in an outage is refused. Larger: a wild stamp makes a long empty cast.
    max_past_s: float = Field(86_400.0, ge=1, le=31 * 86_400)


class BreakerConfig(Section):
    """When a partition whose records fail for the most part is stopped."""

    share: float = Field(0.5, gt=0, le=1, description="stops above this share of failures; 1: never")
    # Smaller: a short burst of bad records stops a partition. Larger: more dead letters until it stops.
    min_records: int = Field(500, ge=1, le=1_000_000)
    window_records: int = Field(1_000, ge=1, le=1_000_000, description="looks at so many last records")

    @model_validator(mode="after")
    def _window_holds_enough(self) -> Self:
        if self.min_records > self.window_records:
            raise ValueError("min_records must not be above window_records")
        return self


def _size_steps(value: object) -> int | str:
    """One answer for both kinds; a union would name each of its branches."""
    if value == "cast":
        return "cast"
    text = value.strip() if isinstance(value, str) else ""
    steps = int(text) if text.isdecimal() else value  # the environment gives text
    if type(steps) is not int or not 2 <= steps <= 1_000_000:
        raise ValueError("expected 2 to 1000000 steps, or cast: one window a cast")
    return steps


class WindowsConfig(Section):
    """A window spec: how sealed rows are cut into training windows.

    `size_steps: cast` makes one window of each cast; `hop_steps`, `short_casts` and `tail` mean nothing then.
    """

    name: str = Field("default", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    size_steps: Annotated[int | Literal["cast"], PlainValidator(_size_steps)] = 300
    hop_steps: int = Field(300, ge=1, le=1_000_000)
    min_valid_ratio: Annotated[float, Field(ge=0, le=1)] = 0.8
    short_casts: Literal["pad", "drop"] = "pad"
    tail: Literal["drop", "align_end"] = "drop"


class RetentionConfig(Section):
    """What of the casts that are over stays in Redis. Held casts (data sets, replay) stay, and count on top."""

    max_age_s: float | None = Field(None, gt=0, description="by log time of the first record; null: for good")
    max_casts: int | None = Field(None, ge=1, description="null: as many as come")
    max_bytes: int | None = Field(None, ge=1_000_000, description="of rows and index; null: as many as come")
    # Smaller than the topics are kept: a replayed reading makes a new cast of an old one. Larger: 2 kB a cast.
    stubs_s: float = Field(
        30 * 86_400.0, gt=0, description="how long span and labels of an evicted cast stay"
    )
    # Smaller: verdicts that run ahead of their readings are lost. Larger: those of misspelt casts stay longer.
    pending_labels_s: float = Field(7 * 86_400.0, gt=0, description="how long a label waits for its cast")
    # Smaller: more questions to Redis. Larger: limits are passed by what comes meanwhile.
    interval_s: float = Field(10.0, gt=0, le=3_600, description="how often a member looks")


class HttpConfig(Section):
    """Where /metrics, /livez and /readyz answer."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535, description="0: any free port, told in the log")


class LoggingConfig(Section):
    """Logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal")


class ConsumerConfig(Section):
    """The consumer group of the streamer."""

    group_id: str = Field("casting-streamer", min_length=1)
    # Smaller: rebalances under load spikes. Larger: a dead member's partitions stand still for longer.
    session_timeout_ms: int = Field(30_000, ge=1_000, le=600_000)
    heartbeat_interval_ms: int = Field(3_000, ge=100)
    max_poll_interval_ms: int = Field(300_000, ge=1_000)
    # Smaller: a batch costs each cast the same whatever its size; 5,000 took a third more time a reading. Larger:
    # more memory, and more to read again after a crash. A fetch of 1 MiB holds some 6,000 readings in JSON.
    max_poll_records: int = Field(20_000, ge=1, le=100_000)
    poll_timeout_ms: int = Field(200, ge=1, le=10_000)
    # cooperative-sticky: a rebalance moves as few partitions as it can, the others are read on meanwhile.
    # All members of a group need the same one.
    assignment: Literal["range", "cooperative-sticky"] = "range"
    # auto: columns of whole batches where the installed client was tested with it. off: the client's public API.
    fast_path: Literal["auto", "off"] = "auto"
    # Smaller: a large plant is told about what is right. Larger: a wrong cast id fills more memory until it is told.
    many_open_casts: int = Field(20_000, ge=1, description="of one partition; more are told, and read on")


class StreamerSettings(Settings):
    """configs/streamer.yaml."""

    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    redis: RedisConfig = RedisConfig()
    data: DataConfig
    event_time: EventTimeConfig = EventTimeConfig()
    windows: WindowsConfig = WindowsConfig()
    retention: RetentionConfig = RetentionConfig()
    consumer: ConsumerConfig = ConsumerConfig()
    breaker: BreakerConfig = BreakerConfig()
    http: HttpConfig = HttpConfig()
    logging: LoggingConfig = LoggingConfig()
    sources: tuple[SourceConfig, ...] = Field((), description="absent: one, on topics.readings")
    label_source: LabelSourceConfig = LabelSourceConfig()

    @model_validator(mode="after")
    def _sources_fit_the_data(self) -> Self:
        units = {sensor.name: sensor.unit for sensor in self.data.sensors}
        taken = {
            getattr(self.topics, key): f"topics.{key}"
            for key in ("labels", "dead_letters", "models", "model_events")
        }
        faults = list(faults_of_sources(self.sources, units, taken))
        if faults:
            raise PlacedError(faults)
        return self

    @property
    def reading_topics(self) -> tuple[str, ...]:
        """The topics that readings are taken from."""
        return tuple(source.topic for source in self.sources) or (self.topics.readings,)

    def source_of(self, topic: str) -> SourceConfig:
        """The form of the messages on one of `reading_topics`."""
        configured = {source.topic: source for source in self.sources}
        return configured.get(topic) or SourceConfig(topic=topic)
