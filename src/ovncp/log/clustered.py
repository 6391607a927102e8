"""A clustered database file (ovsdb(5), "Clustered Format") that nobody has open: its records.

It is a member's log of the C server's Raft.  What the records say is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ovncp.log import record, standalone
from ovncp.log.base import LogError
from ovncp.log.record import CLUSTERED, Record


def read_records(path: str) -> Iterator[Record]:
    """The records of the clustered file `path`, the header first; takes no lock.

    Raises `LogError` if it is not a clustered file, `Corrupt` at a torn or damaged record.
    """
    with standalone.open_to_read(path) as stream:
        if record.identify(stream.peek(record.LONGEST_HEADER), path) != CLUSTERED:
            raise LogError(f"{path}: cannot identify file type")
        yield from record.scan(stream, path, magic=CLUSTERED)


def create(path: str, texts: Iterable[bytes]) -> None:
    """Make the file `path` of the records `texts`, JSON texts; see `standalone.create_file`."""
    standalone.create_file(path, (record.encode(text, CLUSTERED) for text in texts))
