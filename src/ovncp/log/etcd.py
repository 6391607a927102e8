"""The etcd backend: `etcd://HOST:2379,.../PREFIX?db=NAME`, or `etcds://` for TLS.

etcd does the consensus; this is how a log is laid on it (the keys are in `etcd_keys`).  An append
is one transaction: if the head was not changed since we read it, put the batch and the head.  The
head's version, as `engine` calls it, is the revision of its last change.

Followers are woken by one watch on what changes with every append, which brings the batches too.
What it did not bring they read; so a watch which breaks, or is cancelled, costs a moment and
nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from ovncp.log import etcd_keys, etcd_leases, etcd_maintenance
from ovncp.log.base import Chunks, Corrupt, Entry, Exists, LogError, Snapshot
from ovncp.log.engine import (
    LEASES,
    LOG,
    Change,
    EngineLog,
    Head,
    Holding,
    Page,
    Usage,
    entries_in,
)
from ovncp.log.engine_status import EngineStatus
from ovncp.log.etcd_client import (
    DEFAULT_TIMEOUT_MS,
    PARAMETERS,
    Condition,
    EtcdClient,
    NoSpace,
    Operation,
    Value,
    delete_range,
    get,
    get_range,
    prefix_end,
    put,
    unchanged,
)
from ovncp.log.etcd_keys import PIECE_BYTES, BatchHeader, Keys, SnapshotHeader, with_header
from ovncp.log.etcd_notices import EtcdNotices
from ovncp.log.etcd_stage import PiecesGone, Stage, read_pieces, staging, sweep
from ovncp.log.location import Location
from ovncp.log.recent import Recent
from ovncp.log.timed_lease import TimedLease

_logger = logging.getLogger("ovncp.log")

# Smaller values are not worth the time.  The largest take five milliseconds, which is less than a
# thread waits for its turn while the event loop is busy.
_DEFLATED_BYTES = 4 << 10
_DELETED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class EtcdChange(Change):
    """A change, and the value at `proof` that tells that it was made."""

    proof: bytes
    value: bytes
    conditions: tuple[Condition, ...]
    puts: tuple[Operation, ...]


class EtcdLog(EngineLog[EtcdChange]):
    """A log in etcd."""

    def __init__(
        self, location: Location, client: EtcdClient, keys: Keys, head: Head, identity: str
    ):
        super().__init__(
            str(location), head, location.milliseconds("timeout_ms", DEFAULT_TIMEOUT_MS)
        )
        self.identity = identity
        self._client = client
        self._keys = keys
        self._notices = EtcdNotices(client, keys)
        self._recent: Recent[Value] = Recent()

    @classmethod
    async def open(cls, location: str) -> EtcdLog:
        """Open the log at `location`.  Raises LogError, as when there is none."""
        place, client, keys = _connect(location)
        try:
            head = await _read_head(client, keys, str(place))
            [[identity]] = (await client.txn(then=[get(keys.identity)])).found
            return cls(place, client, keys, head, identity.data.decode())
        except BaseException:
            await client.close()
            raise

    @classmethod
    async def create(cls, location: str, schema: bytes, data: Chunks = b"", index: int = 0) -> None:
        """See `registry.Engine.create`."""
        place, client, keys = _connect(location)
        try:
            async with staging(client, keys) as stage:
                header = SnapshotHeader("", index, stage.name, await stage.add(data), 0)
                made = await client.txn(
                    [unchanged(keys.head, 0), stage.is_ours()],
                    [
                        put(keys.head, b"%d" % (index + 1)),
                        put(keys.identity, str(uuid4()).encode()),
                        put(keys.base, b"%d" % index),
                        put(keys.snapshot, with_header(header, schema)),
                        stage.commit_snapshot(),
                    ],
                    [get(keys.snapshot)],
                )
            # Asked again after a lost answer, it finds what it made itself.
            if not made.succeeded and _stage_of(made.found[0]) != stage.name:
                raise Exists(f"{place}: the database exists already")
        finally:
            await client.close()

    @classmethod
    async def drop(cls, location: str) -> None:
        """Delete the log and all that is stored of it, for good; no error if there is none."""
        _, client, keys = _connect(location)
        try:
            await client.txn(then=[delete_range(keys.root, prefix_end(keys.root))])
        finally:
            await client.close()

    # Appending.

    @contextlib.asynccontextmanager
    async def _batch(
        self, index: int, entries: Sequence[bytes], guards: Sequence[TimedLease]
    ) -> AsyncIterator[EtcdChange]:
        body, n_entries = b"\n".join(entries), len(entries)
        if len(body) > PIECE_BYTES:
            async with staging(self._client, self._keys) as stage:
                n_pieces = await stage.add(body)
                header = BatchHeader(self.writer, n_entries, stage.name, n_pieces, False)
                yield self._appending(index, header, b"", stage, guards)
        elif len(body) >= _DEFLATED_BYTES:
            header = BatchHeader(self.writer, n_entries, None, 0, True)
            yield self._appending(index, header, zlib.compress(body, 1), None, guards)
        else:
            header = BatchHeader(self.writer, n_entries, None, 0, False)
            yield self._appending(index, header, body, None, guards)

    def _appending(
        self,
        index: int,
        header: BatchHeader,
        body: bytes,
        stage: Stage | None,
        guards: Sequence[TimedLease],
    ) -> EtcdChange:
        key, value = self._keys.entry(index), with_header(header, body)
        conditions = [unchanged(self._keys.lease(lease.name), lease.token) for lease in guards]
        puts = [put(key, value)]
        if stage:
            conditions.append(stage.is_ours())
            puts.append(stage.commit_batch(index))
        next_index = index + header.n_entries
        return EtcdChange(index, next_index, guards, key, value, tuple(conditions), tuple(puts))

    @contextlib.asynccontextmanager
    async def _conversion(
        self, index: int, schema: bytes, data: Chunks
    ) -> AsyncIterator[EtcdChange]:
        keys = self._keys
        async with staging(self._client, keys) as stage:
            header = SnapshotHeader(self.writer, index, stage.name, await stage.add(data), 0)
            value = with_header(header, schema)
            puts = (
                put(keys.snapshot, value),
                put(keys.base, b"%d" % index),
                stage.commit_snapshot(),
            )
            yield EtcdChange(index, index + 1, (), keys.snapshot, value, (stage.is_ours(),), puts)

    async def _propose(self, change: EtcdChange, known: Head, attempt: int) -> tuple[bool, Head]:
        keys = self._keys
        try:
            answer = await self._client.txn_once(
                [unchanged(keys.head, known.version), *change.conditions],
                [*change.puts, put(keys.head, b"%d" % change.next_index)],
                [get(keys.head)],
                attempt,
            )
        except NoSpace:
            # It was applied if it was the one that filled the quota; etcd says the same then.
            answer = await self._client.txn(then=self._fate_reads(change))
            made, head = self._fate(change, answer.found)
            if not made:
                raise
            return True, head
        if answer.succeeded:
            return True, Head(change.next_index, answer.revision)
        return False, self._head_in(answer.found[0])

    async def _fence(
        self, change: EtcdChange, known: Head, attempt: int
    ) -> tuple[bool | None, Head]:
        head = self._keys.head
        try:
            answer = await self._client.txn_once(
                [unchanged(head, known.version)],
                [put(head, b"%d" % known.next_index)],
                self._fate_reads(change),
                attempt,
            )
        except NoSpace:
            found = (await self._client.txn(then=self._fate_reads(change))).found
            if self._head_in(found[0]) == known:
                raise  # It may be made yet, as soon as there is room.
            return self._fate(change, found)
        if answer.succeeded:
            return False, Head(known.next_index, answer.revision)
        return self._fate(change, answer.found)

    def _fate_reads(self, change: EtcdChange) -> list[Operation]:
        return [get(self._keys.head), get(change.proof), get(self._keys.base)]

    def _fate(self, change: EtcdChange, found: list[list[Value]]) -> tuple[bool | None, Head]:
        """What these reads say of a change that will not be made any more: as `_fence`."""
        head = self._head_in(found[0])
        if head.next_index == change.index:
            return False, head
        if found[1] and found[1][0].data == change.value:
            return True, head
        return None if change.index <= int(found[2][0].data) else False, head

    def _head_in(self, found: list[Value]) -> Head:
        return _head_in(found, self.name)

    async def _read_head(self) -> Head:
        return await _read_head(self._client, self._keys, self.name)

    # Reading.

    async def _page(self, from_index: int, limit: int) -> Page:
        keys = self._keys
        first = keys.entry(from_index)
        base, head, batches = await self._read_batches(first, limit)
        begins_within = not batches or batches[0].key != first
        if begins_within and base < from_index < head.next_index:
            reads = [get_range(keys.entries, first, 1, keys_only=True, last=True)]
            [before] = (await self._client.txn(then=reads)).found
            if before:
                base, head, batches = await self._read_batches(before[0].key, limit)
        if from_index <= base:
            return Page(base, head, [], 0)
        try:
            entries = [entry for value in batches for entry in await self._entries(value)]
        except PiecesGone as error:
            [[now]] = (await self._client.txn(then=[get(keys.base)])).found
            if int(now.data) < from_index:
                raise Corrupt(f"{self.name}: {error}") from error
            return Page(int(now.data), head, [], 0)
        asked_for = [entry for entry in entries if entry.index >= from_index]
        return Page(base, head, asked_for, len(batches))

    async def _read_batches(self, first: bytes, limit: int) -> tuple[int, Head, list[Value]]:
        keys = self._keys
        reads = [get(keys.base), get(keys.head), get_range(first, keys.entries_end, limit)]
        base, head, batches = (await self._client.txn(then=reads)).found
        known = self._head_in(head)
        return int(base[0].data), known, batches

    async def _at_hand(self, from_index: int) -> list[Entry]:
        batch = self._recent.take(from_index)
        try:
            return [] if batch is None else await self._entries(batch)
        except PiecesGone:
            return []

    async def _entries(self, value: Value) -> list[Entry]:
        header, body = etcd_keys.batch(value.data)
        if header.stage is not None:
            body = await read_pieces(self._client, self._keys, header.stage, 0, header.n_pieces)
        elif header.deflated:
            body = zlib.decompress(body)
        return entries_in(body, self._keys.index_of(value.key), header.writer == self.writer)

    async def snapshot(self) -> Snapshot:
        self._check_open()
        manifest = await self._manifest()
        while True:
            header, schema = etcd_keys.snapshot(manifest.data)
            try:
                data = await self._pieces(header, 0, header.n_data_pieces)
                history = await self._pieces(header, header.n_data_pieces, header.n_history_pieces)
                return Snapshot(header.index, schema, data, history)
            except PiecesGone as error:
                before, manifest = manifest, await self._manifest()
                if manifest == before:
                    raise Corrupt(f"{self.name}: {error}") from error

    async def _manifest(self) -> Value:
        [found] = (await self._client.txn(then=[get(self._keys.snapshot)])).found
        if not found:
            raise _gone(self.name)
        return found[0]

    async def _pieces(self, header: SnapshotHeader, first: int, count: int) -> bytes:
        return await read_pieces(self._client, self._keys, header.stage, first, count)

    # Upkeep.

    async def save_snapshot(self, index: int, data: Chunks, history: Chunks = b"") -> None:
        self._check_open()
        async with self._one_snapshot:
            self._check_open()
            await self._check_covers(index)
            async with staging(self._client, self._keys) as stage:
                n_data, n_history = await stage.add(data), await stage.add(history)
                header = SnapshotHeader(self.writer, index, stage.name, n_data, n_history)
                while not await self._switch(header, stage):
                    pass  # Another server's snapshot came first, which may be an earlier one.
            await self._sweep()

    async def _check_covers(self, index: int) -> Value:
        """The present manifest, if a snapshot as of `index` can take its place."""
        reads = [get(self._keys.head), get(self._keys.snapshot)]
        head, [manifest] = (await self._client.txn(then=reads)).found
        self._learn(self._head_in(head))
        present = etcd_keys.snapshot(manifest.data)[0]
        if not present.index <= index < self.next_index:
            raise LogError(f"{self.name}: cannot save a snapshot at {index}")
        return manifest

    async def _switch(self, header: SnapshotHeader, stage: Stage) -> bool:
        """Make `header` the snapshot's, unless the present one is another than it was."""
        manifest = await self._check_covers(header.index)
        schema = etcd_keys.snapshot(manifest.data)[1]
        value = with_header(header, schema)
        answer = await self._client.txn(
            [unchanged(self._keys.snapshot, manifest.changed), stage.is_ours()],
            [
                put(self._keys.snapshot, value),
                put(self._keys.base, b"%d" % header.index),
                stage.commit_snapshot(),
            ],
            [get(self._keys.snapshot), get(stage.key)],
        )
        if answer.succeeded or answer.found[0][0].data == value:
            return True
        if not answer.found[1]:
            raise stage.lost()
        return False

    async def _sweep(self) -> None:
        try:
            await sweep(self._client, self._keys)
        except LogError as error:
            _logger.warning("%s: unused data are left for the next sweep: %s", self.name, error)

    async def compact(self, index: int) -> None:
        """See `Log.compact`; batches that reach beyond `index` stay, but are not read any more.

        A thousand batches at a time, so that others are not held up.  What etcd keeps of all that
        was overwritten or deleted so far goes as well.
        """
        self._check_open()
        keys = self._keys
        behind = keys.entry(index + 1)
        up_to_behind = get_range(keys.entries, behind + b"\0", 1, keys_only=True, last=True)
        reads = [get(keys.base), get(keys.head), up_to_behind]
        base, head, last = (await self._client.txn(then=reads)).found
        if not base or index > int(base[0].data):
            raise LogError(f"{self.name}: no snapshot covers the entries up to {index}")
        if self._head_in(head).next_index == index + 1:
            await self._delete_batches(behind)
        elif last:
            await self._delete_batches(last[0].key)
        await self._sweep()
        await self._client.compact((await self._client.txn(then=[get(keys.base)])).revision)

    async def _delete_batches(self, end: bytes) -> None:
        while True:
            reads = [get_range(self._keys.entries, end, _DELETED_AT_ONCE, keys_only=True)]
            [batches] = (await self._client.txn(then=reads)).found
            if not batches:
                return
            behind = batches[-1].key + b"\0"
            await self._client.txn(then=[delete_range(self._keys.entries, behind)])

    async def usage(self) -> Usage:
        """See `EngineLog.usage`; at its quota etcd refuses every write."""
        self._check_open()
        return await self._client.usage()

    async def status(self) -> EngineStatus:
        self._check_open()
        return await etcd_maintenance.read_status(self._client)

    async def make_room(self) -> None:
        """See `EngineLog.make_room` and `etcd_maintenance`."""
        self._check_open()
        [[base]] = (await self._client.txn(then=[get(self._keys.base)])).found
        # All that can be deleted without writing.
        await self.compact(int(base.data))
        quota = (await self._client.usage()).quota
        await etcd_maintenance.make_room(self._client, self._keys.scratch, quota)

    async def post(self, name: str, text: bytes, ttl_ms: int) -> None:
        self._check_open()
        await self._notices.post(name, text, ttl_ms)

    async def withdraw(self, name: str) -> None:
        self._check_open()
        await self._notices.withdraw(name)

    async def notices(self) -> dict[str, bytes]:
        self._check_open()
        return await self._notices.read()

    async def leases(self) -> list[Holding]:
        self._check_open()
        return await etcd_leases.held(self._client, self._keys.leases)

    # Hints, leases, the end.

    async def _hints(self) -> AsyncIterator[set[str]]:
        async for changed in self._client.watch(self._keys.now):
            if not changed:
                self._learn(await self._read_head())
                yield {LOG, LEASES}
            yield {self._take_in(value) for value in changed}

    def _take_in(self, changed: Value) -> str:
        """Note what has changed; of which kind it is."""
        keys = self._keys
        if changed.key.startswith((keys.leases, keys.lines)):
            return LEASES
        if changed.key == keys.head and changed.data:
            self._learn(Head(int(changed.data), changed.changed))
        elif changed.key == keys.turn:
            self._take_in_turn(changed.data)
        elif changed.data:
            self._take_in_batch(changed)
        return LOG

    def _take_in_batch(self, value: Value) -> None:
        writer = etcd_keys.batch(value.data)[0].writer
        self.turns.ended(writer)
        # What this handle appended is nothing new to who reads here.
        if writer != self.writer:
            self._recent.add(self._keys.index_of(value.key), value, len(value.data))

    def _take_in_turn(self, data: bytes) -> None:
        writer, patience_s = etcd_keys.said_of_turn(data)
        if patience_s is None:
            self.turns.ended(writer)
        else:
            self.turns.asked(writer, patience_s)

    async def _tell_turn(self, patience_s: float | None) -> None:
        said = etcd_keys.turn(self.writer, patience_s)
        await self._client.txn(then=[put(self._keys.turn, said)])

    async def _take(self, name: str, ttl_ms: int, is_theft: bool) -> TimedLease | None:
        place = self._place(name, ttl_ms)
        return await (place.steal() if is_theft else place.take())

    def _place(self, name: str, ttl_ms: int) -> etcd_leases.EtcdPlace:
        return etcd_leases.EtcdPlace(self._client, self._keys, self.writer, name, ttl_ms)

    async def _disconnect(self) -> None:
        await self._client.close()


def _connect(location: str) -> tuple[Location, EtcdClient, Keys]:
    place = Location.parse(location, PARAMETERS)
    return place, EtcdClient(place), Keys(place.path, place.database)


async def _read_head(client: EtcdClient, keys: Keys, name: str) -> Head:
    [found] = (await client.txn(then=[get(keys.head)])).found
    return _head_in(found, name)


def _head_in(found: list[Value], name: str) -> Head:
    if not found:
        raise _gone(name)
    return Head(int(found[0].data), found[0].changed)


def _gone(name: str) -> LogError:
    return LogError(f"{name}: there is no such database")


def _stage_of(found: list[Value]) -> str:
    return etcd_keys.snapshot(found[0].data)[0].stage if found else ""
