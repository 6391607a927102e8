"""A connection to an etcd cluster, version 3.4 and on, over gRPC; the one module with its driver.

The driver is grpcio, with the generated messages that aetcd ships (docs/adr/0007).  A request goes
to one member; when that member fails, has lost its leader or does not answer, the next request
goes to the next one.  Every request demands that its member knows a leader, so that a member that
is cut off is left at once.

A request that writes and fails with `Refused` was not done, and never will be (but see `NoSpace`);
with `Unanswered` it may have been, or be yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ovncp.log.base import LogError
from ovncp.log.engine import EngineError, Unanswered, Usage, pause
from ovncp.log.location import Location

# gRPC reads these when it is imported.  What it has to say arrives as errors; and a process that
# starts another one is not to wait for its threads.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from aetcd import rpc

PARAMETERS = ("ca", "cert", "key", "timeout_ms")
"""Parameters of a location beside the common ones: three PEM files, for TLS (`etcds://`), and how
long an operation is tried."""

_PORT = 2379
DEFAULT_TIMEOUT_MS = 8000
# A member answers in milliseconds, unless it has passed the request on to a leader that is dead:
# then never, so it is better asked again soon.  What a slow one does late is found out anyway.
_FIRST_ATTEMPT_S = 0.5
_LONGER_EACH_TIME = 1.1
_DEFRAGMENTATION_S = 600.0
_PATIENCE_S_PER_BYTE = 2.0 / (1 << 20)
_HAS_LEADER = ("hasleader", "true")
# etcd takes pings as abuse when they are less than five seconds apart, or when nothing is asked.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]
_REFUSALS = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_COMPACTED = "has been compacted"
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old")


class Refused(EngineError):
    """etcd answered that it will not do it."""


class NoSpace(Refused):
    """The quota of its storage is used up.  The very request that used it up *was* done."""


@dataclass(frozen=True, slots=True)
class Value:
    """A key's value and the revisions of its creation and last change."""

    key: bytes
    data: bytes
    created: int
    changed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A transaction's: whether it succeeded, when, and what its reads found, in their order."""

    succeeded: bool
    revision: int
    found: list[list[Value]]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member says of itself; `problem` is why it says nothing, else "".

    `member` and `leader` are members' ids. Its file is of `allocated` bytes, of which `used` are.
    """

    host: str
    problem: str = ""
    member: int = 0
    leader: int = 0
    term: int = 0
    version: str = ""
    used: int = 0
    allocated: int = 0
    is_learner: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong with a member, in etcd's word for it, and the member's id."""

    name: str
    member: int


# Parts of a transaction.

Condition: TypeAlias = Any  # As the messages are, which come without types.
Operation: TypeAlias = Any


def unchanged(key: bytes, revision: int) -> Condition:
    """The condition that `key` was last changed at `revision`; 0: that it does not exist."""
    return rpc.Compare(
        key=key, target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=revision
    )


def exists(key: bytes) -> Condition:
    """The condition that there is `key`."""
    return rpc.Compare(key=key, target=rpc.Compare.VERSION, result=rpc.Compare.GREATER, version=0)


def put(key: bytes, data: bytes, lease: int = 0) -> Operation:
    """The operation that stores `data`; it goes when `lease` does, unless that is 0."""
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=data, lease=lease))


def get(key: bytes) -> Operation:
    """The operation that reads `key`."""
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key))


def get_range(
    first: bytes, end: bytes, limit: int = 0, *, keys_only: bool = False, last: bool = False
) -> Operation:
    """The operation that reads the keys from `first` on before `end`, in order.

    At most `limit` of them unless that is 0; from the end backwards with `last`.
    """
    order = rpc.RangeRequest.DESCEND if last else rpc.RangeRequest.NONE
    return rpc.RequestOp(
        request_range=rpc.RangeRequest(
            key=first, range_end=end, limit=limit, keys_only=keys_only, sort_order=order
        )
    )


def delete_range(first: bytes, end: bytes) -> Operation:
    """The operation that deletes the keys from `first` on before `end`."""
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=first, range_end=end))


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of the keys that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class _Member:
    """The stubs for one member of the cluster."""

    def __init__(self, host: str, credentials: grpc.ChannelCredentials | None):
        self.host = host
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(host, options=_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(host, credentials, options=_OPTIONS)
        self.auth = rpc.AuthStub(self.channel)
        self.cluster = rpc.ClusterStub(self.channel)
        self.kv = rpc.KVStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.maintenance = rpc.MaintenanceStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)
        self.token: str | None = None


_Call = Callable[[_Member, float, list[tuple[str, str]]], Awaitable[Any]]
"""Sends a request to a member, with a time-out in seconds and metadata."""


class EtcdClient:
    """Requests to one cluster; belongs to the running event loop."""

    def __init__(self, location: Location):
        """Connects when first asked.  Raises LogError if `location` makes no sense."""
        self._timeout_s = location.milliseconds("timeout_ms", DEFAULT_TIMEOUT_MS) / 1000
        self._credentials = location.user, location.password
        self._tls = _Tls.of(location)
        channel_credentials = self._tls.for_grpc() if self._tls else None
        self._members = [_Member(_with_port(host), channel_credentials) for host in location.hosts]
        self._current = 0
        self._closed = False

    async def txn(
        self,
        conditions: Iterable[Condition] = (),
        then: Iterable[Operation] = (),
        otherwise: Iterable[Operation] = (),
    ) -> Answer:
        """Do `then` if all `conditions` hold, else `otherwise`; tried until it is answered.

        So it may be done twice, unless its conditions see to that.  What writes nothing is done
        even where there is no space.  Raises EngineError.
        """
        request = rpc.TxnRequest(compare=conditions, success=then, failure=otherwise)
        try:
            return _answer(await self._until_answered(_unary(_txn, request)))
        except NoSpace:
            if request.compare or not all(map(_takes_no_space, request.success)):
                raise
        return await self._one_by_one(request.success)

    async def _one_by_one(self, operations: Iterable[Operation]) -> Answer:
        """Delete, and read as of one moment, without a transaction.  Raises EngineError.

        Before 3.4.20, and 3.5 before 3.5.7, etcd at its quota refuses every transaction, whatever
        is in it, but nothing else that takes no space.
        """
        while True:
            try:
                return await self._in_turn(operations)
            except Refused as error:
                # The moment is gone; the next one will do as well.
                if _COMPACTED not in str(error):
                    raise

    async def _in_turn(self, operations: Iterable[Operation]) -> Answer:
        revision = 0
        found = []
        for operation in operations:
            if operation.HasField("request_delete_range"):
                await self._until_answered(_unary(_delete_range, operation.request_delete_range))
                continue
            request = rpc.RangeRequest()
            request.CopyFrom(operation.request_range)
            request.revision = revision
            answer = await self._until_answered(_unary(_range, request))
            revision = revision or answer.header.revision
            found.append(list(map(_value, answer.kvs)))
        return Answer(True, revision, found)

    async def txn_once(
        self,
        conditions: Iterable[Condition],
        then: Iterable[Operation],
        otherwise: Iterable[Operation],
        attempt: int,
    ) -> Answer:
        """As `txn`, sent once; each further `attempt` from 0 on is given more time."""
        request = rpc.TxnRequest(compare=conditions, success=then, failure=otherwise)
        return _answer(await self._once(_unary(_txn, request), attempt))

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted before `revision`.  Raises EngineError."""
        request = rpc.CompactionRequest(revision=revision)
        with _ignored(_COMPACTED):
            await self._until_answered(_unary(lambda member: member.kv.Compact, request))

    async def grant(self, ttl_ms: int) -> int:
        """A new lease's id; its time to live, in whole seconds, starts after this call did.

        etcd makes it longer than its own time for an election.  Raises EngineError.
        """
        request = rpc.LeaseGrantRequest(TTL=-(-ttl_ms // 1000))
        call = _unary(lambda member: member.lease.LeaseGrant, request)
        return int((await self._until_answered(call)).ID)

    async def keep_alive(self, lease: int) -> bool:
        """Start the time of `lease` anew; false if it is over.  Raises EngineError."""

        async def call(member: _Member, patience_s: float, metadata: Any) -> Any:
            stream = member.lease.LeaseKeepAlive(timeout=patience_s, metadata=metadata)
            try:
                await stream.write(rpc.LeaseKeepAliveRequest(ID=lease))
                return await stream.read()
            finally:
                stream.cancel()

        answer = await self._until_answered(call)
        return answer is not grpc.aio.EOF and answer.TTL > 0

    async def revoke(self, lease: int) -> None:
        """End `lease` and delete its keys; no error if it is over already.  Raises EngineError."""
        request = rpc.LeaseRevokeRequest(ID=lease)
        with _ignored("lease not found"):
            await self._until_answered(_unary(lambda member: member.lease.LeaseRevoke, request))

    async def time_left_s(self, lease: int) -> int:
        """After how many whole seconds `lease` is over; below 0 if it is.  Raises EngineError."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        call = _unary(lambda member: member.lease.LeaseTimeToLive, request)
        return int((await self._until_answered(call)).TTL)

    async def usage(self) -> Usage:
        """The storage of the member with the largest file.  Raises EngineError."""
        well = [status for status in await self.statuses() if not status.problem]
        if not well:
            raise Unanswered("no member of etcd answers")
        largest = max(well, key=lambda status: status.allocated)
        quota = await asyncio.to_thread(self._quota, largest.host)
        return Usage(largest.used, largest.allocated, quota)

    def _quota(self, host: str) -> int | None:
        # The protocol has it from etcd 3.6 on; the metrics always had. To import what asks for them
        # takes long, and most programs never do.
        import urllib.request

        context = self._tls.for_https() if self._tls else None
        scheme = "https" if self._tls else "http"
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with (
            contextlib.suppress(OSError),  # Metrics may be served elsewhere, or not to us.
            opener.open(f"{scheme}://{host}/metrics", timeout=self._timeout_s) as lines,
        ):
            for line in lines:
                if line.startswith(b"etcd_server_quota_backend_bytes "):
                    return int(float(line.split()[1]))
        return None

    # Maintenance, which is of members, not of what they hold together.

    async def statuses(self) -> list[MemberStatus]:
        """What each member of the location says of itself."""
        return list(await asyncio.gather(*map(self._status, self._members)))

    async def _status(self, member: _Member) -> MemberStatus:
        call = _unary(lambda member: member.maintenance.Status, rpc.StatusRequest())
        try:
            answer = await self._ask(member, call, _FIRST_ATTEMPT_S)
        except EngineError as error:
            return MemberStatus(member.host, error.details)
        return MemberStatus(
            member.host,
            "",
            answer.header.member_id,
            answer.leader,
            answer.raftTerm,
            answer.version,
            answer.dbSizeInUse,
            answer.dbSize,
            answer.isLearner,
        )

    async def members(self) -> dict[int, str]:
        """The names of all members, also of those that the location does not name, by id.

        Raises EngineError.
        """
        call = _unary(lambda member: member.cluster.MemberList, rpc.MemberListRequest())
        return {member.ID: member.name for member in (await self._until_answered(call)).members}

    async def alarms(self) -> list[Alarm]:
        """The alarms that are up.  Raises EngineError."""
        answer = await self._until_answered(_alarm(rpc.AlarmRequest.GET, Alarm("NONE", 0)))
        return [Alarm(rpc.AlarmType.Name(part.alarm), part.memberID) for part in answer.alarms]

    async def disarm(self, alarm: Alarm) -> None:
        """Take down `alarm`.  Raises EngineError."""
        await self._until_answered(_alarm(rpc.AlarmRequest.DEACTIVATE, alarm))

    async def defragment(self, host: str) -> None:
        """Have the member at `host` write its file anew; it answers nobody meanwhile.

        Raises EngineError.
        """
        [member] = [member for member in self._members if member.host == host]
        # So that nobody here waits for it.
        self._leave(member)
        call = _unary(lambda member: member.maintenance.Defragment, rpc.DefragmentRequest())
        await self._ask(member, call, _DEFRAGMENTATION_S)

    async def _ask(self, member: _Member, call: _Call, patience_s: float) -> Any:
        try:
            return await call(member, patience_s, await self._metadata(member))
        except _DRIVER_ERRORS as error:
            raise _translated(error, member.host) from error

    async def watch(self, prefix: bytes) -> AsyncIterator[list[Value]]:
        """What changes under `prefix` from now on: first an empty list, to say it began.

        Raises EngineError when that cannot be known any longer.
        """
        member = self._members[self._current]
        try:
            stream = member.watch.Watch(metadata=await self._metadata(member))
            try:
                await stream.write(_watch_request(prefix))
                async with asyncio.timeout(self._timeout_s):
                    response = await stream.read()
                while response is not grpc.aio.EOF and not response.canceled:
                    yield [_value(event.kv) for event in response.events]
                    response = await stream.read()
            finally:
                stream.cancel()
        except _DRIVER_ERRORS as error:
            raise self._failed(member, error) from error
        self._leave(member)
        raise Unanswered(f"{member.host}: the watch was cancelled")

    async def close(self) -> None:
        """Drop the connections; requests under way fail."""
        self._closed = True
        for member in self._members:
            await member.channel.close()

    async def _until_answered(self, call: _Call) -> Any:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        attempt = 0
        while True:
            try:
                return await self._once(call, attempt)
            except Unanswered:
                if self._closed or not await pause(attempt, deadline):
                    raise
            attempt += 1

    async def _once(self, call: _Call, attempt: int) -> Any:
        member = self._members[self._current]
        patience_s = min(_FIRST_ATTEMPT_S * _LONGER_EACH_TIME**attempt, self._timeout_s)
        try:
            try:
                return await call(member, patience_s, await self._metadata(member))
            except grpc.aio.AioRpcError as error:
                if not _has_stale_token(error):
                    raise
                member.token = None
            return await call(member, patience_s, await self._metadata(member))
        except _DRIVER_ERRORS as error:
            raise self._failed(member, error) from error
        except asyncio.CancelledError:
            # How gRPC ends the requests of a channel that is closed.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise Unanswered(f"{member.host}: the connection was closed") from None
            raise

    async def _metadata(self, member: _Member) -> list[tuple[str, str]]:
        user, password = self._credentials
        if user is None:
            return [_HAS_LEADER]
        if member.token is None:
            request = rpc.AuthenticateRequest(name=user, password=password or "")
            answer = await member.auth.Authenticate(request, timeout=self._timeout_s)
            member.token = answer.token
        return [_HAS_LEADER, ("token", member.token)]

    def _failed(self, member: _Member, error: Exception) -> EngineError:
        translated = _translated(error, member.host)
        if isinstance(translated, Unanswered):
            self._leave(member)
        return translated

    def _leave(self, member: _Member) -> None:
        """Ask another member from now on, unless someone has changed that already."""
        if self._members[self._current] is member:
            self._current = (self._current + 1) % len(self._members)


def _txn(member: _Member) -> Any:
    return member.kv.Txn


def _range(member: _Member) -> Any:
    return member.kv.Range


def _delete_range(member: _Member) -> Any:
    return member.kv.DeleteRange


def _takes_no_space(operation: Operation) -> bool:
    return not operation.HasField("request_put")


def _unary(method: Callable[[_Member], Any], request: Any) -> _Call:
    async def call(member: _Member, patience_s: float, metadata: Any) -> Any:
        timeout_s = patience_s + request.ByteSize() * _PATIENCE_S_PER_BYTE
        return await method(member)(request, timeout=timeout_s, metadata=metadata)

    return call


def _alarm(action: Any, alarm: Alarm) -> _Call:
    kind = rpc.AlarmType.Value(alarm.name)
    request = rpc.AlarmRequest(action=action, memberID=alarm.member, alarm=kind)
    return _unary(lambda member: member.maintenance.Alarm, request)


def _watch_request(prefix: bytes) -> rpc.WatchRequest:
    # In fragments, as else what was missed comes in one message, of any size.
    create = rpc.WatchCreateRequest(key=prefix, range_end=prefix_end(prefix), fragment=True)
    return rpc.WatchRequest(create_request=create)


def _value(pair: Any) -> Value:
    return Value(pair.key, pair.value, pair.create_revision, pair.mod_revision)


def _answer(response: rpc.TxnResponse) -> Answer:
    found = [
        [_value(kv) for kv in part.kvs]
        for part in (op.response_range for op in response.responses if op.HasField(_RANGE))
    ]
    return Answer(response.succeeded, response.header.revision, found)


_RANGE = "response_range"


# Besides its error proper, what gRPC raises when a stream or a channel ends at a bad moment.
_DRIVER_ERRORS = (
    grpc.aio.AioRpcError,
    grpc.aio.UsageError,
    asyncio.InvalidStateError,
    TimeoutError,
)


def _translated(error: Exception, host: str) -> EngineError:
    if isinstance(error, TimeoutError):
        return Unanswered(f"{host}: no answer in time")
    if not isinstance(error, grpc.aio.AioRpcError):
        return Unanswered(f"{host}: {error}")
    words = f"{host}: {error.details() or error.code().name}"
    if "database space exceeded" in words:
        return NoSpace(words)
    if error.code() in _REFUSALS and "too many requests" not in words:
        return Refused(words)
    return Unanswered(words)


def _has_stale_token(error: grpc.aio.AioRpcError) -> bool:
    return any(words in (error.details() or "") for words in _STALE_TOKEN)


@contextlib.contextmanager
def _ignored(words: str) -> Iterator[None]:
    """Take a refusal for these reasons as success: what was asked for is so already."""
    try:
        yield
    except Refused as error:
        if words not in str(error):
            raise


def _with_port(host: str) -> str:
    _, colon, port = host.rpartition(":")
    return host if colon and port.isdigit() else f"{host}:{_PORT}"


@dataclass(frozen=True, slots=True)
class _Tls:
    """The PEM files of a location: the authorities to trust, our certificate and its key."""

    ca: str | None
    cert: str | None
    key: str | None

    @classmethod
    def of(cls, location: Location) -> _Tls | None:
        files = [location.parameters.get(name) for name in ("ca", "cert", "key")]
        if location.scheme == "etcds":
            return cls(*files)
        if any(files):
            raise LogError(f"{location}: ca, cert and key are for etcds://")
        return None

    def for_grpc(self) -> grpc.ChannelCredentials:
        try:
            ca, cert, key = (
                Path(path).read_bytes() if path else None for path in (self.ca, self.cert, self.key)
            )
        except OSError as error:
            raise LogError(f"{error.filename}: cannot be read", io_error=error.strerror) from error
        return grpc.ssl_channel_credentials(ca, key, cert)

    def for_https(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context
