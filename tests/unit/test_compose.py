"""What can be said of the container files without an engine: structure, pins, references, no secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streamer.config import StreamerSettings
from streamer.settings import Settings, load_settings
from trainer.config import TrainerSettings

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, type[Settings]] = {"streamer": StreamerSettings, "trainer": TrainerSettings}

_STRINGS = {"type": "array", "items": {"type": "string"}}
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m)$"}
# The part of the Compose specification that the files use: a key that is not here is a slip of the pen.
_SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9/-]+:v?\d+\.\d+\.\d+(-[a-z]+)?$"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "context": {"const": "."},
                "target": {"type": "string"},
                "args": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "restart": {"enum": ["always", "unless-stopped", "on-failure"]},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "user": {"type": "string", "not": {"pattern": "^(root|0)(:|$)"}},
        "working_dir": {"type": "string", "pattern": "^/"},
        "tmpfs": _STRINGS,
        "cap_drop": _STRINGS,
        "security_opt": _STRINGS,
        "stop_grace_period": _DURATION,
        "command": _STRINGS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^(\./)?[\w/-]+:/[\w/]+(:ro)?$"},
        },
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "properties": {"condition": {"const": "service_healthy"}},
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test", "interval", "timeout", "retries", "start_period"],
            "properties": {
                "test": {
                    "type": "array",
                    "minItems": 2,
                    "items": {"type": "string"},
                    "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}],
                },
                "interval": _DURATION,
                "timeout": _DURATION,
                "start_period": _DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
        "deploy": {"type": "object", "additionalProperties": False, "properties": {"resources": {}}},
    },
}
_FILE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": _SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
    },
}


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture
def compose() -> Any:
    return read_yaml("docker-compose.yml")


@pytest.fixture
def services(compose: Any) -> Any:
    return compose["services"]


@pytest.fixture
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def bind_mounts(service: Any) -> dict[str, Path]:
    """Folder in the container -> folder of the repository."""
    mounts = (volume.split(":") for volume in service.get("volumes", []))
    return {target: ROOT / source for source, target, *_ in mounts if source.startswith(".")}


def stage(dockerfile: str, target: str) -> str:
    """The lines of one build target."""
    found = re.search(rf"^FROM \S+ AS {target}$(.*?)(?=^FROM |\Z)", dockerfile, re.MULTILINE | re.DOTALL)
    assert found, f"the Dockerfile has no target {target}"
    return found[1]


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_the_file_keeps_to_the_structure_with_pinned_images_and_loopback_ports(name: str) -> None:
    jsonschema.Draft202012Validator(_FILE).validate(read_yaml(name))


def test_it_runs_both_servers_both_services_and_prometheus(services: Any) -> None:
    assert set(services) == {"kafka", "redis", "streamer", "trainer", "prometheus"}


@pytest.mark.parametrize("key", ["image", "restart", "healthcheck", "ports"])
def test_every_service_says_its(key: str, services: Any) -> None:
    assert [name for name, service in services.items() if key not in service] == []


def test_no_service_runs_as_root(services: Any, dockerfile: str) -> None:
    for service in services.values():
        if "user" not in service:
            users = re.findall(r"^USER (\S+)$", stage(dockerfile, service["build"]["target"]), re.MULTILINE)
            assert users[-1] == "castloop"


def test_no_secret_stands_in_the_environment(services: Any) -> None:
    names = [name for service in services.values() for name in service.get("environment", {})]
    assert [name for name in names if re.search("PASSWORD|SECRET|TOKEN|CREDENTIAL|JAAS", name, re.I)] == []


def test_no_two_services_publish_one_port(services: Any) -> None:
    ports = [port.split(":")[1] for service in services.values() for port in service["ports"]]
    assert len(ports) == len(set(ports))


def test_what_a_service_refers_to_is_there(compose: Any, services: Any) -> None:
    named = set()
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert [path for path in bind_mounts(service).values() if not path.is_dir()] == []
        named |= {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
    assert named == set(compose["volumes"])


def test_redis_never_evicts_and_writes_its_log(services: Any) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"


def test_kafka_tells_each_side_an_address_it_can_reach(services: Any) -> None:
    environment = services["kafka"]["environment"]
    listeners = dict(url.split("://") for url in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    bound = dict(url.split("://:") for url in environment["KAFKA_LISTENERS"].split(","))
    assert listeners["PLAINTEXT"] == services["streamer"]["environment"]["CASTING_KAFKA__BOOTSTRAP_SERVERS"]
    assert services["kafka"]["ports"] == [f"{listeners['HOST']}:{bound['HOST']}"]


@pytest.mark.parametrize("name", ["streamer", "trainer"])
def test_the_configuration_of_a_service_loads_under_its_environment(
    name: str, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = services[name]
    for key, value in service["environment"].items():
        monkeypatch.setenv(key, value)
    *_, flag, path = service["command"]
    assert flag == "-c"
    folder = bind_mounts(service)[str(Path(path).parent)]
    settings: Any = load_settings(SETTINGS[name], folder / Path(path).name)
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.redis.url == "redis://redis:6379/0"
    assert settings.http.host == "0.0.0.0"  # noqa: S104 - inside the container; the port is published on loopback


def test_models_are_written_to_a_volume(services: Any) -> None:
    path = Path(services["trainer"]["environment"]["CASTING_REGISTRY__PATH"])
    mounts = [volume.split(":")[1] for volume in services["trainer"]["volumes"] if not volume.startswith(".")]
    assert any(path.is_relative_to(mount) for mount in mounts)


@pytest.mark.parametrize("name", ["streamer", "trainer"])
def test_one_port_is_set_published_checked_and_scraped(name: str, services: Any) -> None:
    port = services[name]["environment"]["CASTING_HTTP__PORT"]
    assert services[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/livez" in services[name]["healthcheck"]["test"][-1]
    jobs = read_yaml("configs/prometheus/prometheus.yml")["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets[name] == [f"{name}:{port}"]


def test_images_are_built_from_a_pinned_base_and_known_targets(services: Any, dockerfile: str) -> None:
    assert re.findall(r"^FROM (\S+) AS base$", dockerfile, re.MULTILINE) == ["python:3.11.14-slim-bookworm"]
    for name in ("streamer", "trainer"):
        assert f'ENTRYPOINT ["{name}"]' in stage(dockerfile, services[name]["build"]["target"])


def test_what_the_images_copy_is_in_the_repository_and_let_through(dockerfile: str) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        word for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    }
    assert copied == let_through
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_gpu_file_overrides_arguments_the_dockerfile_has(services: Any, dockerfile: str) -> None:
    for name, service in read_yaml("docker-compose.gpu.yml")["services"].items():
        assert name in services
        for argument in service["build"]["args"]:
            assert f"ARG {argument}=" in stage(dockerfile, name)
