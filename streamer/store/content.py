"""One digest over all that a window spec holds: two runs over the same log agree on it, or one of them is wrong."""

from __future__ import annotations

import hashlib
import json

from streamer.store.reading import WindowReader

# Windows read at a time. Smaller: more round trips. Larger: memory.
BATCH_WINDOWS = 256


def content_hash(reader: WindowReader) -> str:
    """Digest of every sealed window: address, verdict, label revision and canonical rows.

    It does not depend on the namespace, on the order in which anything came, or on what is not sealed yet. For each
    window, sorted by cast, start and length: the line `<cast>/<start>/<length> <verdict> <revision>` (verdict 1
    defective, 0 good, -1 unlabelled; revision as JSON) and its rows as little-endian float32 with one NaN.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    verdicts = dict(reader.labelled())
    windows = sorted(reader.sealed())
    digest = hashlib.sha256()
    for begin in range(0, len(windows), BATCH_WINDOWS):
        batch = windows[begin : begin + BATCH_WINDOWS]
        revisions = reader.label_revisions(batch)
        for window, revision, x_TF in zip(batch, revisions, reader.rows(batch), strict=True):
            verdict = int(verdicts.get(window, -1))
            digest.update(f"{window} {verdict} {json.dumps(revision, separators=(',', ':'))}\n".encode())
            digest.update(x_TF.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
