"""Command line of the trainer. Results on stdout, logs and progress on stderr; help does not import torch."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from streamer import process
from streamer.logs import configure_logging
from streamer.process import StopRequest
from streamer.terminal import printable
from trainer.config import TrainerSettings, load_trainer_settings
from trainer.errors import CycleStoppedError
from trainer.learn.config import ModelSettings
from trainer.release import ModelEntry, ModelSubscriber, ModelUpdate, RegistryReader

app = typer.Typer(
    help="Fine-tunes the defect model, lets only better models through, and publishes them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", help="YAML file.", metavar="FILE", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
DEFAULT_CONFIG = Path("configs/trainer.yaml")


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Go on behind what the topics know, if they are ahead.")
    ] = False,
) -> int:
    """Runs the daemon until SIGTERM or Ctrl-C."""
    settings, model_settings = _settings(config)
    stop = StopRequest()
    stop.install()
    from trainer.app import run_trainer  # noqa: PLC0415 - torch takes seconds to import, and help needs none

    with suppress(process.StoppedError):
        run_trainer(settings, model_settings, stop, adopts=adopt)
    return stop.exit_code()


@app.command()
def once(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> int:
    """Runs a single cycle now, whatever the triggers say; beside a running trainer that one is asked to."""
    settings, model_settings = _settings(config)
    stop = StopRequest()
    stop.install()
    from trainer.app import run_cycle_once  # noqa: PLC0415 - torch takes seconds to import

    try:
        result = run_cycle_once(settings, model_settings, stop)
    except (process.StoppedError, CycleStoppedError):
        return stop.exit_code()
    if result is None:
        return 1
    report = result.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(report))
    else:
        del report["checks"]  # their texts are the reasons
        _print_facts(report)
    return stop.exit_code()


@app.command()
def models(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Lists the registry: every version, its scores on its gate windows, and what became of it.

    "ahead" is its AUC-ROC less that of the better baseline: below 0, a simple model ranks better.
    """
    settings, _ = _settings(config)
    entries = RegistryReader(settings.registry).models()
    _warn_if_behind(entries)
    if as_json:
        typer.echo(json.dumps([_entry(entry) for entry in entries]))
        return
    if not entries:
        typer.echo(f"no model yet in {settings.registry.path / settings.registry.model_name}")
        return
    # Without lines and with one space between, a row fits into 80 columns, where rich would cut its cells.
    columns = ("version", "parent", "state", "windows", "defects", "AUC-ROC", "AUC-PR", "ahead", "created")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for entry in entries:
        row = _entry(entry)
        state = "champion" if row["champion"] else row["state"]
        scores = [_figure(row[name], ".3f") for name in ("auc_roc", "auc_pr")]
        ahead = _figure(row["baseline_gap"], "+.3f")
        cells = [row["version"], row["parent"] or "-", state, row["windows"], row["defects"], *scores, ahead]
        table.add_row(*map(str, cells), f"{entry.manifest.created_at:%Y-%m-%d %H:%M}")
    Console().print(table)


@app.command()
def watch(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    count: Annotated[int, typer.Option(min=0, help="End after so many; 0: go on.")] = 0,
) -> int:
    """Prints each model update from the topic: the newest at once, then every one that follows."""
    settings, _ = _settings(config)
    stop = StopRequest()
    stop.install()
    num_seen = 0
    with ModelSubscriber(settings.kafka, settings.topics.models) as updates:
        while not stop() and (count == 0 or num_seen < count):
            update = updates.poll(timeout_s=0.5)
            if update is not None:
                num_seen += 1
                _print_update(update, as_json)
    return stop.exit_code()


def _warn_if_behind(entries: list[ModelEntry]) -> None:
    for manifest in (entry.manifest for entry in entries if entry.is_champion):
        if manifest.is_behind:
            typer.echo(
                f"warning: the champion ranks {-(manifest.baseline_gap or 0):.3f} AUC-ROC behind "
                f"{manifest.better_baseline}; see 'The model is behind a baseline' in docs/operations.md",
                err=True,
            )


def _print_update(update: ModelUpdate, as_json: bool) -> None:
    manifest = update.manifest
    facts = {
        "model": update.model_name,
        "version": update.version,
        "parent": manifest.parent,
        "id": update.ce_id,
        "published_at": update.published_at.isoformat() if update.published_at else None,
        "windows": manifest.dataset.num_windows,
        "defects": manifest.dataset.num_defects,
        "auc_roc": manifest.scores.get("auc_roc"),
        "auc_pr": manifest.scores.get("auc_pr"),
        "baseline_gap": manifest.baseline_gap,
        "threshold": manifest.threshold,
        "manifest_digest": update.artifact.has_manifest_digest,
        "bytes": len(update.data),
    }
    typer.echo(
        json.dumps(facts) if as_json else "  ".join(f"{name}={value}" for name, value in facts.items())
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _entry(entry: ModelEntry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "version": entry.version,
        "parent": manifest.parent,
        "state": entry.state,
        "champion": entry.is_champion,
        "created_at": manifest.created_at.isoformat(),
        "windows": manifest.dataset.num_windows,
        "defects": manifest.dataset.num_defects,
        "auc_roc": manifest.scores.get("auc_roc"),
        "auc_pr": manifest.scores.get("auc_pr"),
        "baselines": manifest.baselines,
        "baseline_gap": manifest.baseline_gap,
        "reasons": list(entry.reasons),
        "folder": str(entry.folder),
    }


def _print_facts(facts: dict[str, Any]) -> None:
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(printable(_shown(value))))
    Console().print(table)


def _shown(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(each, dict) for each in value.values()):
        return "; ".join(f"{key}: {_shown(each)}" for key, each in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:.4g}" for key, number in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _settings(path: Path) -> tuple[TrainerSettings, ModelSettings]:
    settings, model_settings = load_trainer_settings(path)
    configure_logging(settings.logging)
    return settings, model_settings


def main() -> None:
    """Entry point."""
    process.main(app)
