"""The history file `.NAME.~history~` beside a database: the `history` of its snapshot.

A database file has no place for it that C's programs would pass over.  The history file begins with
a header of a fixed size, which names the snapshot's record by its SHA-1 and has the length and the
SHA-1 of what follows.  So one that belongs to another snapshot, as when C's programs compacted the
database since, is known, and one that is damaged too; either is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import suppress

from ovncp.log import durable, lockfile

_logger = logging.getLogger("ovncp.ovsdb_log")

_HEADER = re.compile(rb"OVNCP HISTORY ([0-9a-f]{40}) ([0-9]{20}) ([0-9a-f]{40})\n")
_HEADER_BYTES = len("OVNCP HISTORY  \n") + 40 + 1 + 20 + 40


def history_name(path: str) -> str:
    """The history file of the database `path`; one for all the symlinks that lead to it."""
    directory, name = os.path.split(lockfile.follow_symlinks(path))
    return os.path.join(directory, f".{name}.~history~")


def is_there(path: str, snapshot_sha1: str) -> bool:
    """Whether the database `path` has a history of the snapshot whose record has that SHA-1."""
    try:
        with open(history_name(path), "rb") as file:
            header = _HEADER.fullmatch(file.read(_HEADER_BYTES))
    except FileNotFoundError:
        return False
    except OSError as error:
        _logger.info("%s: open failed (%s)", history_name(path), error.strerror)
        return False
    if header is None or header[1].decode() != snapshot_sha1:
        _logger.info("%s: not the history of this database's snapshot", history_name(path))
        return False
    return True


def read(path: str, snapshot_sha1: str) -> bytes:
    """The history of the snapshot whose record has that SHA-1; b"" if there is none that is right.

    What is wrong is logged, as information: clients that resume get a whole dump then, no more.
    """
    name = history_name(path)
    try:
        with open(name, "rb") as file:
            header = _HEADER.fullmatch(file.read(_HEADER_BYTES))
            history = file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        _logger.info("%s: read failed (%s)", name, error.strerror)
        return b""
    if header is None or header[1].decode() != snapshot_sha1:
        return b""
    if len(history) != int(header[2]) or _sha1(history) != header[3].decode():
        _logger.info("%s: damaged", name)
        return b""
    return history


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


class NewHistory:
    """A history file that is being written; `put` brings it into its place.

    Failures are logged, as information, and leave the database without a history.
    """

    def __init__(self, path: str, mode: int):
        """The next history of the database `path`, with its permissions `mode`."""
        self._target = history_name(path)
        self._mode = mode
        self._fd = -1
        self._length = 0
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._failed = False

    def write(self, piece: bytes) -> None:
        """Add `piece`."""
        if self._failed:
            return
        try:
            if self._fd < 0:
                self._fd = durable.create_temporary(self._target)
                os.fchmod(self._fd, self._mode)
            durable.write_all(self._fd, piece, _HEADER_BYTES + self._length)
        except OSError as error:
            self._fail(error)
            return
        self._sha1.update(piece)
        self._length += len(piece)

    def finish(self, snapshot_sha1: str) -> None:
        """The history is whole, and belongs to the snapshot whose record has that SHA-1."""
        if self._fd < 0:
            return
        fields = (snapshot_sha1.encode(), self._length, self._sha1.hexdigest().encode())
        try:
            durable.write_all(self._fd, b"OVNCP HISTORY %b %020d %b\n" % fields, 0)
            os.fsync(self._fd)
        except OSError as error:
            self._fail(error)

    def put(self) -> None:
        """Replace the history that there was, or remove it if nothing was written.

        The directory is the caller's to flush.
        """
        try:
            if self._fd < 0:
                with suppress(FileNotFoundError):
                    os.unlink(self._target)
            else:
                os.rename(durable.temporary(self._target), self._target)
                os.close(self._fd)
                self._fd = -1
        except OSError as error:
            self._fail(error)

    def discard(self) -> None:
        """Remove what was written, unless it is in its place; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with suppress(FileNotFoundError):
                os.unlink(durable.temporary(self._target))

    def _fail(self, error: OSError) -> None:
        _logger.info("%s: not written (%s)", self._target, error.strerror)
        self._failed = True
        self.discard()
