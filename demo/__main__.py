"""Runs the whole loop on this machine: servers, streamer, trainer, a plant, and a subscriber.

Exit codes: 0 the demo is complete, 1 it is not (the refusals are listed, or the child that failed), 2 wrong
configuration, 130 and 143 after a signal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from demo.child import Child
from demo.stage import DemoFailedError, Stage
from demo.story import Story
from demo.view import View, make_console, print_report
from streamer.errors import BrokerUnavailableError, ConfigError, UnavailableError
from streamer.kafka import TopicReader
from streamer.plant.recording import Recording
from streamer.process import StoppedError, StopRequest
from streamer.process import main as run_command_line
from streamer.sensors import listed
from trainer.release.client.cloudevent import from_record
from trainer.release.publish.events import EVENT_PREFIX

CONFIGS = Path(__file__).parent.parent / "configs" / "demo"
TICK_S = 0.25
# Casts of the simulated plant: four cycles' worth; the demo ends with the second promoted model.
NUM_CASTS = 1060
# Right after the first cycle: its gate sees one regime, the second cycle's gate the other.
REGIME_CHANGE = 0.25
SIMULATION_SPEED = 1200
HOLD_BACK = 0.2
NUM_MODELS = 2
# After the last record: how long the streamer and the trainer may be still before they count as done.
QUIET_S = 12.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Demo:
    """One run."""

    def __init__(
        self,
        stage: Stage,
        story: Story,
        view: View,
        *,
        recording: Recording | None,
        replay_s: float,
        stop: StopRequest,
    ) -> None:
        self._stage = stage
        self._stop = stop
        self._replay_s = replay_s
        self._story = story
        self._view = view
        self._recording = recording
        self._model_events: TopicReader | None = None
        self._next_status = 0.0

    def run(self, deadline: float) -> bool:
        """Runs to the end.

        Returns:
            Whether all that a demo has to show was shown.

        Raises:
            DemoFailedError: A child ended, or the time was over.
            StoppedError: A signal asked for the end.
        """
        stage, configs = self._stage, self._stage.configs
        self._view.say(f"Kafka at {stage.kafka.bootstrap_servers}, Redis at {stage.settings.redis.url}")
        stage.start("streamer", "streamer", "run", "-c", str(configs / "streamer.yaml"))
        stage.start("trainer", "trainer", "run", "-c", str(configs / "trainer.yaml"))
        subscriber = stage.start("subscriber", "demo.scorer", str(configs / "streamer.yaml"))
        feeder = stage.start("feeder", "streamer", *self._feeder_arguments())
        self._view.say("streamer, trainer, subscriber and plant are running")
        quiet_since: float | None = None
        while time.monotonic() < deadline:
            activity = self._tick()
            if self._recording is None and self._has_two_models():
                return True
            if feeder.returncode is None or activity or self._story.training:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_S:
                break
        else:
            raise DemoFailedError(f"not done in time; {self._state()}")
        if self._recording is None:
            return self._has_two_models()
        return self._score_held_back(subscriber, self._recording, deadline)

    def _feeder_arguments(self) -> list[str]:
        config = ["-c", str(self._stage.configs / "streamer.yaml")]
        recording = self._recording
        if recording is None:
            return [
                *("simulate", *config, "--casts", str(NUM_CASTS), "--speed", str(SIMULATION_SPEED)),
                *("--min-steps", "600", "--max-steps", "900", "--regime-change", str(REGIME_CHANGE)),
            ]
        seconds = (recording.casts[-1].last_ts - recording.casts[0].first_ts) / 1000
        speed = max(1.0, seconds / self._replay_s)
        folder = str(recording.directory.resolve())
        return ["replay", folder, *config, "--speed", f"{speed:.1f}", "--hold-back-labels", str(HOLD_BACK)]

    def _tick(self) -> bool:
        """Takes in what happened; whether anything did that a later cycle could come from."""
        if self._stop.wait(TICK_S):
            raise StoppedError("stopped")
        self._stage.check(may_end="feeder")
        activity = False
        while not self._stage.events.empty():
            event = self._stage.events.get()
            line = self._story.take(event)
            activity = activity or event.kind in ("training", "epoch")
            if line:
                self._view.say(line)
        activity = self._take_decisions() or activity
        if time.monotonic() >= self._next_status:
            self._next_status = time.monotonic() + 1.0
            activity = self._count() or activity
        self._view.refresh()
        return activity

    def _count(self) -> bool:
        try:
            summary = self._stage.summary()
        except UnavailableError as exc:
            raise DemoFailedError(str(exc)) from exc
        status = {
            **asdict(summary), "readings": summary.readings, "labelled_windows": summary.labelled_windows
        }  # fmt: skip
        changed = status != self._story.status
        self._story.status = status
        return changed

    def _take_decisions(self) -> bool:
        try:
            if self._model_events is None:
                self._model_events = TopicReader(self._stage.kafka, self._stage.topics.model_events)
            records = self._model_events.poll(0)
        except BrokerUnavailableError:
            return False  # the trainer has not made its topic yet
        for record in records:
            event = from_record(record.headers, record.value)
            data = event.data if isinstance(event.data, Mapping) else {}
            line = self._story.take_decision(event.type.removeprefix(EVENT_PREFIX), data)
            if line:
                self._view.say(line)
        return bool(records)

    def _has_two_models(self) -> bool:
        return len(self._story.models) >= NUM_MODELS and self._story.num_received() >= NUM_MODELS

    def _score_held_back(self, subscriber: Child, recording: Recording, deadline: float) -> bool:
        """Lets the subscriber score the casts whose labels were held back, with its model of the moment."""
        defects = {cast.cast_id: cast.defect for cast in recording.held_back_casts(HOLD_BACK)}
        known = {cast_id: defect for cast_id, defect in defects.items() if defect is not None}
        self._view.say(
            f"the recording is over; {len(known)} held-back casts are scored from the topic's model"
        )
        subscriber.send({"score_casts": sorted(known)})
        while self._story.cast_scores is None and time.monotonic() < deadline:
            self._tick()
        if self._story.cast_scores is None or self._story.cast_scores["version"] is None:
            return False
        scores = self._story.cast_scores
        self._story.score_holdout(scores["version"], scores["scores"], known)
        return True

    def _state(self) -> str:
        return f"{len(self._story.models)} models promoted in {len(self._story.cycles)} cycles"


@app.command()
def demo(
    recording: Annotated[
        Path | None, typer.Option(help="Folder of a recording instead of the simulator.")
    ] = None,
    config: Annotated[Path, typer.Option(help="Folder with the three YAML files.")] = CONFIGS,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the table as JSON.")
    ] = None,
    replay_s: Annotated[float, typer.Option(min=1, help="How long a recording takes to replay.")] = 120.0,
    timeout_s: Annotated[float, typer.Option(min=10, help="The demo gives up after so long.")] = 900.0,
) -> int:
    """Runs streamer, trainer, a plant and a subscriber on servers of its own until two models were promoted."""
    # Noted, not raised: an exception in the middle of starting a child would leave it to itself.
    stop = StopRequest()
    stop.install()
    source = Recording.open(recording) if recording else None
    console, story, started = make_console(), Story(), time.monotonic()
    try:
        with View(story, console) as view, Stage(config) as stage:
            if source is not None:
                _require_fit(source, stage, config)
            run = Demo(stage, story, view, recording=source, replay_s=replay_s, stop=stop)
            complete = run.run(started + timeout_s)
    except StoppedError:
        return stop.exit_code()
    print_report(story, console, time.monotonic() - started)
    if json_file:
        json_file.write_text(json.dumps(story.report(), indent=2) + "\n", encoding="utf-8")
    if not complete:
        _list_refusals(story)
    return 0 if complete else 1


def _require_fit(recording: Recording, stage: Stage, config: Path) -> None:
    if recording.sensors != stage.settings.data.sensor_names:
        raise ConfigError(
            f"{recording.directory}: its sensors are {listed(recording.sensors)}; "
            f"{config / 'streamer.yaml'} has {listed(stage.settings.data.sensor_names)}: "
            "name a fitting folder with CONFIG="
        )


def _list_refusals(story: Story) -> None:
    typer.echo(f"incomplete: {len(story.models)} models were promoted before the casts were over", err=True)
    for cycle in story.cycles:
        if cycle["decision"] == "refused":
            typer.echo(f"  refused on {cycle['windows']} windows: {'; '.join(cycle['reasons'])}", err=True)
    if story.waiting:
        typer.echo(f"  the trainer waits: {story.waiting}", err=True)


if __name__ == "__main__":
    run_command_line(app)
