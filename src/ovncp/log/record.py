"""Records of an OVSDB log file (ovsdb(5), "Database Log Format"): bytes in, records out.

A record is a header line, `OVSDB <magic> <length> <sha1>`, then `length` bytes of JSON text, the
last of which is a new-line where we or the C server wrote it.  What follows the last whole record
of a file is the remains of a write that a crash interrupted.  Messages are the C server's, which
users and scripts search their logs for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ovncp.log.base import Corrupt, LogError

STANDALONE = "JSON"
CLUSTERED = "CLUSTER"

_HEADER = re.compile(rb"OVSDB ([^ \n]*) ([0-9]+) ([0-9a-fA-F]{40})\n")
_MAGIC = re.compile(rb"^(OVSDB [^ ]*) .*", re.DOTALL)
LONGEST_HEADER = 127
# The C server reads a body in pieces of this size, and its message on a torn one counts them.
_PIECE = 8192
_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record: where its header begins and its JSON text, without the new-line at its end.

    The text is b"" where it was not asked for.

    Its body is from `start` to `end`, the new-line included.
    `sha1` is the checksum as the header has it, in lower-case hex; it covers the new-line too.
    """

    offset: int
    start: int
    data: bytes
    sha1: str
    end: int


def header(length: int, sha1: str, magic: str = STANDALONE) -> bytes:
    """The header line of a record in a file of the kind `magic`."""
    return b"OVSDB %s %d %s\n" % (magic.encode(), length, sha1.encode())


def encode(data: bytes, magic: str = STANDALONE) -> bytes:
    """The record of the JSON text `data`, byte for byte as the C server writes it."""
    body = data + b"\n"
    return header(len(body), hashlib.sha1(body).hexdigest(), magic) + body


def data_of(record: bytes) -> bytes:
    """The JSON text in the bytes of one whole record that `scan` has checked."""
    return record[record.index(b"\n") + 1 :].removesuffix(b"\n")


def identify(beginning: bytes, name: str) -> str:
    """The magic of the file that starts with `beginning`: `STANDALONE` or `CLUSTERED`.

    Raises `LogError` in the C server's words if the file is of neither kind.
    """
    match = _HEADER.match(beginning)
    if beginning and (match is None or int(match[2]) == 0):
        raise LogError(f"{name}: unexpected file format")
    magic = match[1].decode(errors="replace") if match else ""
    if magic not in (STANDALONE, CLUSTERED):
        raise LogError(f"{name}: cannot identify file type")
    return magic


def scan(
    stream: BinaryIO, name: str, *, magic: str = STANDALONE, with_data: bool = True
) -> Iterator[Record]:
    """The records of a file of the kind `magic` from the start of `stream` on, each checked.

    Without `with_data` a record of any size takes little memory.  Raises `Corrupt` at the first
    that is torn or damaged; nothing after it can be trusted, since its length cannot be.
    """
    offset = 0
    while line := stream.readline(LONGEST_HEADER):
        match = _HEADER.fullmatch(line)
        if match is None or match[1] != magic.encode() or int(match[2]) == 0:
            raise _bad_header(name, offset, line)
        start, length, sha1 = offset + len(line), int(match[2]), match[3].decode().lower()
        body, missing, actual = _read_body(stream, length, with_data)
        if missing:
            raise _torn(name, start, length, length - missing)
        if actual != sha1:
            raise Corrupt(
                f"{name}: {length} bytes starting at offset {start} have SHA-1 hash {actual} "
                f"but should have hash {sha1}"
            )
        yield Record(offset, start, body.removesuffix(b"\n"), sha1, start + length)
        offset = start + length


def _read_body(stream: BinaryIO, length: int, with_data: bool) -> tuple[bytes, int, str]:
    """Up to `length` bytes, how many are missing, and the SHA-1.

    They are read in pieces when many, as a damaged length may be anything at all.
    """
    sha1, pieces, missing = hashlib.sha1(), [], length
    while missing and (piece := stream.read(min(_READ_SIZE, missing))):
        sha1.update(piece)
        missing -= len(piece)
        if with_data:
            pieces.append(piece)
    return b"".join(pieces), missing, sha1.hexdigest()


def _bad_header(name: str, offset: int, line: bytes) -> Corrupt:
    # The C server's parser ends the line after the magic before it finds out about the rest.
    line = _MAGIC.sub(rb"\1", line)
    shown = re.split(rb"[\n\0]", line, maxsplit=1)[0].decode(errors="backslashreplace")
    return Corrupt(f'{name}: parse error at offset {offset} in header line "{shown}"')


def _torn(name: str, start: int, length: int, present: int) -> Corrupt:
    missing = length - present // _PIECE * _PIECE
    return Corrupt(
        f"{name}: error reading {missing} bytes starting at offset {start}",
        tag="I/O error",
        io_error="End of file",
    )
