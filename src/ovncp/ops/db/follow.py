"""`ovncp db import --follow`: a running server's database into a new log, and what changes in it.

    1. The rows are stored as they are at one moment, and read back; the server goes on.
    2. Every further update of it (ovsdb-server(7), section 4.1.15) becomes an entry of the log.
    3. When the operator has sent the server's clients away, and says so, all is awaited that any
       of the servers named has applied by then. The log is complete, and may be served.
    4. The rows are asked for once more, and compared with what the log had then.

So what clients have to wait for does not depend on how much there is. Of a cluster all members are
named: if one is lost, another is asked for what changed since.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from ovncp.ops.client import Client
from ovncp.ops.db import server_dump
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.log_copy import LogCopy
from ovncp.ops.db.move import Moved, read_back, store
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.server_dump import Session, Standing
from ovncp.ops.db.state import State
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.atom import ZERO_UUID
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.wire.client import Notification

_PATIENCE_S = 30.0
_LAST_PATIENCE_S = 5.0
_PAUSE_S = 0.5
_PROBE_S = 5.0
_MOMENT_S = 0.02
_REST_S = 0.1
_MOST_AT_ONCE = 500
_VERB = "imported"
_NOT_ALL = "; the log may not have all of it"

# What the source tells, what went wrong, or None at the end of it all.
Events = asyncio.Queue[Notification | Exception | None]
Say = Callable[[str], None]


async def follow(source: str, url: str, ending: asyncio.Event, say: Say, caller: Caller) -> Moved:
    """Make the log `url` of what `source` has and comes to have until `ending` is set; compare.

    `say` is told in a line how far it is. Raises Refusal, LogError, OvsdbError and OSError; if
    there is a log then, it may not have all, unless it was said to be complete.
    """
    place, target = Place.parse(source), Place.parse_log(url)
    if place.kind is not Kind.SERVER:
        raise Refusal(f"{place.name}: a running server is wanted, to be followed")
    following = _Following(place, target, ending, say, caller)
    try:
        copy = await following.run()
    finally:
        await following.close()
    say(f"{target.name}: complete as of entry {copy.index:,}; comparing")
    state = await server_dump.fetch(place, caller)
    state.notes.append(f"entries that came meanwhile: {copy.n_entries:,}")
    comparison = await read_back(state, target, caller, copy.index)
    return Moved(_VERB, place, target, state, 0, comparison)


class _StillUsed(Refusal):
    """The end is asked for, and there is none."""


class _Following:
    """The source's database on its way into the log; `_copy` has it as of `_last_id`."""

    def __init__(
        self, source: Place, target: Place, ending: asyncio.Event, say: Say, caller: Caller
    ) -> None:
        self._source = source
        self._target = target
        self._ending = ending
        self._say = say
        self._caller = caller
        self._copy: LogCopy | None = None
        self._last_id = ZERO_UUID
        self._answered_s = 0.0

    async def close(self) -> None:
        """Let go of the log."""
        if self._copy is not None:
            await self._copy.log.close()

    async def run(self) -> LogCopy:
        """Follow until the log is complete."""
        while True:
            try:
                return await self._follow()
            except (Refusal, OSError) as error:
                if self._copy is None or isinstance(error, _StillUsed):
                    raise
                problem = f"{self._source.name}: {error}"
                patience_s = _LAST_PATIENCE_S if self._ending.is_set() else _PATIENCE_S
                if time.monotonic() > self._answered_s + patience_s:
                    raise Refusal(f"{problem}{_NOT_ALL}") from error
                self._caller.progress(f"{problem}; trying again")
            await asyncio.sleep(_PAUSE_S)

    async def _follow(self) -> LogCopy:
        """As `run`, with one connection. Raises Refusal or OSError where it is lost."""
        async with server_dump.sessions(self._source, self._caller.connect) as found:
            session, standing = await server_dump.best(found, self._source)
            schema = await session.schema()
            events = _events_of(session.client)
            wanted = [session.name, None, server_dump.everything(schema), self._last_id]
            known = await session.client.call("monitor_cond_since", wanted)
            copy = await self._resume(known, schema, standing)
            watching = asyncio.create_task(self._watch(session, events))
            try:
                await self._take_all(copy, events)
            finally:
                watching.cancel()
        return copy

    async def _resume(self, known: Any, schema: DatabaseSchema, standing: Standing) -> LogCopy:
        """Take what `known` says that there is at the beginning of a connection."""
        is_difference, self._last_id, updates = known
        copy = self._copy
        if copy is None:
            copy = self._copy = await self._begin(updates, schema, standing.index)
            return copy
        if schema.to_json() != copy.database.schema.to_json():
            raise OvsdbError("consistency violation", f"{self._source.name} has another schema now")
        if is_difference:
            copy.take_updates(updates)
        else:
            await copy.take_dump(updates)
        await copy.store()
        return copy

    async def _begin(self, dump: Any, schema: DatabaseSchema, index: int) -> LogCopy:
        """Make the log, and read it back."""
        source, target, caller = self._source, self._target, self._caller
        database = server_dump.database_of(dump, schema, source, caller)
        state = State(database, index, caller.now_msec())
        comment = f"{_VERB} from {source.name}"
        await store(state, target, comment, caller)
        comparison = await read_back(state, target, caller)
        if not comparison.is_equal:
            raise Refusal(f"{target.name}: what was read back is not the same")
        self._say(
            f"{target.name}: {comparison.n_rows:,} rows {_VERB}, read back and the same; "
            f"following {source.name} until SIGINT or SIGTERM"
        )
        self._answered_s = time.monotonic()
        return await LogCopy.open(database, target, comment, caller)

    async def _take_all(self, copy: LogCopy, events: Events) -> None:
        """Take what the source tells, until that is all."""
        while True:
            event = await events.get()
            if isinstance(event, Notification):
                self._take(copy, event)
                if copy.n_unstored < _MOST_AT_ONCE and not events.empty():
                    continue
            await copy.store()
            self._caller.progress(f"{self._target.name}: entry {copy.index:,}")
            if isinstance(event, Exception):
                raise event
            if event is None:
                return

    def _take(self, copy: LogCopy, told: Notification) -> None:
        if told.method != "update3":
            raise Refusal(f"the server says: {told.method}")
        _, last_id, updates = told.params
        copy.take_updates(updates)
        self._last_id = last_id

    async def _watch(self, session: Session, events: Events) -> None:
        """See that the source is there until the end is asked for, and that it tells all then."""
        try:
            while not await self._is_ending():
                await self._standing(session)
            async with asyncio.timeout(_PATIENCE_S):
                await self._wait_for_all(session)
            events.put_nowait(None)
        except TimeoutError:
            events.put_nowait(Refusal(f"{session.remote} does not answer"))
        except (Refusal, OSError) as error:
            events.put_nowait(error)

    async def _wait_for_all(self, session: Session) -> None:
        """Return when the source has applied all that any of its servers has, and is at rest.

        What its clients asked for just before they were sent away may still be on its way there.
        """
        connect = self._caller.connect
        async with server_dump.sessions(self._source, connect, _LAST_PATIENCE_S) as members:
            deadline = time.monotonic() + _LAST_PATIENCE_S
            goal: int | None = None
            while (newest := await _newest_index(members)) != goal:
                if time.monotonic() > deadline:
                    raise _StillUsed(f"{self._source.name}: somebody still writes to it{_NOT_ALL}")
                goal = newest
                while (await self._standing(session)).index < goal:
                    await asyncio.sleep(_MOMENT_S)
                await asyncio.sleep(_REST_S)

    async def _is_ending(self) -> bool:
        """Whether the end is asked for, within the time after which to see if the source lives."""
        try:
            async with asyncio.timeout(_PROBE_S):
                return await self._ending.wait()
        except TimeoutError:
            return False

    async def _standing(self, session: Session) -> Standing:
        async with asyncio.timeout(_PATIENCE_S):
            standing = await session.standing()
        if not standing.is_connected:
            raise Refusal(f"{session.remote} is cut off from its cluster")
        self._answered_s = time.monotonic()
        return standing


async def _newest_index(members: Sequence[Session]) -> int:
    return max([(await session.standing()).index for session in members])


def _events_of(client: Client) -> Events:
    """What the server of `client` tells, in order, and the end of the connection."""
    events: Events = asyncio.Queue()
    client.told = events.put_nowait
    client.lost = lambda _: events.put_nowait(Refusal("the server closed the connection"))
    return events
