"""Bytes of a database file that were given up are kept beside it: `NAME.unreadable-HASH`.

They may have been acknowledged once, so that nothing destroys them before a person has seen them.
The name has the beginning of their SHA-1: what is kept already is not kept twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from ovncp.log import durable

Span = tuple[int, int]
"""Where bytes start and end in a file."""

_PIECE_BYTES = 1 << 20


def keep(fd: int, spans: Sequence[Span], target: str) -> str:
    """Keep the bytes `spans` of the open file `fd` beside the file `target`; returns the name.

    It is durable on return.  Raises OSError.
    """
    name = f"{target}.unreadable-{_hash(fd, spans)}"
    if not os.path.exists(name):
        copy = durable.create_temporary(name)
        try:
            os.fchmod(copy, os.fstat(fd).st_mode & 0o777)
            for start, end in spans:
                durable.copy(fd, copy, start, end)
            os.fsync(copy)
            os.rename(durable.temporary(name), name)
            durable.sync_directory(name)
        except OSError:
            if os.path.exists(durable.temporary(name)):
                os.unlink(durable.temporary(name))
            raise
        finally:
            os.close(copy)
    return name


def _hash(fd: int, spans: Sequence[Span]) -> str:
    sha1 = hashlib.sha1(usedforsecurity=False)
    for start, end in spans:
        while start < end:
            piece = os.pread(fd, min(end - start, _PIECE_BYTES), start)
            if not piece:
                break
            sha1.update(piece)
            start += len(piece)
    return sha1.hexdigest()[:8]
