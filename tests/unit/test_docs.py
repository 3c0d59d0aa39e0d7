"""What the documents say is so: links, commands, options, keys, metrics, reasons; their examples run."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import typer.main
from columns import Reading, decode_reading
from defect_models import ALONE, network_alone
from prometheus_client import CollectorRegistry
from typer.core import TyperGroup

import streamer.cli
import trainer.cli
from streamer.codec import Codec
from streamer.config import KafkaConfig, StreamerSettings, TopicsConfig
from streamer.kafka import Producer, ensure_topics
from streamer.metrics import StreamerMetrics
from streamer.open_rows import OUTCOMES
from streamer.outcomes import REASONS, RECORD_KINDS
from streamer.records import Record
from streamer.schema import CastEnd, Label
from streamer.settings import ENV_PREFIX, SECTIONS, load_settings
from trainer.config import TrainerSettings
from trainer.learn.config import ArchitectureConfig, ModelSettings
from trainer.learn.model.network import build_model
from trainer.metrics import TrainerMetrics
from trainer.release import DatasetInfo, Manifest, Publisher, release_topics, write_artifact
from trainer.release.client.metrics import SubscriberMetrics
from trainer.release.client.results import SKIP_REASONS

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCS}
EVERYTHING = "\n".join(TEXTS.values())

APPS: dict[str, TyperGroup] = {}
for name, app in (("streamer", streamer.cli.app), ("trainer", trainer.cli.app)):
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    APPS[name] = group

KEYS = {
    (section, key)
    for settings in (StreamerSettings, TrainerSettings, ModelSettings)
    for section, field in settings.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {})
}


def code_blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a language, indented ones included."""
    fenced = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in fenced]


def inline_code() -> Iterator[str]:
    """What stands in single backticks."""
    for text in TEXTS.values():
        yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def anchors(text: str) -> set[str]:
    """Anchors that a Markdown viewer makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[document]):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / document).parent / path if path else ROOT / document
        assert found.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{document}: {target}"


def test_paths_that_are_named_exist() -> None:
    # Folders that are made when something runs are not named so.
    named = {
        word
        for word in inline_code()
        if re.fullmatch(r"(configs|docs|tests|streamer|trainer)/[\w./-]*", word)
    }
    assert len(named) >= 5
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_commands_and_their_options_exist() -> None:
    used = re.findall(r"\b(streamer|trainer) ([a-z][a-z-]*)((?: [\w./:<>=@-]+)*)", commands())
    assert {("streamer", "run"), ("streamer", "replay"), ("trainer", "once"), ("trainer", "watch")} <= {
        (program, command) for program, command, _ in used
    }
    for program, command, arguments in used:
        subcommand = APPS[program].commands.get(command)
        assert subcommand is not None, f"{program} {command}"
        if isinstance(subcommand, TyperGroup) and arguments:
            member = arguments.split()[0]
            assert member in subcommand.commands, f"{program} {command} {member}"
            subcommand = subcommand.commands[member]
        known = {option for parameter in subcommand.params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", arguments)) <= known, (
            f"{program} {command}{arguments}"
        )


def commands() -> str:
    """Inline code and blocks of commands that call our programs, one a line."""
    lines = [
        line
        for text in TEXTS.values()
        for line in text.splitlines()
        if line.startswith((".venv/bin/", "    "))
    ]
    words = [code for code in inline_code() if code.startswith(("streamer ", "trainer "))]
    return "\n".join(
        [*words, *(line for line in lines if re.match(r" *(\.venv/bin/)?(streamer|trainer) [a-z]", line))]
    )


def test_every_command_is_explained() -> None:
    for program, group in APPS.items():
        for name, command in group.commands.items():
            members = command.commands if isinstance(command, TyperGroup) else [""]
            for member in members:
                assert f"{program} {name} {member}".rstrip() in EVERYTHING


def test_make_targets_and_variables_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    used = re.findall(r"(?:^|`)make ([a-z-]+)((?: [A-Z_]+=\S+)*)", EVERYTHING, re.MULTILINE)
    assert {"demo", "test", "lint"} <= {target for target, _ in used}
    for target, variables in used:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for variable in re.findall(r"([A-Z_]+)=", variables):
            assert f"$({variable})" in makefile, variable


def test_configuration_keys_exist() -> None:
    words = [code.split(":")[0] for code in inline_code()]
    named = {
        (match[1], match[2])
        for word in words
        if (match := re.fullmatch(r"([a-z_]+)\.([a-z_0-9]+)", word)) and match[1] in SECTIONS
    }
    assert len(named) >= 30
    assert named - KEYS == set()


def test_environment_variables_name_keys() -> None:
    named = set(re.findall(rf"{ENV_PREFIX}([A-Z_]+?)__([A-Z_]+)", EVERYTHING))
    assert ("KAFKA", "BOOTSTRAP_SERVERS") in named
    assert {(section.lower(), key.lower()) for section, key in named} <= KEYS


def metric_names(registry: CollectorRegistry) -> set[str]:
    """Names as Prometheus scrapes them, histograms by their base name."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}


def test_metrics_exist_and_each_is_explained() -> None:
    subscriber = CollectorRegistry()
    SubscriberMetrics(subscriber)
    ours = (
        metric_names(StreamerMetrics().registry)
        | metric_names(TrainerMetrics().registry)
        | metric_names(subscriber)
    )
    named = set(re.findall(r"\bcasting_(?:streamer|trainer|model)_[a-z_]+\b", EVERYTHING))
    assert named == ours


def test_kinds_of_records_and_outcomes_of_steps_are_those_that_are_counted() -> None:
    records, steps = (
        re.search(rf"`casting_streamer_{what}_total` \| [\w ]+: ([\w, ]+) \|", TEXTS["docs/operations.md"])
        for what in ("records", "steps")
    )
    assert records
    assert steps
    assert set(records[1].split(", ")) == set(RECORD_KINDS)
    assert set(steps[1].split(", ")) == set(OUTCOMES)


def test_reasons_of_dead_letters_exist_and_each_has_a_mend() -> None:
    table = TEXTS["docs/operations.md"].partition("| reason | mend |")[2].partition("\n\n")[0]
    explained = {
        reason for row in table.splitlines()[2:] for reason in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert explained == set(REASONS)


def test_reasons_for_skipping_a_model_update_exist_and_each_has_a_mend() -> None:
    table = TEXTS["docs/operations.md"].partition("| skipped | mend |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == SKIP_REASONS


def test_messages_that_are_shown_are_understood() -> None:
    settings = load_settings(StreamerSettings, ROOT / "configs" / "streamer.yaml")
    codec = Codec.of(settings)
    kinds = []
    for block in code_blocks(TEXTS["README.md"], "json"):
        topic = settings.topics.labels if "inspected_at" in block else settings.topics.readings
        decode = codec.decode_label if topic == settings.topics.labels else partial(decode_reading, codec)
        message = decode(record(topic, block.encode()))
        kinds.append(type(message))
        if isinstance(message, Reading):
            assert message.unknown_fields == 0
    assert kinds == [Reading, Reading, CastEnd, Label]


def record(topic: str, value: bytes) -> Record:
    """A record as a plant would send it."""
    return Record(topic, 0, 7, 1_763_796_000_000, b"C000123", value, ())


def snippet(document: str, kafka: KafkaConfig, topic: str, ours: str) -> str:
    """The document's only Python block, at a broker and a topic of the test."""
    (code,) = code_blocks(TEXTS[document], "python")
    assert '"127.0.0.1:9092"' in code
    assert f'"{topic}"' in code
    return code.replace("127.0.0.1:9092", kafka.bootstrap_servers).replace(topic, ours)


@pytest.fixture
def error_log() -> Iterator[tempfile._TemporaryFileWrapper[str]]:
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as file:
        yield file


def test_the_subscriber_of_the_readme_scores_with_a_model_from_the_topic(
    kafka: KafkaConfig, unique: str, error_log: tempfile._TemporaryFileWrapper[str]
) -> None:
    topics = TopicsConfig(models=f"models-{unique}", model_events=f"model-events-{unique}")
    ensure_topics(kafka, release_topics(topics))
    with Producer(kafka) as producer:
        manifest, data = small_model(version=7)
        Publisher(lambda: producer, topics).publish_model(manifest, data, ce_id="a", at=manifest.created_at)
        producer.flush()
    code = snippet("README.md", kafka, "casting.models", topics.models)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=error_log, text=True) as process:
        assert process.stdout
        try:
            line = process.stdout.readline()
        finally:
            process.kill()
    error_log.seek(0)
    assert re.fullmatch(r"7 \[[\d. ]+\] \[.*\]\n", line), error_log.read()


def small_model(version: int) -> tuple[Manifest, bytes]:
    """A model file for the sensors of configs/streamer.yaml."""
    settings = load_settings(StreamerSettings, ROOT / "configs" / "streamer.yaml")
    architecture = ArchitectureConfig(hidden_size=4, num_layers=1, **ALONE)
    model = build_model(architecture, len(settings.data.sensors), seed=1)
    manifest = Manifest(
        model_name="defect-lstm",
        version=version,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture=architecture.model_dump(mode="json"),
        sensors=settings.data.sensors,
        period_ms=settings.data.period_ms,
        window=settings.windows,
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )
    return manifest, write_artifact(network_alone(model).tensors(), manifest)


def test_the_training_of_the_docs_runs() -> None:
    (code,) = code_blocks(TEXTS["docs/training.md"], "python")

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert re.fullmatch(r"[123] [01]\.\d+\n", done.stdout), done.stderr


def test_the_tree_of_the_packages_names_every_module_and_no_other() -> None:
    tree = TEXTS["docs/architecture.md"].partition("## Packages")[2].split("```")[1]
    named: list[str] = []
    for line in tree.strip().splitlines():
        folder, modules, *_ = re.split(r" {2,}", line)
        named += [folder, *(f"{folder}{module}.py" for module in modules.split(" "))]
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("streamer", "trainer")
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("__")
    }
    folders = {f"{Path(module).parent.as_posix()}/" for module in there}
    assert set(named) == there | folders
    assert len([name for name in named if name.endswith(".py")]) == len(there)
