"""What a person sees: a live page on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.story import Story, Training

NUM_LINES = 12
PLAIN_INTERVAL_S = 5.0


class View(AbstractContextManager["View"]):
    """Shows a story while it happens."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._lines: deque[str] = deque(maxlen=NUM_LINES)
        self._started = time.monotonic()
        self._next_plain = 0.0
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._page())
            self._live.stop()

    def say(self, line: str) -> None:
        """Adds one line about something that happened."""
        self._lines.append(f"{time.monotonic() - self._started:6.1f} s  {line}")
        if not self._live:
            print(self._lines[-1], flush=True)  # noqa: T201 - the demo's output

    def refresh(self) -> None:
        """Shows the counts of the moment."""
        if self._live:
            self._live.update(self._page())
        elif time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + PLAIN_INTERVAL_S
            self.say(self._counts())

    def _counts(self) -> str:
        status = self._story.status
        return (
            f"readings {status.get('readings', 0):,}, casts {status.get('casts', 0):,}, "
            f"windows sealed {status.get('sealed_windows', 0):,}, labelled {status.get('labelled_windows', 0):,}, "
            f"models {len(self._story.models)}, subscriber scored {sum(self._story.scored.values()):,}"
        )

    def _trainer_line(self) -> str:
        if self._story.training is not None:
            return _training_line(self._story.training)
        return self._story.waiting or "waits for new labelled windows"

    def _page(self) -> RenderableType:
        facts = Table.grid(padding=(0, 2))
        status = self._story.status
        for name in ("readings", "casts", "sealed_windows", "labelled_windows", "defective_windows"):
            facts.add_row(name.replace("_", " "), f"{status.get(name, 0):,}")
        facts.add_row("training", Text(self._trainer_line()))
        versions = ", ".join(f"version {version}: {n:,} windows" for version, n in self._story.scored.items())
        facts.add_row("subscriber", versions or "waits for its first model")
        return Group(Panel(facts, title="castloop demo", title_align="left"), Text("\n".join(self._lines)))


def _training_line(training: Training) -> str:
    scores = "" if training.val_auc_pr is None else f", validation AUC-PR {training.val_auc_pr:.3f}"
    return f"cycle {training.cycle}, epoch {training.epoch}, {training.windows} windows{scores}"


def print_report(story: Story, console: Console, seconds: float) -> None:
    """The table of what happened."""
    report = story.report()
    facts = Table(title=f"What happened in {seconds:.0f} s", show_header=False, title_justify="left")
    for name in ("readings", "sealed_windows", "labelled_windows"):
        facts.add_row(name.replace("_", " "), f"{report[name]:,}")
    console.print(facts)
    cycles = Table(
        "cycle", "trigger", "windows", "seconds", "epochs", "decision", title="Cycles", title_justify="left"
    )
    for number, cycle in enumerate(report["cycles"], start=1):
        counts = (cycle["windows"], f"{cycle['seconds']:.1f}", cycle["epochs"])
        cycles.add_row(str(number), cycle["trigger"], *map(str, counts), cycle["decision"])
    console.print(cycles)
    models = Table(
        "version", "parent", "windows", "defects", "AUC-ROC", "AUC-PR", "scored by the subscriber",
        title="Promoted models, scores on their gate windows", title_justify="left",
    )  # fmt: skip
    for model in report["models"]:
        scores = (f"{model['auc_roc']:.3f}", f"{model['auc_pr']:.3f}")
        cells = (model["version"], model["parent"] or "-", model["windows"], model["defects"], *scores)
        models.add_row(*map(str, cells), f"{story.scored.get(model['version'], 0):,} windows")
    console.print(models)
    if story.holdout:
        held = story.holdout
        console.print(
            f"Held back: {held['casts']} casts scored by version {held['version']}: "
            f"AUC-ROC {held['auc_roc']:.3f}, AUC-PR {held['auc_pr']:.3f}"
        )


def make_console() -> Console:
    """A console as wide as the terminal, wide enough for the tables elsewhere."""
    return Console() if sys.stdout.isatty() else Console(width=110)
