"""Memory that a process has freed and will want again."""

from __future__ import annotations

import ctypes

# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The largest that glibc takes: blocks up to this size are taken from what was freed before.
KEPT_BLOCK_BYTES = 32 * 1024**2


def keep_freed_memory(max_bytes: int) -> bool:
    """Has the process keep memory that it frees, up to a bound; False where the C library is not glibc.

    A loop that allocates and frees the same blocks in every turn would else give them back to the system each time,
    which fills them with zeros, page by page, when they are asked for again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    blocks = mallopt(_M_MMAP_THRESHOLD, min(max_bytes, KEPT_BLOCK_BYTES))
    return bool(blocks) and bool(mallopt(_M_TRIM_THRESHOLD, max_bytes))
