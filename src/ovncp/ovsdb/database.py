"""One database: schema, tables, transactions, monitors and history, with no input or output.

`transact` executes a request at once, on top of all that was executed before, and returns what
came of it. A commit that is to be stored is not yet visible: whoever drives the database appends
its entry to the log and then calls `settle`, which says whom to tell, or calls `revert`, which
takes back everything that is not settled. Time and uuids come from outside.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from ovncp.ovsdb.entry import Entry, encode, next_id, unstored_id
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.execution import Execution, Unsatisfied
from ovncp.ovsdb.history import History
from ovncp.ovsdb.monitor import Monitors, Notification
from ovncp.ovsdb.rbac import Rbac
from ovncp.ovsdb.replay import Inapplicable, precommit, replay
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction, footprint


class Client(Protocol):
    """What a database must know of who asks."""

    @property
    def read_only(self) -> bool:
        """Whether the client may change nothing."""

    @property
    def role(self) -> str:
        """The client's role, "" for one that may do everything."""

    @property
    def identity(self) -> str | None:
        """The name that the client proved to have."""

    def owns_lock(self, name: str) -> bool:
        """Whether the client holds the lock `name`."""


class Overlap(Exception):
    """An entry has to do with what executed without it, and so may make that come out otherwise."""


class Commit:
    """A transaction that was committed in memory. `data` is its entry, None if none is stored.

    `looked_up` is as in `Execution`.
    """

    __slots__ = ("changes", "data", "looked_up", "transaction", "transaction_id")

    def __init__(
        self,
        transaction: Transaction,
        changes: list[Change],
        data: bytes | None,
        looked_up: list[str] | None = None,
    ) -> None:
        self.transaction = transaction
        self.changes = changes
        self.data = data
        self.looked_up = looked_up
        self.transaction_id = ""

    @property
    def footprint(self) -> set[str] | None:
        """The uuids of all rows that have to do with how it came out, None if it may be others."""
        uuids = None if self.looked_up is None else footprint(self.transaction)
        if uuids is not None and self.looked_up:
            uuids.update(self.looked_up)
        return uuids


class Settings(NamedTuple):
    """How a database is kept.

    `history_bytes` bounds the memory for what is kept for clients that resume;
    `stores_differences` is whether the log gets the difference of a changed column or all of it.
    """

    history_bytes: int = 0
    stores_differences: bool = True


class Outcome:
    """What came of a "transact" request.

    `results` is None for one that has to wait: for a change of one of the tables `waits_on`, or
    until `timeout_msec` after it arrived. `failed` is whether the last of them is an error.
    `asserted` are the locks on condition of which it was executed.
    """

    __slots__ = (
        "asserted",
        "commit",
        "durable",
        "failed",
        "results",
        "timeout_msec",
        "waits_on",
    )

    def __init__(
        self,
        results: Any,
        commit: Commit | None = None,
        *,
        waits_on: frozenset[str] = frozenset(),
        timeout_msec: int | None = None,
        durable: bool = False,
        failed: bool = False,
        asserted: Sequence[str] = (),
    ) -> None:
        self.results = results
        self.commit = commit
        self.waits_on = waits_on
        self.timeout_msec = timeout_msec
        self.durable = durable
        self.failed = failed
        self.asserted = asserted


class Database:
    """A database in memory.

    `transaction_id` is the id of the visible state, `stored_id` that of the log's last entry in it.
    """

    def __init__(
        self,
        schema: DatabaseSchema,
        new_uuid: Callable[[], str],
        settings: Settings = Settings(),
        transaction_id: str = "00000000-0000-0000-0000-000000000000",
    ) -> None:
        self.new_uuid = new_uuid
        self.transaction_id = transaction_id
        self.stored_id = transaction_id
        self.settings = settings
        self._unsettled: deque[Commit] = deque()
        self._version = int(new_uuid().replace("-", ""), 16) & ~0xFFFFFFFFFFFF
        self._n_unstored = self._version >> 96
        self._set_schema(schema)

    def _set_schema(self, schema: DatabaseSchema) -> None:
        self.schema = schema
        self.name = schema.name
        self.tables = make_tables(schema)
        self.rbac = Rbac(self.tables)
        self.history = History(self.settings.history_bytes, self.transaction_id)
        self.monitors = Monitors(self.tables)

    def new_version(self) -> int:
        """Another value for the column `_version`."""
        self._version += 1
        return self._version

    @property
    def is_settled(self) -> bool:
        """Whether everything that was executed is visible."""
        return not self._unsettled

    @property
    def n_unsettled(self) -> int:
        """How many commits are not visible yet."""
        return len(self._unsettled)

    def transact(
        self,
        operations: list[Any],
        client: Client,
        *,
        now_msec: int,
        elapsed_msec: int = 0,
        may_wait: bool = True,
    ) -> Outcome:
        """Execute `operations` (RFC 7047 section 4.1.3) at the time `now_msec` since the epoch.

        `elapsed_msec` is the time since the request arrived, for "wait"; without `may_wait`, a
        "wait" that would have to is an error.
        """
        execution = Execution(self, client, elapsed_msec, may_wait)
        transaction = execution.transaction
        try:
            results, failed = execution.run(operations)
            failed = failed or not self._precommit(transaction, results)
        except Unsatisfied:
            transaction.abort()
            tables = frozenset(execution.waits_on)
            return Outcome(None, waits_on=tables, timeout_msec=execution.timeout_msec)
        except BaseException:
            # A defect of ours: what was done so far must not be left for others to build on.
            transaction.abort()
            raise
        if failed:
            transaction.abort()
            return Outcome(results, failed=True)
        commit = self._commit(execution, now_msec)
        return Outcome(results, commit, durable=execution.durable, asserted=execution.asserted)

    def _precommit(self, transaction: Transaction, results: list[Any]) -> bool:
        """Whether `transaction` breaks no rule; if it does, that is added to `results`."""
        try:
            transaction.precommit(self.new_version)
        except OvsdbError as error:
            results.append(error.to_json())
            return False
        return True

    def _commit(self, execution: Execution, now_msec: int) -> Commit | None:
        transaction = execution.transaction
        changes = transaction.commit()
        if not changes:
            return None
        comment = "\n".join(transaction.comments)
        data = encode(changes, comment, now_msec, self.settings.stores_differences)
        commit = Commit(transaction, changes, data, execution.looked_up)
        self._unsettled.append(commit)
        return commit

    def settle(self) -> tuple[Commit, Sequence[Notification]]:
        """Make the oldest unsettled commit visible: it is durable. Returns whom to tell what."""
        commit = self._unsettled.popleft()
        self._advance(commit)
        return commit, self.monitors.notify(commit.changes, self.transaction_id)

    def _advance(self, commit: Commit) -> None:
        if commit.data is not None:
            self.stored_id = self.transaction_id = next_id(self.stored_id, commit.data)
        else:
            # It has an id too, so that a client that saw it resumes after it, but one that has no
            # part in those that come back when the log is read again.
            self._n_unstored += 1
            self.transaction_id = unstored_id(self.stored_id, self._n_unstored)
        commit.transaction_id = self.transaction_id
        self.history.add(commit.transaction_id, commit.changes, commit.data)

    def revert(self) -> None:
        """Take back all that is not settled, the newest first."""
        while self._unsettled:
            commit = self._unsettled.pop()
            commit.transaction.revert()
            self.monitors.take_back(commit.changes)

    def replay(
        self, json: Any, data: bytes, *, converting: bool = False
    ) -> tuple[list[Change], Sequence[Notification]]:
        """Apply an entry of the log: its parsed `json` and its bytes.

        Returns what changed, and whom to tell. With `converting`, what the schema does not have is
        passed over. Raises OvsdbError, and then has changed nothing.
        """
        transaction = replay(Entry(json), self.tables, self.new_version, converting=converting)
        precommit(transaction, self.new_version)
        return self._show_replayed(transaction, data)

    def _show_replayed(
        self, transaction: Transaction, data: bytes
    ) -> tuple[list[Change], Sequence[Notification]]:
        commit = Commit(transaction, transaction.commit(), data)
        self._advance(commit)
        return commit.changes, self.monitors.notify(commit.changes, self.transaction_id)

    @property
    def footprint(self) -> set[str] | None:
        """That of all that is not settled (`Commit`)."""
        uuids: set[str] = set()
        for commit in self._unsettled:
            found = commit.footprint
            if found is None:
                return None
            uuids |= found
        return uuids

    def replay_beneath(
        self, json: Any, data: bytes, uuids: set[str]
    ) -> tuple[list[Change], Sequence[Notification]]:
        """As `replay`, of an entry that comes before all that is not settled, which stays.

        `uuids` is the footprint of that. An entry which, applied on top of that, touches
        none of its rows and breaks no rule would have left it as it is. Raises Overlap for any
        other one, and then has changed nothing.
        """
        try:
            transaction = replay(Entry(json), self.tables, self.new_version, converting=False)
            # Here as well, since what comes out as it was before is not among the changes later.
            self._check_apart(transaction, uuids)
            precommit(transaction, self.new_version)
        except OvsdbError as error:
            raise Overlap(str(error)) from error
        self._check_apart(transaction, uuids)
        return self._show_replayed(transaction, data)

    def _check_apart(self, transaction: Transaction, uuids: set[str]) -> None:
        if not uuids.isdisjoint([change.row.uuid for change in transaction.changes]):
            transaction.abort()
            raise Overlap

    def fill(self, transaction: Transaction) -> Iterator[None]:
        """Commit all the content of a database that was empty, and that nobody monitors yet.

        That is done with a pause after each step; `resume` is to follow. Raises OvsdbError, and
        then has changed nothing.
        """
        try:
            yield from transaction.precommit_in_steps(self.new_version)
        except OvsdbError as error:
            transaction.abort()
            raise Inapplicable(error.tag, error.details) from error
        transaction.commit()
        yield

    def resume(self, history: History) -> None:
        """Be in the state that `history` ends in."""
        self.history = history
        self.stored_id = self.transaction_id = history.newest_id

    def rehearse(self, operations: list[Any], client: Client, *, elapsed_msec: int = 0) -> Outcome:
        """What `operations` would come to up to their commit; nothing is changed.

        `results` has an error where one ends them, and is None where they have to wait.
        """
        execution = Execution(self, client, elapsed_msec)
        try:
            results, failed = execution.run(operations)
        except Unsatisfied:
            tables = frozenset(execution.waits_on)
            return Outcome(None, waits_on=tables, timeout_msec=execution.timeout_msec)
        finally:
            execution.transaction.abort()
        return Outcome(results if failed else [], failed=failed)

    def apply(
        self, transaction: Transaction, transaction_id: str
    ) -> tuple[list[Change], Sequence[Notification]]:
        """Commit a transaction of another server, under its id; what changed, and whom to tell."""
        changes = transaction.commit()
        if self.history.since(transaction_id) is not None:
            # The other server has gone back; what came after that state is of no use any more.
            self.history = History(self.settings.history_bytes, transaction_id)
        else:
            self.history.add(transaction_id, changes, None)
        self.transaction_id = transaction_id
        return changes, self.monitors.notify(changes, transaction_id)

    def n_cells(self) -> int:
        """The number of columns of all rows, as `memory/show` counts them."""
        return sum(len(table.rows) * len(table.columns) for table in self.tables.values())


def make_tables(schema: DatabaseSchema) -> dict[str, Table]:
    """Empty tables for `schema`, linked to each other."""
    tables = {name: Table(table) for name, table in schema.tables.items()}
    for table in tables.values():
        table.link(tables)
    return tables
