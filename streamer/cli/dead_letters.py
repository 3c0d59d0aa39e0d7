"""`streamer dead-letters`: records that could not be used, listed, shown, and sent again."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from heapq import nlargest
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, read_settings
from streamer.config import StreamerSettings
from streamer.dead_letters import DeadLetter, LetterReader, Origin, Outcome, Replayer
from streamer.errors import CastingError, ConfigError
from streamer.kafka import Producer, end_offsets
from streamer.records import Partition
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.replays import Claim, ReplayStore
from streamer.terminal import printable, shown

app = typer.Typer(help="Records that could not be used: list them, show one, send them again.")

ReasonOption = Annotated[str | None, typer.Option(help="Only those with this reason.", metavar="REASON")]
TopicOption = Annotated[str | None, typer.Option(help="Only records of this topic.", metavar="TOPIC")]
SinceOption = Annotated[
    str | None,
    typer.Option(help="Only newer ones: 2026-11-22T14:00:00Z, or an age such as 90m, 2h, 3d.", metavar="T"),
]

_AGE = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Late stays late: the log time of a record is kept, and so is that of its cast.
_LATE = frozenset({"late", "partly_late"})
# A replay that began later than this may still count on its note that a dead letter was sent.
_FORGET_AFTER_MS = 86_400_000
_MAX_SHOWN = 20_000
# A narrower terminal has no room for messages beside origins, which are there to be copied whole.
_WIDE = 120
_PIPED_WIDTH = 240


@app.command("list")
def list_letters(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the newest.", metavar="N")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Lists dead letters, the newest last, and how many there are by reason."""
    settings = read_settings(config)
    wanted = _filter(reason, topic, since)
    reasons: Counter[str] = Counter()
    with _letters(settings) as reader:
        chosen = _counted(
            (letter for letter in _distinct(reader.new(), defaultdict(set)) if wanted(letter)), reasons
        )
        letters = sorted(nlargest(limit, chosen, key=_age), key=_age)
        left_out = {"foreign": reader.num_foreign, "elsewhere": reader.num_elsewhere}
    held = _held(settings, letters)
    if as_json:
        rows = [_facts(letter, claim) for letter, claim in zip(letters, held, strict=True)]
        report = {"total": reasons.total(), "by_reason": dict(reasons.most_common()), "letters": rows}
        typer.echo(json.dumps(report | left_out))
        return
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)
    console.print(_table(letters, held, with_message=console.width >= _WIDE))
    console.print(Text(_summary(reasons, len(letters), **left_out)))


def _letters(settings: StreamerSettings) -> LetterReader:
    return LetterReader(settings.kafka, settings.topics.dead_letters, settings.redis.namespace)


def _summary(reasons: Counter[str], num_shown: int, foreign: int, elsewhere: int) -> str:
    by_reason = ", ".join(f"{printable(reason)} {number:,}" for reason, number in reasons.most_common())
    lines = f"{reasons.total():,} dead letters, {num_shown:,} shown. {by_reason}".rstrip()
    if foreign:
        lines += f"\n{foreign:,} records of the topic do not say where they came from"
    if elsewhere:
        lines += f"\n{elsewhere:,} dead letters of other namespaces are left out"
    return lines


def _table(letters: Iterable[DeadLetter], held: Iterable[Claim | None], *, with_message: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("origin", "reason", "key", "at (UTC)", "tries", "again"):
        table.add_column(name, no_wrap=True)
    if with_message:
        table.add_column("message", overflow="fold")
    for letter, claim in zip(letters, held, strict=True):
        cells = [
            str(letter.origin),
            letter.reason,
            shown(letter.key),
            _iso(letter.at_ms).replace("T", " ").removesuffix("Z"),
            str(letter.num_attempts),
            "" if claim is None else "sent" if claim.sent else "claimed",
        ]
        if with_message:
            cells.append(letter.message.removeprefix(f"{letter.reason}: "))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


@app.command()
def show(
    origin: Annotated[str, typer.Argument(help="Such as casting.readings/2@1234.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Shows one dead letter: what was wrong, its headers and its value."""
    settings, wanted = read_settings(config), Origin.parse(origin)
    found = None
    with _letters(settings) as reader:
        for letter in reader.new():
            found = letter if letter.origin == wanted else found
    if found is None:
        topic, namespace = settings.topics.dead_letters, settings.redis.namespace
        raise CastingError(f"{topic} holds no dead letter of {wanted} for namespace {namespace}")
    (claim,) = _held(settings, [found])
    if as_json:
        headers = [[name, None if value is None else _base64(value)] for name, value in found.headers]
        value = {"headers_base64": headers, "value_base64": _base64(found.value)}
        typer.echo(json.dumps(_facts(found, claim) | value))
        return
    facts = _facts(found, claim)
    lines = [f"{name.replace('_', ' ')}: {printable(str(each))}" for name, each in facts.items() if each]
    lines += [f"header {printable(name)}: {shown(value)}" for name, value in found.headers]
    text = shown(found.value, keep_lines=True)
    lines += ["value:", text[:_MAX_SHOWN]]
    if len(text) > _MAX_SHOWN:
        lines.append(f"... {len(text) - _MAX_SHOWN:,} more characters; --json has them all")
    typer.echo("\n".join(lines))


@app.command()
def replay(
    *,
    origins: Annotated[
        list[str] | None, typer.Argument(help="Such as casting.readings/2@1234.", metavar="[ORIGIN]...")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    reason: ReasonOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All but the late ones, which would be late again.")
    ] = False,
    topic: TopicOption = None,
    since: SinceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Sends the records of dead letters to their topics again, each dead letter once."""
    settings = read_settings(config)
    chosen = _choice(origins or [], reason, everything, _filter(reason, topic, since))
    named = {Origin.parse(each) for each in origins or []}
    outcomes: list[Outcome] = []
    kept: dict[Partition, set[int]] = defaultdict(set)
    client = connect(settings.redis)
    try:
        store = ReplayStore(client, Keys(settings.redis.namespace))
        with _letters(settings) as reader, Producer(settings.kafka) as producer:
            partitions = end_offsets(settings.kafka, (*settings.reading_topics, settings.topics.labels))
            replayer = Replayer(settings.kafka, producer, store, partitions)
            letters = (letter for letter in _distinct(reader.new(), kept) if chosen(letter))
            outcomes += replayer.replay(letters, dry_run=dry_run)
        if not dry_run:
            store.forget(kept, before_ms=int(time.time() * 1000) - _FORGET_AFTER_MS)
    finally:
        client.close()
    missing = named - {outcome.origin for outcome in outcomes}
    where = f"{settings.topics.dead_letters} holds no dead letter of it"
    outcomes += [Outcome(origin, "not_found", where) for origin in sorted(missing)]
    _tell_replay(outcomes, as_json)
    done = {"sent", "would_send", "sent_before"}
    return 1 if any(outcome.word not in done for outcome in outcomes) else 0


def _choice(
    origins: list[str], reason: str | None, everything: bool, wanted: Callable[[DeadLetter], bool]
) -> Callable[[DeadLetter], bool]:
    if bool(origins) + bool(reason) + everything != 1:
        raise ConfigError("name origins, or a --reason, or --all: one of the three")
    named = {Origin.parse(each) for each in origins}
    if named:
        return lambda letter: letter.origin in named and wanted(letter)
    return lambda letter: (reason is not None or letter.reason not in _LATE) and wanted(letter)


def _tell_replay(outcomes: list[Outcome], as_json: bool) -> None:
    counts = Counter(outcome.word for outcome in outcomes)
    if as_json:
        rows = [[str(each.origin), each.word, each.message] for each in outcomes]
        typer.echo(json.dumps({"counts": dict(counts), "outcomes": rows}))
        return
    for outcome in outcomes:
        if outcome.word != "sent":
            words = outcome.message or outcome.word.replace("_", " ")
            typer.echo(printable(f"{outcome.origin}: {words}"))
    words = ", ".join(f"{word.replace('_', ' ')} {number:,}" for word, number in counts.most_common())
    typer.echo(words or "nothing to send")


def _filter(reason: str | None, topic: str | None, since: str | None) -> Callable[[DeadLetter], bool]:
    since_ms = _epoch_ms(since) if since else None

    def wanted(letter: DeadLetter) -> bool:
        return (
            (reason is None or letter.reason == reason)
            and (topic is None or letter.origin.topic == topic)
            and (since_ms is None or letter.at_ms >= since_ms)
        )

    return wanted


def _epoch_ms(text: str) -> int:
    if age := _AGE.fullmatch(text):
        return int((time.time() - int(age[1]) * _SECONDS[age[2]]) * 1000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"--since {text}: expected 2026-11-22T14:00:00Z, or an age such as 2h") from exc
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _counted(letters: Iterable[DeadLetter], reasons: Counter[str]) -> Iterator[DeadLetter]:
    for letter in letters:
        reasons[letter.reason] += 1
        yield letter


def _age(letter: DeadLetter) -> tuple[int, Origin]:
    return letter.at_ms, letter.origin


def _distinct(letters: Iterable[DeadLetter], kept: dict[Partition, set[int]]) -> Iterator[DeadLetter]:
    """One dead letter of each record, noted as kept: a crash may leave a second one."""
    for letter in letters:
        offsets = kept[letter.origin.source]
        if letter.origin.offset not in offsets:
            offsets.add(letter.origin.offset)
            yield letter


def _held(settings: StreamerSettings, letters: Iterable[DeadLetter]) -> list[Claim | None]:
    client = connect(settings.redis)
    try:
        store = ReplayStore(client, Keys(settings.redis.namespace))
        return store.held([letter.origin for letter in letters])
    finally:
        client.close()


def _facts(letter: DeadLetter, claim: Claim | None) -> dict[str, Any]:
    return {
        "origin": str(letter.origin),
        "reason": letter.reason,
        "message": letter.message,
        "stage": letter.stage,
        "at": _iso(letter.at_ms),
        "key": None if letter.key is None else shown(letter.key),
        "attempts": letter.num_attempts,
        "first_origin": str(letter.first_origin) if letter.first_origin else None,
        "sent_again": _state(claim) or None,
        "cut": letter.cut,
        "namespace": letter.namespace,
    }


def _state(claim: Claim | None) -> str:
    if claim is None:
        return ""
    return _iso(claim.at_ms) if claim.sent else "claimed"


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _iso(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
