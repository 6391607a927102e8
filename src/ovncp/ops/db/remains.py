"""What is left of a lost database: one source after the other is read and kept as a backup.

unix:FILE, tcp:HOST:PORT    a server that still runs; it may be cut off from its engine
FOLDER                      a data folder of etcd or PostgreSQL; or a folder of backups, of which
                            the newest good one counts
FILE                        a backup, a database file of a server, or etcd's own database file
URL                         a log on an engine that still answers
"""

import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ovncp.log.base import LogError
from ovncp.log.location import Location
from ovncp.ops.db import backup, etcd_data, postgres_data, server_dump
from ovncp.ops.db.backup_file import SUFFIX, BackupFile
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.moment import date_text
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import words
from ovncp.ops.db.timeline import Timeline
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError


@dataclass
class Remains:
    """What one `source` has; `problem` says why it is nothing of use.

    `backup` is the file that it was kept in. `is_live` is whether it followed the lost log to its
    end, so that its `index` tells who knows more; `raft` is the position in etcd's own log.
    """

    source: str
    kind: str
    is_live: bool
    backup: str = ""
    index: int = 0
    transaction_id: str = ""
    date_msec: int | None = None
    n_rows: int = 0
    raft: list[int] | None = None
    notes: list[str] = field(default_factory=list)
    problem: str = ""

    def line(self) -> str:
        """What it is, in one line."""
        if self.problem:
            return f"{self.kind} {self.source}: {self.problem}"
        date = "" if self.date_msec is None else f" of {date_text(self.date_msec)}"
        return f"{self.kind} {self.source}: entry {self.index}{date}, {self.n_rows:,} rows"


@dataclass(frozen=True)
class Lost:
    """The lost database: its name, and where it was; folder `work` is for what is found of it."""

    location: Location | None
    work: str

    def on(self, scheme: str, host: str) -> str:
        """The URL that the lost log has on an engine of `scheme` at `host`. Raises Refusal."""
        if self.location is None:
            raise Refusal("--lost is missing: the URL that the database had on its engine")
        place = replace(
            self.location, scheme=scheme, hosts=(host,), parameters={"db": self.location.database}
        )
        return place.url()


async def examine(source: str, lost: Lost, caller: Caller) -> Remains:
    """What `source` has, kept as a backup; what is wrong with it is its `problem`."""
    kind, is_live, keep = _kind(source)
    remains = Remains(shown(source), kind, is_live)
    digest = hashlib.sha256(remains.source.encode()).hexdigest()
    path = os.path.join(lost.work, f"found-{digest[:8]}{SUFFIX}")
    if os.path.exists(path):
        os.unlink(path)  # Of a run that was interrupted.
    caller.progress(f"reading {remains.source}")
    try:
        remains.backup = await keep(source, path, lost, remains, caller)
        _describe(remains)
    except (Refusal, OvsdbError, OSError) as error:
        remains.problem = str(error)
    except LogError as error:
        remains.problem = words(error)
    return remains


def shown(source: str) -> str:
    """`source` as it is shown: without a password, and not depending on the present folder."""
    place = Place.parse(source)
    return os.path.abspath(place.name) if place.kind is Kind.FILE else place.name


def _describe(remains: Remains) -> None:
    manifest = BackupFile(remains.backup).manifest
    remains.index, remains.transaction_id = manifest.index, manifest.transaction_id
    remains.date_msec = manifest.date_msec
    remains.n_rows = sum(manifest.n_rows.values())


Keep = Callable[[str, str, Lost, Remains, Caller], Awaitable[str]]


def _kind(source: str) -> tuple[str, bool, Keep]:
    """What `source` is called, whether it followed the lost log, and how it is kept."""
    place = Place.parse(source)
    path = place.location
    if place.kind is Kind.SERVER:
        return "server", True, _keep_server
    if place.kind is Kind.ENGINE:
        return "log", True, _keep_place
    if etcd_data.is_member(path):
        return "etcd member", True, _keep_etcd
    if etcd_data.is_database(path):
        return "etcd database file", False, _keep_etcd
    if postgres_data.is_data(path):
        return "PostgreSQL data", True, _keep_postgres
    if os.path.isdir(path):
        return "backups", False, _keep_newest
    return "file", False, _keep_place


async def _keep_server(source: str, path: str, _: Lost, remains: Remains, caller: Caller) -> str:
    place = Place.parse(source)
    state = await server_dump.fetch(place, caller, cut_off=True)
    state.date_msec = None  # It is as old as its last entry, of which a server tells no date.
    return await backup.write(place, path, state, caller)


async def _keep_place(source: str, path: str, _: Lost, remains: Remains, caller: Caller) -> str:
    return await backup.save(Place.parse(source), path, caller)


async def _keep_etcd(source: str, path: str, lost: Lost, remains: Remains, caller: Caller) -> str:
    async with etcd_data.served(Place.parse(source).location, lost.work) as member:
        remains.raft, remains.notes = member.raft, member.notes
        place = Place(Kind.ENGINE, remains.source, lost.on("etcd", member.host))
        return await backup.save(place, path, caller)


async def _keep_postgres(
    source: str, path: str, lost: Lost, remains: Remains, caller: Caller
) -> str:
    async with postgres_data.served(Place.parse(source).location, lost.work) as host:
        place = Place(Kind.ENGINE, remains.source, lost.on("postgresql", host))
        return await backup.save(place, path, caller)


async def _keep_newest(source: str, path: str, lost: Lost, remains: Remains, _: Caller) -> str:
    name = None if lost.location is None else lost.location.database
    for found in backup.in_folder(source, name):
        try:
            found.verify()
        except Refusal as error:
            remains.notes.append(str(error))
        else:
            remains.notes.append(f"the newest good one: {found.path}")
            return found.path
    raise Refusal("there is no good backup of this database")


async def ranked(found: list[Remains], caller: Caller) -> list[Remains]:
    """Those of use, the newest first. Raises LogError, OvsdbError, Refusal.

    What followed the lost log is compared by the index, and among the members of etcd, Raft's own
    rule comes first: who has the later term, or else the longer log, has all that was committed.
    A backup comes before these only if its last entry is of a later date, and is none of theirs:
    indexes begin anew with each log, and the clocks of servers may differ.
    """
    usable = [each for each in found if not each.problem]
    live = sorted([each for each in usable if each.is_live], key=_live_key(usable), reverse=True)
    others = sorted([each for each in usable if not each.is_live], key=_date_key, reverse=True)
    newer = [each for each in others if live and await _is_newer(each, live[0], caller)]
    return [*newer, *live, *(each for each in others if each not in newer)]


def _live_key(usable: list[Remains]) -> Callable[[Remains], Any]:
    best = max((each.raft for each in usable if each.raft is not None), default=None)
    # Of two that are equal, one with dates has the entries too, so that clients can resume.
    return lambda each: (
        each.raft is None or each.raft == best,
        each.index,
        each.date_msec is not None,
    )


def _date_key(remains: Remains) -> tuple[int, int]:
    return remains.date_msec or 0, remains.index


async def _is_newer(backup: Remains, live: Remains, caller: Caller) -> bool:
    if live.date_msec is None or _date_key(backup)[0] <= live.date_msec:
        return False
    timeline = await Timeline.open(BackupFile(live.backup), caller)
    async for logged in timeline.all():
        if logged.edge.transaction_id == backup.transaction_id:
            return False
    return timeline.edge.transaction_id != backup.transaction_id
