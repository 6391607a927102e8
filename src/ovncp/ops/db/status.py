"""`ovncp db status`: what a log has, and how full the place is where it is kept."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ovncp.log.base import Compacted, Entry, Snapshot
from ovncp.log.engine import EngineLog, Holding, Usage
from ovncp.ops.db.moment import date_text
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import FINE
from ovncp.ops.db.state import Step, date_of, parse_text
from ovncp.ops.db.stored import Stored, open_to_read
from ovncp.ovsdb.entry import Entry as OvsdbEntry
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.snapshot_entry import decode

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_BLOCK_BYTES = 512  # of stat(2)


@dataclass(frozen=True)
class Entries:
    """The entries after a snapshot: how many, their text in bytes, and the first and the last."""

    number: int = 0
    n_bytes: int = 0
    first: Entry | None = None
    last: Entry | None = None


@dataclass(frozen=True)
class Status:
    """What there is at a place; what the engine does not tell is None."""

    place: Place
    snapshot: Snapshot
    entries: Entries
    usage: Usage | None
    leases: list[Holding] | None
    identity: str | None
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        schema = self._schema()
        yield self.place.name
        yield f"  schema    {schema.name} {schema.version}"
        if self.identity is not None:
            yield f"  uuid      {self.identity}"
        yield f"  snapshot  {self._snapshot_words()}"
        yield f"  entries   {self._entries_words()}"
        if self.usage is not None:
            yield f"  storage   {self._usage_words(self.usage)}"
        for lease in self.leases or ():
            yield f"  lease     {lease.name}, held by {lease.holder} with token {lease.token}"

    def _snapshot_words(self) -> str:
        snapshot = self.snapshot
        if not snapshot.data:
            return f"index {snapshot.index:,}, the schema alone"
        history = f" and {_size(len(snapshot.history))} of history" if snapshot.history else ""
        size = _size(len(snapshot.data))
        return (
            f"index {snapshot.index:,}, {size}{history}, of {date_text(_snapshot_date(snapshot))}"
        )

    def _entries_words(self) -> str:
        entries = self.entries
        if entries.first is None or entries.last is None:
            return "none since"
        return (
            f"{entries.number:,} since, {_size(entries.n_bytes)}: "
            f"{entries.first.index:,} of {date_text(_date(entries.first))} to "
            f"{entries.last.index:,} of {date_text(_date(entries.last))}"
        )

    def _usage_words(self, usage: Usage) -> str:
        quota = f", of {_size(usage.quota)} allowed" if usage.quota else ""
        return f"{_size(usage.used)} used, {_size(usage.allocated)} allocated{quota}"

    def to_json(self) -> dict[str, Any]:
        """See `Report`; sizes are in bytes."""
        schema, snapshot, entries, usage = (
            self._schema(),
            self.snapshot,
            self.entries,
            self.usage,
        )
        return {
            "place": self.place.name,
            "schema": {"name": schema.name, "version": schema.version, "cksum": schema.cksum},
            "identity": self.identity,
            "first_index": None if entries.first is None else entries.first.index,
            "last_index": snapshot.index if entries.last is None else entries.last.index,
            "snapshot": {
                "index": snapshot.index,
                "bytes": len(snapshot.data),
                "history_bytes": len(snapshot.history),
                "date": _json_date(_snapshot_date(snapshot)),
            },
            "entries": {
                "number": entries.number,
                "bytes": entries.n_bytes,
                "first_date": _json_date(_date(entries.first)),
                "last_date": _json_date(_date(entries.last)),
            },
            "storage": usage
            and {"used": usage.used, "allocated": usage.allocated, "quota": usage.quota},
            "leases": None if self.leases is None else [asdict(each) for each in self.leases],
        }

    def _schema(self) -> DatabaseSchema:
        return DatabaseSchema.from_json(parse_text("the schema", self.snapshot.schema))


async def status(url: str) -> Status:
    """What there is at `url`. Raises Refusal, LogError and OvsdbError."""
    place = Place.parse_log(url)
    async with open_to_read(place) as stored:
        while True:
            snapshot = await stored.snapshot()
            try:
                entries = await _entries(stored, snapshot.index + 1)
            except Compacted:
                continue  # There is a newer snapshot by now.
            break
        if isinstance(stored, EngineLog):
            usage, leases = await stored.usage(), await stored.leases()
            return Status(place, snapshot, entries, usage, leases, stored.identity)
        return Status(place, snapshot, entries, _usage(place), None, None)


async def _entries(stored: Stored, from_index: int) -> Entries:
    entries = Entries()
    async for batch in stored.read(from_index):
        entries = Entries(
            entries.number + len(batch),
            entries.n_bytes + sum(len(entry.data) for entry in batch),
            entries.first or batch[0],
            batch[-1],
        )
    return entries


def _usage(place: Place) -> Usage | None:
    """The space that a file takes."""
    if place.kind is not Kind.FILE:
        return None
    found = os.stat(place.location)
    return Usage(found.st_size, found.st_blocks * _BLOCK_BYTES, None)


def _date(entry: Entry | None) -> int | None:
    return None if entry is None else Step(entry.index, entry.data).date_msec


def _snapshot_date(snapshot: Snapshot) -> int | None:
    """The date in the last members of the snapshot's data."""
    if not snapshot.data:
        return None
    try:
        *_, last = decode(snapshot.data)
    except ValueError:
        return Step(snapshot.index, snapshot.data).date_msec
    return date_of(OvsdbEntry(last))


def _json_date(date_msec: int | None) -> str | None:
    return None if date_msec is None else date_text(date_msec)


def _size(n_bytes: int) -> str:
    size, unit = float(n_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{n_bytes} bytes"
