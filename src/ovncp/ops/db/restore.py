"""`ovncp db restore`: a backup into a new log on any engine, read back and compared row by row.

What is replaced is kept: a file under another name, a log on an engine in a backup of its own. If
the new one does not turn out right, the old one is put back.
"""

import os
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ovncp.log import durable, history_file, lockfile
from ovncp.log.base import LogError
from ovncp.log.durable import io_errors
from ovncp.log.location import Location
from ovncp.log.registry import engine
from ovncp.ops.db import backup
from ovncp.ops.db.backup_file import BackupFile
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.moment import date_text
from ovncp.ops.db.move import Moved, read_back, store
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.source import read
from ovncp.ops.db.state import HISTORY_BYTES, State
from ovncp.ops.db.users import check_unused
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError


@dataclass(frozen=True)
class Restored:
    """A backup was restored; `replaced` is where that is which was there before, "" for none."""

    moved: Moved
    replaced: str

    @property
    def status(self) -> int:
        """See `Report`."""
        return self.moved.status

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield from self.moved.lines()
        if self.replaced:
            yield f"{self.replaced}: what was there before; delete it when it is of no more use"

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return {**self.moved.to_json(), "replaced": self.replaced or None}


async def restore(path: str, url: str, replace: bool, caller: Caller) -> Restored:
    """Make the log `url` of the backup `path`, in the place of what is there if `replace` is set.

    Raises Refusal, LogError, OvsdbError, OSError; then all is as it was.
    """
    source, target = Place.parse(path), Place.parse_log(url)
    state = await read_backup(path, caller)
    try:
        return Restored(await put(source, state, target, caller), "")
    except LogError:
        if not replace:
            raise
    putting = _file_put_aside if target.kind is Kind.FILE else _log_put_aside
    async with putting(target, os.path.dirname(path) or ".", caller) as replaced:
        moved = await put(source, state, target, caller)
        if not moved.comparison.is_equal:
            raise Refusal(f"{target.name}: what was read back is not the same as the backup")
    return Restored(moved, replaced)


async def read_backup(path: str, caller: Caller) -> State:
    """What the backup `path` has. Raises Refusal if that is not what it says."""
    manifest = BackupFile(path).manifest
    state = await read(Place.parse(path), caller, HISTORY_BYTES)
    if backup.n_rows_of(state) != manifest.n_rows:
        raise Refusal(f"{path}: damaged: the rows are not as many as it says")
    return state


async def put(
    source: Place, state: State, target: Place, caller: Caller, verb: str = "restored"
) -> Moved:
    """Make the log `target` of `state`, which is from `source`, and compare. Raises as `store`."""
    comment = f"{verb} from {source.name}, entry {state.index}"
    n_history = await store(state, target, comment, caller)
    comparison = await read_back(state, target, caller)
    return Moved(verb, source, target, state, n_history, comparison)


@asynccontextmanager
async def _file_put_aside(target: Place, _: str, caller: Caller) -> AsyncIterator[str]:
    """Have no file `target` in the block; where the old one is. If that fails, put it back."""
    path = lockfile.follow_symlinks(target.location)
    lockfile.lock(path).release()  # Raises Locked where a server has it.
    replaced = f"{path}.replaced-{_file_date(caller)}"
    _rename(path, replaced)
    try:
        yield replaced
    except BaseException:
        _rename(replaced, path)
        raise


def _file_date(caller: Caller) -> str:
    return re.sub("[:-]", "", date_text(caller.now_msec()))


def _rename(old: str, new: str) -> None:
    """Rename a database file, and its history with it. Raises LogError."""
    with io_errors(f'failed to rename "{old}" to "{new}"'):
        os.rename(old, new)
        history = history_file.history_name(old)
        if os.path.exists(history):
            os.rename(history, history_file.history_name(new))
        durable.sync_directory(new)


@asynccontextmanager
async def _log_put_aside(target: Place, folder: str, caller: Caller) -> AsyncIterator[str]:
    """Have no log `target` in the block, as `_file_put_aside`; it is kept in `folder`."""
    await check_unused(target)
    # Not named as a backup, so that it neither goes with old ones nor is taken for the newest.
    name, date = Location.parse(target.location).database, _file_date(caller)
    replaced = os.path.join(folder, f"{name}.replaced-{date}.zip")
    await backup.save(target, replaced, caller)
    try:
        await engine(target.location).drop(target.location)
        yield replaced
    except BaseException as error:
        try:
            await _put_back(replaced, target, caller)
        except (LogError, OvsdbError, Refusal) as another:
            raise Refusal(
                f"{target.name}: {error}; and what was there is not back ({another}), but in "
                f"{replaced}, to be restored from"
            ) from error
        raise


async def _put_back(path: str, target: Place, caller: Caller) -> None:
    await engine(target.location).drop(target.location)
    state = await read_backup(path, caller)
    await put(Place.parse(path), state, target, caller)
