"""A database of which several servers hold a copy, over one log on an engine that they share.

Every server takes reads and writes. What executed is proposed as the next entries of the log, on
condition that nobody else's came before: then all of it saw everything that had happened, and it is
answered. Otherwise the entries of the others are applied beneath it; or, if they have to do with
it, it is taken back, and executes again after them.
What changes nothing is confirmed by the log in the same way, so that all servers together behave
as one (strict serialisability).

When it is not known whether a proposal was stored, it is taken back and set aside until the log
can be read again; what was stored is then applied as everybody's, and answered. Meanwhile, and
whenever the engine is out of reach, the server shows `connected` as false, answers reads from what
it has, and refuses writes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Any, Final

from ovncp.log.base import (
    Compacted,
    Conflict,
    Corrupt,
    Entry,
    LeaseLost,
    LogError,
    OutcomeUnknown,
)
from ovncp.log.engine import EngineError, SharedLog
from ovncp.ovsdb.database import Database, Overlap
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.execution import only_reads
from ovncp.ovsdb.monitor import Notification
from ovncp.ovsdb.replay import Inapplicable
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.server.clock import Clock
from ovncp.server.coverage import COUNTERS, define
from ovncp.server.lease_locks import LeaseLocks
from ovncp.server.runner import Runner, Transact, end_if_failed, entries_of, fail, is_stored
from ovncp.server.snapshot import open_database, parse_entry

_LOG = logging.getLogger("ovncp.clustered")

define(
    "log_cut_off",
    "log_gave_way",
    "log_conflict",
    "log_outcome_unknown",
    "log_entry_of_others",
    "log_overlap",
    "log_reload",
)

_PROBE_SECONDS: Final = 1.0
"""How often to ask whether the engine is in reach, when nothing else does."""

_PATIENCE_SECONDS: Final = 3.0
"""How long the engine may take to answer that."""

_DOUBT_SECONDS: Final = 1.0
"""How long after it answered a read without confirming it the server shows that it is cut off."""

_ENTRIES_PER_SLICE: Final = 50

_CAUTIOUS_TURNS: Final = 16
"""For how many turns nothing executes ahead of them, after something did so in vain."""


class Clustered(Runner):
    """One server's copy of the database in `log`, as of the entry `index`.

    `shown_index` is the index that `_Server` shows, `server_id` names this server in the cluster.
    `announce` is called when what `_Server` shows of it may have changed, `replaced` when it is
    another database than before: after a conversion by another server, or an absence so long that
    the entries in between are gone.
    """

    def __init__(
        self,
        database: Database,
        index: int,
        log: SharedLog,
        clock: Clock,
        tell: Callable[[Sequence[Notification], str], None],
    ) -> None:
        super().__init__(database, log, clock, tell)
        self.shared_log = log
        self.announce: Callable[[Clustered], None]
        self.replaced: Callable[[Clustered], None]
        # Does the upkeep of the log, or sees that another server does.
        self.upkeep: Callable[[], Awaitable[None]]
        self.n_losses = 0
        self.index = index
        self.shown_index = index
        self.server_id = database.new_uuid()
        # Held by whoever applies entries or waits for an answer to a proposal.
        self._turn = asyncio.Lock()
        # What may have been stored, and how many entries of it have turned up.
        self._set_aside: list[Transact] = []
        self._n_turned_up = 0
        # Whether nothing executes since it is the turn of others; when it went on, on the event
        # loop's clock, and for how many seconds the latest batch then took.
        self._is_paused = False
        self._began = 0.0
        # What is to execute again after the entries that are just applied, and the footprint of
        # what is not to unless they overlap with it.
        self._again: list[Transact] = []
        self._footprint: set[str] | None = None
        self._n_cautious_turns = 0
        self._took_s = 0.0
        # When the engine was last known to be in reach, on that clock.
        self._reached = 0.0
        self.lease_locks = LeaseLocks(self.name, log)
        self._lost: LogError | None = None
        # What is shown of that, and until when it is to be, on the event loop's clock.
        self._shows_connected = True
        self._in_doubt_until = 0.0
        self._unconfirmed: list[Callable[[], None]] = []
        # What is to be done when the engine is in reach again.
        self._unsure: list[Callable[[], None]] = []
        self._confirming: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None]
        self._probing: asyncio.Task[None]

    def start(self) -> None:
        """Take part in the cluster from now on."""
        loop = asyncio.get_running_loop()
        self._following = loop.create_task(self._follow())
        self._probing = loop.create_task(self._probe())
        for task in (self._following, self._probing):
            task.add_done_callback(end_if_failed)

    # What `_Server` shows

    @property
    def model(self) -> str:
        return "clustered"

    @property
    def is_connected(self) -> bool:
        return self._shows_connected

    def _lose(self, error: LogError) -> None:
        """Note that the engine is out of reach."""
        if self._lost is None:
            _LOG.warning("%s: cut off: %s", self.name, error)
            # Whatever it was for the one who met it, for all others it is a refusal.
            self._lost = self.failure = EngineError(error.details)
            self.n_losses += 1
            COUNTERS["log_cut_off"] += 1
            self._shows_connected = False
            self.announce(self)

    def _find(self) -> None:
        """Note that the engine is in reach again, and that all there was to apply is applied."""
        if self._lost is not None:
            _LOG.info("%s: connected again", self.name)
            self._lost = self.failure = None
            loop = asyncio.get_running_loop()
            if loop.time() < self._in_doubt_until:
                loop.call_at(self._in_doubt_until, self._show_connected)
            else:
                self._show_connected()
            actions, self._unsure = self._unsure, []
            for action in actions:
                action()

    def _show_connected(self) -> None:
        if self._lost is None and not self._shows_connected:
            self._shows_connected = True
            self.announce(self)

    def _doubt(self) -> None:
        """Note that what is read now may be old, if the server is cut off.

        Who finds it connected before, and again right after, can be sure that it was not.
        """
        if self._lost is not None:
            self._in_doubt_until = asyncio.get_running_loop().time() + _DOUBT_SECONDS

    # Proposing

    def _may_answer_at_once(self) -> bool:
        self._doubt()
        return self._lost is not None and not self._executed

    def _next_index(self) -> int:
        return self.index + 1

    def transact(self, request: Transact) -> None:
        if self._flushing is None and self._is_others_turn and not only_reads(request.operations):
            self._hold_back()
            self._start_to_flush()
        super().transact(request)

    @property
    def _is_others_turn(self) -> bool:
        return self._lost is None and self.shared_log.turns.is_to_be_taken

    async def _flush(self) -> None:
        """See `Runner._flush`."""
        turns = self.shared_log.turns
        while True:
            if self._is_others_turn and self._has_to_store():
                self._hold_back()
                COUNTERS["log_gave_way"] += 1
                await turns.take(self._took_s)
                await self._catch_up_if_behind()
            self._resume()
            if self._executed:
                if turns.is_contested:
                    self._hold_back()
                await self._flush_batch()
            elif turns.has_asked:
                await turns.end()
            else:
                break
        self._flushing = None

    def _has_to_store(self) -> bool:
        """Whether there is something to store, as far as can be known."""
        return bool(self._deferred) or any(map(is_stored, self._executed))

    def _hold_back(self) -> None:
        """Let nothing execute if that is likely to be in vain, as others append before it."""
        if self._n_cautious_turns:
            self._exclusive += not self._is_paused
            self._is_paused = True

    def _resume(self) -> None:
        """Execute what has come meanwhile."""
        self._began = asyncio.get_running_loop().time()
        self._exclusive -= self._is_paused
        self._is_paused = False
        self._drain()

    async def _flush_batch(self) -> None:
        """Store, or answer, what has executed."""
        if not any(map(is_stored, self._executed)):
            await self._answer_reads(list(self._executed))
            return
        async with self._turn:
            if self.shared_log.next_index > self._next_index():
                await self._catch_up()
            # Entries of others may have been applied, and left nothing that is to be stored.
            elif any(map(is_stored, self._executed)):
                await self._propose(list(self._executed))

    async def _answer_reads(self, batch: list[Transact]) -> None:
        """Answer what changes nothing, as of when all is applied that was durable at the call."""
        if self._lost is not None:
            self._settle_reads(batch)
            return
        await asyncio.gather(self.see_all(), self.shared_log.turns.end())
        # Whoever applies entries has them execute again, so it is to be done with that.
        async with self._turn:
            self._settle_reads(batch)

    def _settle_reads(self, batch: list[Transact]) -> None:
        self._doubt()
        # Some of it may wait or change something by now, as entries of others were applied.
        asked = set(batch)
        reads = takewhile(lambda read: read in asked and not is_stored(read), self._executed)
        self._settle(list(reads))

    async def _propose(self, batch: list[Transact]) -> None:
        # A compiled coroutine that awaits something while it handles an error never lets go of the
        # error, nor of what its frames hold: all of the batch.
        failure = self._lost
        if failure is None:
            try:
                await self._append(batch)
            except LogError as error:
                failure = error
        self._took_s = asyncio.get_running_loop().time() - self._began
        if failure is None:
            self._n_cautious_turns = max(0, self._n_cautious_turns - 1)
            self._settle(batch)
        elif isinstance(failure, Conflict):
            COUNTERS["log_conflict"] += 1
            # It would execute in vain if it is others' turn, which is known afterwards.
            self._hold_back()
            await asyncio.gather(self.shared_log.turns.ask(self._took_s), self._catch_up())
        elif isinstance(failure, OutcomeUnknown):
            self._put_aside(batch, failure)
        elif isinstance(failure, LeaseLost):
            await self.lease_locks.check(_asserted(batch))
            self._execute_again(self._take_back())
        elif self._lost is None:
            self._fail(batch, failure)
        else:
            self._refuse(batch, failure)

    async def _append(self, batch: list[Transact]) -> None:
        n_entries = len(entries_of(batch))
        await super()._append(batch)
        self.index += n_entries
        self._reached = asyncio.get_running_loop().time()

    async def _store(self, batch: list[Transact], entries: list[bytes]) -> None:
        guards = self.lease_locks.guards(_asserted(batch))
        await self.shared_log.append(self._next_index(), entries, guards)

    def _put_aside(self, batch: list[Transact], error: OutcomeUnknown) -> None:
        COUNTERS["log_outcome_unknown"] += 1
        self._lose(error)
        requests = self._take_back()
        self._set_aside = [request for request in batch if is_stored(request)]
        self._n_turned_up = 0
        self._execute_again([request for request in requests if request not in self._set_aside])

    # Applying

    async def _follow(self) -> None:
        """Apply what others append."""
        while True:
            await self.shared_log.grown(self._next_index())
            await self._catch_up_if_behind()
            if self._lost is not None:
                await asyncio.sleep(_PROBE_SECONDS)

    async def _probe(self) -> None:
        """Find out again and again whether the engine is in reach."""
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            is_known = asyncio.get_running_loop().time() < self._reached + _PROBE_SECONDS
            if not is_known or self._lost is not None:
                await self.see_all()

    async def see_all(self) -> None:
        """Have applied all that is durable at the moment of the call, if the engine is in reach."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self.shared_log.confirm(self._next_index())
        except Conflict:
            pass
        except TimeoutError:
            self._lose(EngineError("the engine does not answer"))
            return
        except LogError as error:
            self._lose(error)
            return
        await self._catch_up_if_behind()

    async def _catch_up_if_behind(self) -> None:
        if self._is_behind():
            async with self._turn:
                # What the log has more may have been our own proposal.
                if self._is_behind():
                    await self._catch_up()

    def _is_behind(self) -> bool:
        return self.shared_log.next_index > self._next_index() or self._lost is not None

    async def _catch_up(self) -> None:
        """Apply all entries that there are by now; for the one whose turn it is."""
        failure: LogError | None = None
        was_lost = self._lost is not None
        try:
            await self._apply_all()
        except LogError as error:
            failure = error
        if failure is None:
            if was_lost:
                self._find()
        elif isinstance(failure, Compacted):
            await self._reload()
        else:
            self._lose(failure)

    async def _apply_all(self) -> None:
        """Apply all entries that follow on what is durable.

        What is not durable executes again afterwards, unless they have nothing to do with it.
        Raises LogError; what was applied until then stays.
        """
        self._exclusive += 1
        self._footprint = self._footprint_of_executed()
        if self._footprint is None:
            self._take_back_for_later()
        changed: set[str] = set()
        # The engine is asked itself if that is to tell whether it is there.
        read = self.shared_log.read_known if self._lost is None else self.shared_log.read
        try:
            async for batch in read(self._next_index()):
                await self._replay_all(batch, changed)
            # What has not turned up by now never will, and may execute again.
            self._again[:0] = self._set_aside
            self._set_aside = []
        finally:
            self._exclusive -= 1
            again, self._again = self._again, []
            self._execute_again(again)
            self._follow_up(changed)
            self._drain()

    def _footprint_of_executed(self) -> set[str] | None:
        """See `Database.footprint`; None also if nothing executed, or something that only reads.

        Or if a lock is asserted: it may have been others' when they wrote, and be ours again.
        """
        outcomes = [request.outcome for request in self._executed]
        if not outcomes or self._set_aside or any(o.commit is None or o.asserted for o in outcomes):
            return None
        return self.database.footprint

    def _take_back_for_later(self) -> None:
        """Have what is not durable execute again after the entries that are just applied."""
        self._footprint = None
        taken = self._take_back()
        if any(map(is_stored, taken)):
            COUNTERS["log_overlap"] += 1
            self._n_cautious_turns = _CAUTIOUS_TURNS
        self._again += taken

    async def _replay_all(self, batch: list[Entry], changed: set[str]) -> None:
        """Apply those of `batch` that are not yet, and add the tables that they change."""
        for place, entry in enumerate(batch):
            if entry.index == self._next_index():
                changed |= self._replay(entry)
                self._n_turned_up += entry.own
            if place % _ENTRIES_PER_SLICE == 0:
                await asyncio.sleep(0)
        if self._set_aside and self._n_turned_up == len(self._set_aside):
            for request in self._set_aside:
                self._answer(request)
            self._set_aside = []

    def _replay(self, entry: Entry) -> set[str]:
        """Apply one entry; the names of the tables that it changes. Raises Corrupt."""
        before = self.database.transaction_id
        COUNTERS["log_entry_of_others"] += 1
        self.index = entry.index
        try:
            changes, notifications = self._apply(parse_entry(entry.data), entry.data)
        except Inapplicable as error:
            # As everybody does who applies or opens the log.
            _LOG.warning("%s: entry %d is left out (%s)", self.name, entry.index, error)
            return set()
        except OvsdbError as error:
            self.index -= 1
            raise Corrupt(f"{self.name}: entry {entry.index} cannot be applied: {error}") from error
        return self._show(changes, notifications, before)

    def _apply(self, json: Any, data: bytes) -> tuple[list[Change], Sequence[Notification]]:
        if self._footprint is not None:
            try:
                return self.database.replay_beneath(json, data, self._footprint)
            except Overlap:
                self._take_back_for_later()
        return self.database.replay(json, data)

    async def _reload(self) -> None:
        """Begin again from the log's snapshot, which is past what is here."""
        COUNTERS["log_reload"] += 1
        old = self.database
        requests = self._take_back()
        # What executed on the old one meanwhile would be stored as if it had on the new one.
        self._exclusive += 1
        try:
            database, index = await open_database(self.shared_log, old.new_uuid, old.settings)
        except (LogError, OvsdbError) as error:
            self._lose(error if isinstance(error, LogError) else Corrupt(str(error)))
        else:
            for request in self._set_aside:
                fail(request, OutcomeUnknown("whether it was stored can no longer be found out"))
            self._set_aside = []
            self.database, self.index = database, index
            self.replaced(self)
            self._find()
        self._exclusive -= 1
        self._execute_again(requests)
        self._follow_up(set(self.database.tables))
        self._drain()

    # Reading what is current

    def when_settled(self, action: Callable[[], None]) -> None:
        """See `Runner.when_settled`; what any server has told anybody is seen by then."""
        if self._lost is not None:
            self._doubt()
            super().when_settled(action)
            return
        self._unconfirmed.append(action)
        if self._confirming is None:
            self._confirming = asyncio.get_running_loop().create_task(self._confirm())
            self._confirming.add_done_callback(end_if_failed)

    def is_latest(self, later: Callable[[], None]) -> bool:
        """See `Runner.is_latest`: not of a server that is cut off."""
        if self._lost is not None:
            self._unsure.append(later)
        return self._lost is None

    async def _confirm(self) -> None:
        while self._unconfirmed:
            actions, self._unconfirmed = self._unconfirmed, []
            await self.see_all()
            self._doubt()
            for action in actions:
                super().when_settled(action)
        self._confirming = None

    # Upkeep

    async def compact(self) -> None:
        """See `Runner.compact`."""
        await self.upkeep()

    async def _convert(self, schema: DatabaseSchema) -> None:
        schema.persist()
        async with self._turn:
            while not await self._try_to_convert(schema):
                await self._catch_up()
                if self._lost is not None:
                    raise self._lost
            self.index += 1

    async def _try_to_convert(self, schema: DatabaseSchema) -> bool:
        try:
            await super()._convert(schema)
        except Conflict:
            return False
        return True

    async def close(self) -> None:
        self._following.cancel()
        self._probing.cancel()
        if self._confirming is not None:
            self._confirming.cancel()
        await asyncio.gather(self._following, self._probing, return_exceptions=True)
        await self.lease_locks.close()
        await super().close()


def _asserted(batch: list[Transact]) -> set[str]:
    return {name for request in batch for name in request.outcome.asserted}
