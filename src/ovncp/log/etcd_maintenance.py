"""The room that etcd has, and what makes more of it (etcd's "Maintenance" guide).

What is compacted leaves holes in a member's file, which later writes fill; the file itself gets
smaller only when it is defragmented. It is the file's size that etcd's quota is about. When a
write would exceed that, an alarm goes up, and every write is refused until it is disarmed.
Compaction can be what exceeds it: a page that has a hole now is written anew, before the old one
is free, so that the file may for a moment need twice the room of what is left.

A member answers nobody while it is defragmented. So that is done to one at a time, and only while
all others are well.
"""

from __future__ import annotations

import asyncio
import logging

from ovncp.log.engine import EngineError
from ovncp.log.engine_status import TIGHT, EngineMember, EngineStatus
from ovncp.log.etcd_client import Alarm, EtcdClient, MemberStatus, NoSpace, delete_range, put

_logger = logging.getLogger("ovncp.log")

_NO_SPACE = "NOSPACE"

_LARGE_BYTES = 256 << 20
_MIN_HOLES = 0.1
_HARDLY_SMALLER = 0.95
# With less to spare, the next writes would have the alarm go up again.
_FULL = 0.9
# A member commits ten times a second.
_COMMIT_S = 0.2


async def read_status(client: EtcdClient) -> EngineStatus:
    """See `EngineLog.status`."""
    statuses = await client.statuses()
    listed = await client.members()
    well = [status for status in statuses if not status.problem]
    if not well:
        raise EngineError("no member of etcd answers")
    # A member that is cut off knows an older term.
    newest = max(well, key=lambda status: status.term)
    members = [_member(status, newest, listed.pop(status.member, "")) for status in statuses]
    members += [
        EngineMember(name, "not in the location", _role(member, newest))
        for member, name in listed.items()
    ]
    alarms = tuple(sorted({alarm.name for alarm in await client.alarms()}))
    return EngineStatus("etcd", newest.version, newest.term, tuple(members), alarms)


def _role(member: int, newest: MemberStatus) -> str:
    return "leader" if member == newest.leader else "follower"


def _member(status: MemberStatus, newest: MemberStatus, name: str) -> EngineMember:
    if status.problem:
        return EngineMember(name or "?", status.host, "unknown", problem=status.problem)
    role = "learner" if status.is_learner else _role(status.member, newest)
    return EngineMember(name, status.host, role, status.version, status.used, status.allocated)


async def make_room(client: EtcdClient, scratch: bytes, quota: int | None) -> None:
    """Defragment the members where that is worth it, then disarm the alarm if there is room.

    The key `scratch` is for writing to. Raises LogError.
    """
    if not await _alarms(client):
        try:
            await _defragment_where_worth_it(client, scratch, quota)
            return
        except NoSpace as error:
            _logger.warning("etcd refuses writes after its compaction: %s", error.details)
    await _defragment_where_it_helps(client)
    await _disarm(client, quota)


async def _alarms(client: EtcdClient) -> list[Alarm]:
    return [alarm for alarm in await client.alarms() if alarm.name == _NO_SPACE]


async def _defragment_where_worth_it(client: EtcdClient, scratch: bytes, quota: int | None) -> None:
    for status in _leader_last(await _after_compaction(client, scratch)):
        if is_worth_it(status, quota):
            await _defragment(client, status)


async def _after_compaction(client: EtcdClient, scratch: bytes) -> list[MemberStatus]:
    """What the members say when what was compacted is free.

    They take their time for that, and count it with the write after the next.
    """
    statuses = await client.statuses()
    while True:
        for operation in (put(scratch, b""), delete_range(scratch, scratch + b"\0")):
            await client.txn(then=[operation])
            await asyncio.sleep(_COMMIT_S)
        before, statuses = statuses, await client.statuses()
        if all(now.used >= then.used for then, now in zip(before, statuses, strict=True)):
            return statuses


async def _defragment_where_it_helps(client: EtcdClient) -> None:
    """Defragment the members; without writes, none of them knows what is in use.

    But all hold the same, so that each shows of the next one whether it can get smaller.
    """
    smallest = 0
    for host in [status.host for status in _leader_last(await client.statuses())]:
        # Asked again, as one may have been through with its compaction later than another.
        status = await _status(client, host)
        if _HARDLY_SMALLER * status.allocated > smallest:
            await _defragment(client, status)
            smallest = (await _status(client, host)).allocated


async def _status(client: EtcdClient, host: str) -> MemberStatus:
    [status] = [status for status in await client.statuses() if status.host == host]
    return status


def _leader_last(statuses: list[MemberStatus]) -> list[MemberStatus]:
    return sorted(statuses, key=lambda status: status.member == status.leader)


def is_worth_it(status: MemberStatus, quota: int | None) -> bool:
    """Whether a member has so many holes that its file should be written anew."""
    holes = status.allocated - status.used
    if quota and status.allocated > TIGHT * quota:
        return holes > _MIN_HOLES * status.allocated
    return status.allocated > _LARGE_BYTES and holes > status.allocated / 2


async def _defragment(client: EtcdClient, status: MemberStatus) -> None:
    others = [other for other in await client.statuses() if other.host != status.host]
    unwell = [other for other in others if other.problem]
    if status.problem or unwell:
        hosts = ", ".join(other.host for other in [status, *unwell] if other.problem)
        _logger.warning("%s is not defragmented while %s is not well", status.host, hosts)
        return
    try:
        await client.defragment(status.host)
    except EngineError as error:
        # It is not everybody's to do.
        _logger.warning("%s is not defragmented: %s", status.host, error)
        return
    _logger.info(
        "%s is defragmented, which had %d of %d bytes in use",
        status.host,
        status.used,
        status.allocated,
    )


async def _disarm(client: EtcdClient, quota: int | None) -> None:
    statuses = [status for status in await client.statuses() if not status.problem]
    largest = max(status.allocated for status in statuses)
    if quota and largest > _FULL * quota:
        raise EngineError(
            f"etcd has used up its quota, {largest} of {quota} bytes, and compaction did not help: "
            "give it more with --quota-backend-bytes"
        )
    for alarm in await _alarms(client):
        await client.disarm(alarm)
    _logger.info("etcd takes writes again: %d of %s bytes", largest, quota or "unknown")
