"""Alerts ask for metrics that there are, and fire at what they are for, and at nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from streamer.metrics import StreamerMetrics
from trainer.metrics import TrainerMetrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "configs" / "prometheus"
CASES = ROOT / "tests" / "assets" / "alerts_test.yml"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not on PATH (Debian: apt-get install prometheus)"
)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rule_files() -> list[Path]:
    return [PROMETHEUS / name for name in read_yaml(PROMETHEUS / "prometheus.yml")["rule_files"]]


def alert_rules() -> list[Any]:
    groups = [group for path in rule_files() for group in read_yaml(path)["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    """Names of metrics in an expression or a series."""
    return set(re.findall(r"\b(?:casting_\w+|up\b)", expression))


def exposed(registry: CollectorRegistry) -> set[str]:
    """Names under which Prometheus sees the metrics of a registry."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        metric.name + suffix for metric in registry.collect() for suffix in suffixes.get(metric.type, [""])
    }


def cases_by_alert() -> dict[str, dict[bool, int]]:
    """How many cases each alert has in which it fires, and in which one of its metrics is there and it does not."""
    expressions = {rule["alert"]: rule["expr"] for rule in alert_rules()}
    numbers: dict[str, dict[bool, int]] = defaultdict(lambda: {True: 0, False: 0})
    for group in read_yaml(CASES)["tests"]:
        given = {name for each in group["input_series"] for name in metrics_of(each["series"])}
        for case in group["alert_rule_test"]:
            assert metrics_of(expressions[case["alertname"]]) & given, group["name"]
            numbers[case["alertname"]][bool(case.get("exp_alerts"))] += 1
    return numbers


def promtool(*arguments: str | Path) -> None:
    """Runs promtool, which has to succeed."""
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_names_a_duration_a_severity_and_a_summary() -> None:
    rules = alert_rules()
    assert rules
    for rule in rules:
        assert {"alert", "expr", "for"} <= set(rule)
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_alerts_ask_for_metrics_that_are_exposed() -> None:
    asked = {name for rule in alert_rules() for name in metrics_of(rule["expr"])}
    assert asked
    assert asked - {"up"} - exposed(StreamerMetrics().registry) - exposed(TrainerMetrics().registry) == set()


def test_what_is_counted_seldom_is_seen_in_a_series_that_is_born_with_it() -> None:
    """Each increase() stands beside the value of a series that was not there before."""
    for rule in alert_rules():
        for series, stretch in re.findall(r"increase\((\S+)\[(\w+)\]\)", rule["expr"]):
            born = f"last_over_time({series}[{stretch}])"
            assert born in rule["expr"], rule["alert"]
            assert f"present_over_time({series}[{stretch}] offset {stretch})" in rule["expr"], rule["alert"]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = cases_by_alert()
    assert [rule["alert"] for rule in alert_rules() if not cases[rule["alert"]][True]] == [], "none fires"
    assert [rule["alert"] for rule in alert_rules() if not cases[rule["alert"]][False]] == [], "none is quiet"


def test_the_document_lists_each_alert_with_its_severity() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([A-Z]\w+)` \| (page|ticket) \|", text, re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in alert_rules()]


def test_the_cases_are_for_the_files_that_prometheus_reads() -> None:
    tested = [(CASES.parent / name).resolve() for name in read_yaml(CASES)["rule_files"]]
    assert tested == rule_files()


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", *rule_files())


@needs_promtool
def test_alerts_fire_where_they_must_and_nowhere_else() -> None:
    promtool("test", "rules", CASES)
