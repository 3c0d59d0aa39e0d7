"""What a namespace holds and what the ledgers say, in the form in which the reference says it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos_ingest.log import LABELS, READINGS, Expected, LabelFacts, Source
from streamer.config import StreamerSettings
from streamer.store.casts import decode_labels
from streamer.store.connection import Client, connect, text
from streamer.store.keys import Keys
from streamer.store.reading import WindowReader

RECORD_TERMS = ("consumed", "applied", "duplicate", "late", "dead_lettered", "label", "control")
STEP_TERMS = ("carried", "placed", "duplicate", "superseded", "late", "gap")
ROOT = Path(__file__).parents[2]


def digest(seen: Expected) -> str:
    """One hash over addresses, rows with canonical NaN, verdicts and label sets."""
    windows = [
        (address, hashlib.sha256(rows).hexdigest(), verdict)
        for address, (rows, verdict) in sorted(seen.windows.items())
    ]
    labels = [(cast_id, sorted(map(repr, held))) for cast_id, held in sorted(seen.labels.items()) if held]
    return hashlib.sha256(json.dumps([windows, labels]).encode()).hexdigest()


def difference(seen: Expected, wanted: Expected) -> dict[str, Any]:
    """Where two differ, for a person: how many of each kind, and examples."""
    common = seen.windows.keys() & wanted.windows.keys()
    kinds = {
        "missing_windows": wanted.windows.keys() - seen.windows.keys(),
        "unknown_windows": seen.windows.keys() - wanted.windows.keys(),
        "other_rows": {name for name in common if seen.windows[name][0] != wanted.windows[name][0]},
        "other_verdicts": {name for name in common if seen.windows[name][1] != wanted.windows[name][1]},
        "other_labels": {
            name
            for name in seen.labels.keys() | wanted.labels.keys()
            if seen.labels.get(name, set()) != wanted.labels.get(name, set())
        },
    }
    return {
        kind: {"number": len(names), "first": sorted(names)[:3]} for kind, names in kinds.items() if names
    }


def observe(settings: StreamerSettings) -> Expected:
    """Reads windows, verdicts and labels as the trainer does, and the ledgers."""
    client = connect(settings.redis)
    try:
        keys = Keys(settings.redis.namespace)
        reader = WindowReader(client, keys, settings.data, settings.windows)
        addresses = reader.sealed()
        verdicts = dict(reader.labelled())
        windows = {
            str(address): (rows.astype("<f4").tobytes(), verdicts.get(address))
            for address, rows in zip(addresses, reader.rows(addresses), strict=True)
        }
        hashes = _cast_hashes(client, keys)
        return Expected(windows, _labels(hashes), *_ledgers(settings))
    finally:
        client.close()


def _cast_hashes(client: Client, keys: Keys) -> dict[str, dict[str, Any]]:
    prefix = keys.cast("")[:-1]
    names = [text(key) for key in client.scan_iter(f"{prefix}*", count=1000)]
    hashes = {}
    for name in names:
        cast_id, _, rest = name.removeprefix(prefix).partition("}")
        if not rest:
            hashes[cast_id] = {text(field): value for field, value in client.hgetall(name).items()}
    return hashes


def _labels(hashes: Mapping[str, Mapping[str, Any]]) -> dict[str, set[LabelFacts]]:
    return {
        cast_id: {
            (label.defect, label.inspected_at, label.from_ts, label.to_ts)
            for label in decode_labels(cast_id, fields.get("labels"))
        }
        for cast_id, fields in hashes.items()
    }


def _ledgers(settings: StreamerSettings) -> tuple[dict[Source, Counter[str]], dict[Source, Counter[str]]]:
    """What `streamer ledger` says, without the terms that are nought."""
    kinds = {settings.topics.readings: READINGS, settings.topics.labels: LABELS}
    records, steps = dict[Source, Counter[str]](), dict[Source, Counter[str]]()
    for each in _streamer_ledger(settings)["partitions"]:
        source = kinds[each["topic"]], each["partition"]
        records[source], steps[source] = Counter(each["records"]), Counter(each["steps"])
    return records, steps


def _streamer_ledger(settings: StreamerSettings) -> Any:
    with tempfile.TemporaryDirectory(prefix="castloop-ledger-") as folder:
        config = Path(folder) / "streamer.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        command = [sys.executable, "-m", "streamer", "ledger", "-c", str(config), "--json"]
        # It ends with 1 when a ledger does not balance; what it prints says which.
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
    if not done.stdout:
        raise RuntimeError(f"streamer ledger said nothing: {done.stderr[-1500:]}")
    return json.loads(done.stdout)


def ledger_faults(seen: Expected, wanted: Expected) -> list[str]:
    """Terms that differ from what was planted, and ledgers that do not balance."""
    faults = []
    for name, terms, ours, theirs in (
        ("records", RECORD_TERMS, seen.records, wanted.records),
        ("steps", STEP_TERMS, seen.steps, wanted.steps),
    ):
        for source in sorted(ours.keys() | theirs.keys()):
            found, planted = ours.get(source, Counter()), theirs.get(source, Counter())
            whole, *parts = (found[term] for term in terms)
            if whole != sum(parts) or found["pending"]:
                faults.append(
                    f"{source[0]}/{source[1]}: {terms[0]} {whole}, {name} {sum(parts)}, {found['pending']} left"
                )
            faults += [
                f"{source[0]}/{source[1]}: {name} {term} {found[term]}, planted {planted[term]}"
                for term in terms
                if found[term] != planted[term]
            ]
    return faults
