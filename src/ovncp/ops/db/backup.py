"""`ovncp db backup`: a database as of one entry of its log, in a file that is read back at once.

Of a log the snapshot and the entries after it are kept as they are, each of which is applied to see
that it makes sense; of a running server, the rows of one moment.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ovncp.log.base import Compacted, Corrupt, Snapshot
from ovncp.ops.db import server_dump
from ovncp.ops.db.backup_file import SUFFIX, BackupFile, Manifest, writing
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.create import schema_text
from ovncp.ops.db.moment import date_text
from ovncp.ops.db.move import snapshot as snapshot_of
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import FINE
from ovncp.ops.db.retention import Kept, Retention
from ovncp.ops.db.state import HISTORY_BYTES, State, Step, state_of_snapshot, steps
from ovncp.ops.db.stored import open_to_read
from ovncp.ops.refusal import Refusal

_TRIES = 10
_PAUSE_S = 0.1


@dataclass(frozen=True)
class BackedUp:
    """A backup was made; `deleted` are the ones that it made superfluous."""

    path: str
    manifest: Manifest
    n_bytes: int
    deleted: list[str] = field(default_factory=list)
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield (
            f"{self.path}: {self.manifest.words()}, in {self.n_bytes:,} bytes, read back and right"
        )
        for path in self.deleted:
            yield f"{path}: deleted"

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        manifest = asdict(self.manifest)
        return {"path": self.path, "bytes": self.n_bytes, "deleted": self.deleted, **manifest}


async def back_up(source: str, target: str, keep: Retention | None, caller: Caller) -> BackedUp:
    """Back `source` up into the new file `target`, or a new file in the folder `target`.

    Of the backups of the same database in the folder, `keep` says which may go then.
    Raises Refusal, LogError, OvsdbError, OSError.
    """
    if keep is not None and not os.path.isdir(target):
        raise Refusal(f"{target}: there is no such folder, in which to keep some backups")
    path = await save(Place.parse(source), target, caller)
    manifest = BackupFile(path).manifest
    deleted = [] if keep is None else _prune(target, manifest, keep)
    return BackedUp(path, manifest, os.path.getsize(path), deleted)


async def save(place: Place, target: str, caller: Caller) -> str:
    """Back up `place`; the path of the new file. As `back_up`."""
    for n_left in reversed(range(_TRIES)):
        try:
            return await _save_once(place, target, caller)
        except Compacted:
            if not n_left:
                raise  # Servers save newer snapshots faster than we read.
        except Corrupt as error:
            # The last record of a file that a server has open may be under way.
            if error.io_error is None or not n_left:
                raise
            await asyncio.sleep(_PAUSE_S)
    raise AssertionError("the last try returns or raises")


async def _save_once(place: Place, target: str, caller: Caller) -> str:
    if place.kind is Kind.SERVER:
        state = await server_dump.fetch(place, caller)
        return await write(place, target, state, caller)
    async with open_to_read(place) as stored:
        snapshot = await stored.snapshot()
        state = state_of_snapshot(snapshot, caller, HISTORY_BYTES)
        return await _write(place, target, snapshot, state, steps(stored, state), caller)


async def write(place: Place, target: str, state: State, caller: Caller) -> str:
    """Back up the `state` that was read from `place`. As `save`."""
    pieces = snapshot_of(state, f"backed up from {place.name}", caller)
    snapshot = Snapshot(state.index, schema_text(state.database.schema), b"".join(pieces))
    return await _write(place, target, snapshot, state, None, caller)


async def _write(
    place: Place,
    target: str,
    snapshot: Snapshot,
    state: State,
    later: AsyncIterator[Step] | None,
    caller: Caller,
) -> str:
    """Write `snapshot`, which is `state`, and the steps that come `later`."""
    name, made_msec = state.database.name, caller.now_msec()
    path = _path(target, name, made_msec)
    with writing(path, name) as new:
        new.add(snapshot.schema)
        if snapshot.data:
            new.add(snapshot.data)
        if later is not None:
            async for step in later:
                state.take(step)
                new.add(step.data)
                caller.progress(f"{name}: entry {step.index:,}")
        new.finish(
            snapshot.history,
            lambda sha256: Manifest(
                database=name,
                schema_version=state.database.schema.version,
                source=place.name,
                made_msec=made_msec,
                index=state.index,
                transaction_id=state.database.stored_id,
                date_msec=state.date_msec,
                has_snapshot=bool(snapshot.data),
                snapshot_index=snapshot.index,
                n_rows=n_rows_of(state),
                sha256=sha256,
            ),
        )
    return path


def n_rows_of(state: State) -> dict[str, int]:
    """The number of rows of each table."""
    tables = state.database.tables
    return {name: len(tables[name].rows) for name in sorted(tables)}


def _path(target: str, name: str, made_msec: int) -> str:
    """The file `target`, or a file in that folder, whose name is in the order of time."""
    if not os.path.isdir(target):
        return target
    date = re.sub("[:-]", "", date_text(made_msec))
    return os.path.join(target, f"{name}-{date}{SUFFIX}")


def in_folder(folder: str, database: str | None) -> list[BackupFile]:
    """The backups of `database`, any if None, in `folder`, the newest first.

    They are known by their names, and not verified; files that are none are left out. Raises
    OSError.
    """
    found = []
    for name in os.listdir(folder):
        if name.endswith(SUFFIX):
            with suppress(Refusal):  # What is no backup, or damaged, is not for us to delete.
                found.append(BackupFile(os.path.join(folder, name)))
    own = [backup for backup in found if database in (None, backup.manifest.database)]
    return sorted(own, key=lambda backup: backup.manifest.made_msec, reverse=True)


def _prune(folder: str, newest: Manifest, keep: Retention) -> list[str]:
    """Delete what `keep` does not keep, now that there is the backup `newest`; which."""
    kept = [
        Kept(backup.path, backup.manifest.made_msec)
        for backup in in_folder(folder, newest.database)
    ]
    expired = [each.path for each in keep.expired(kept, newest.made_msec)]
    for path in expired:
        os.unlink(path)
    return expired
