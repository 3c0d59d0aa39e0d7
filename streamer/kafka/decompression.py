"""Decompression with a limit: a batch of some KiB on the wire may say that it is gigabytes of zeros.

The client's own functions read to the end, whatever that is. These take their place in the client, which has no
public way to do so, and do the same up to `MAX_BATCH_BYTES`. Snappy stays the client's: it makes at most about
twenty times of what came in.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import lz4.frame
import zstandard
from kafka.record import default_records, legacy_records

# Of one producer batch, decompressed; three copies of it may lie in memory for a moment. Smaller: a batch of honest
# text may be refused (32 times as large as the most that is fetched at once). Larger: a member is killed for memory.
MAX_BATCH_BYTES = 128 * 1024 * 1024
# Larger: each small batch allocates so much for nothing. Smaller: more calls for a large one.
_CHUNK_BYTES = 1024 * 1024

Payload = bytes | memoryview


class OversizedError(Exception):
    """A batch is larger than the limit."""


def install() -> None:
    """Makes the client decompress with a limit, in this whole process."""
    for module in (default_records, legacy_records):
        for decode in (gzip_decode, lz4_decode, zstd_decode):
            if hasattr(module, decode.__name__):
                setattr(module, decode.__name__, decode)


def gzip_decode(payload: Payload) -> bytes:
    """Raises:
    OversizedError: It is larger than the limit.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(payload), mode="r") as reader:
        return _read_all(lambda: reader.read(_CHUNK_BYTES))


def zstd_decode(payload: Payload) -> bytes:
    """Raises:
    OversizedError: It is larger than the limit.
    """
    decompressor = zstandard.ZstdDecompressor()
    with decompressor.stream_reader(io.BytesIO(payload), read_across_frames=True) as reader:
        return _read_all(lambda: reader.read(_CHUNK_BYTES))


def lz4_decode(payload: Payload) -> bytes:
    """Raises:
    OversizedError: It is larger than the limit.
    """
    decompressor, rest = lz4.frame.LZ4FrameDecompressor(), bytes(payload)

    def read() -> bytes:
        nonlocal rest
        while not decompressor.eof:
            data, rest = rest, b""
            chunk: bytes = decompressor.decompress(data, max_length=_CHUNK_BYTES)
            if chunk:
                return chunk
            if not data and not decompressor.eof:
                raise RuntimeError("the lz4 frame is cut short")
        return b""

    return _read_all(read)


def _read_all(read: Callable[[], bytes]) -> bytes:
    chunks, num_bytes = [], 0
    while chunk := read():
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > MAX_BATCH_BYTES:
            raise OversizedError(f"it has more than {MAX_BATCH_BYTES:,} bytes decompressed")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
