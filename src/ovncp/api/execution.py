"""Writes, done: checked, executed, told to the audit trail, and seen by who asked for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import zip_longest
from typing import Any

from ovncp.api import audit, problem, sight
from ovncp.api.audit import Record
from ovncp.api.call import Call
from ovncp.api.problem import Problem
from ovncp.api.quotas import Quotas
from ovncp.ovn.draft import Draft, Stale, Unmet
from ovncp.ovn.session import SessionLost
from ovncp.ovn.values import Invalid, Unresolved
from ovncp.ovn.write import Write, Written, put
from ovncp.ovn.writer import Rejected

_DUPLICATE = "duplicate uuid"


@contextmanager
def of_operation(number: int) -> Iterator[None]:
    """What is wrong within is wrong with that operation of a transaction, and told so."""
    place = f"operations[{number}]"
    try:
        yield
    except Invalid as error:
        raise Invalid([m._replace(field=f"{place}.body.{m.field}") for m in error.mistakes]) from (
            error
        )
    except Unmet as error:
        raise type(error)(f"{place}: {error}") from error
    except Problem as error:
        error.detail = f"{place}: {error.detail}"
        raise


def draft_of(
    call: Call, wanted: Sequence[Write], *, is_bulk: bool
) -> tuple[Draft, Sequence[Written]]:
    """The operations that `wanted` come to. Raises what `problem.of` knows."""
    draft = Draft(call.platform.nb, call.view)
    written: list[Written] = []
    for number, write in enumerate(wanted):
        with of_operation(number) if is_bulk else nullcontext():
            written.append(put(write, draft))
    draft.comment(f"ovncp: {call.principal.name} {call.request_id}")
    return draft, written


async def execute(call: Call, wanted: Sequence[Write], *, alone: bool = False) -> Sequence[Written]:
    """Do all that is `wanted`, or nothing; `alone` in a transaction of its own.

    What an earlier request with the same key has done is not done again.

    Raises what `problem.of` knows.
    """
    call.platform.audit.check()
    if _was_done(call, wanted):
        return _again(call, wanted)
    written: Sequence[Written] = ()
    owners: Sequence[str | None] = ()
    result = audit.DONE
    try:
        while True:
            draft, written = await _draft_of_now(call, wanted, is_bulk=alone)
            owners = [_owner(call, each) for each in written]
            try:
                await _commit(call, draft, alone=alone)
                break
            except Stale:
                # The row has changed since; the version that it is in now may be asked for too.
                if not _have_choice(wanted):
                    raise
    except Exception as error:
        if _is_done(error, wanted):
            return _again(call, wanted)
        result = _kind(error)
        if isinstance(error, Rejected) and call.principal.tenant is not None:
            raise _without_others(error) from error
        raise
    finally:
        await _audit(call, wanted, written, owners, result)
    await call.platform.sight.wrote(call.principal.id)
    sight.give_mark(call.request)
    return written


async def _draft_of_now(
    call: Call, wanted: Sequence[Write], *, is_bulk: bool
) -> tuple[Draft, Sequence[Written]]:
    """As `draft_of`, where a row is not taken to be in another version because what is here is old.

    Raises what `problem.of` knows.
    """
    try:
        return draft_of(call, wanted, is_bulk=is_bulk)
    except Stale:
        try:
            await call.platform.barrier.server()
        except SessionLost as error:
            raise SessionLost(str(error), sent=False) from error  # nothing that is wanted was
    return draft_of(call, wanted, is_bulk=is_bulk)


async def _commit(call: Call, draft: Draft, *, alone: bool) -> None:
    """Execute `draft` within the quotas. Raises what `problem.of` knows."""
    quotas = await quotas_of(call, draft)
    async with call.platform.quotas.keeping(quotas, draft):
        writer = call.platform.writer
        with call.platform.spans.step("commit"):
            await (writer.alone if alone else writer.write)(draft)


def _have_choice(wanted: Sequence[Write]) -> bool:
    """Whether there is a write that may go by one of several versions."""
    return any(len(write.versions or ()) > 1 for write in wanted)


def _kind(error: Exception) -> str:
    if isinstance(error, SessionLost) and error.sent:
        return audit.UNKNOWN
    known = problem.of(error)
    return "error" if known is None else known.kind


def _is_done(error: Exception, wanted: Sequence[Write]) -> bool:
    """Whether it fails because an earlier request with the same key is done just now."""
    is_duplicate = isinstance(error, Rejected) and error.tag == _DUPLICATE
    return is_duplicate and any(write.uuid is not None for write in wanted)


def _was_done(call: Call, wanted: Sequence[Write]) -> bool:
    """Whether a row is there already whose uuid is made of the request's own key."""
    rows = call.platform.nb.rows
    return any(w.uuid is not None and rows[w.resource.table].get(w.uuid) for w in wanted)


def _again(call: Call, wanted: Sequence[Write]) -> Sequence[Written]:
    """What was written by the request that did all this before."""
    sight.give_mark(call.request)
    draft = Draft(call.platform.nb, call.view)
    for write in wanted:
        if write.name is not None and write.uuid is not None:
            draft.given[write.name] = (write.resource.table, write.uuid)
    return [Written(w.action, w.resource, _uuid(w, draft), None) for w in wanted]


def _uuid(write: Write, draft: Draft) -> str:
    """The uuid of the row that `write` was about; "" if it is there no more."""
    if write.uuid is not None:
        return write.uuid
    try:
        return draft.resolve(write.resource.table, write.target or "")
    except Unresolved:
        return ""


async def quotas_of(call: Call, draft: Draft) -> Quotas:
    """What who asks may have, if the draft makes something of theirs.

    Raises what `problem.of` knows.
    """
    tenant = call.principal.tenant
    if tenant is None or not draft.inserted:
        return {}
    return await call.platform.access.quotas(tenant)


def _without_others(error: Rejected) -> Rejected:
    """What a tenant's member is told of a conflict: not which row it is with."""
    return Rejected(error.tag, error.details.partition(".  First row")[0], error.place)


async def _audit(
    call: Call,
    wanted: Sequence[Write],
    written: Sequence[Written],
    owners: Sequence[str | None],
    result: str,
) -> None:
    known = zip_longest(wanted, written, owners)
    records = [_record(call, write, done, owner, result) for write, done, owner in known]
    await call.platform.audit.record(records)


def _owner(call: Call, written: Written) -> str | None:
    """Whose the row is that is written, as it is now."""
    rows = call.platform.nb.rows[written.resource.table]
    row = rows.get(written.uuid)
    return None if row is None else next(iter(call.view.owners(rows, row)), None)


def _record(
    call: Call, write: Write, written: Written | None, owner: str | None, result: str
) -> Record:
    rows = call.platform.nb.rows[write.resource.table]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    if written is not None:
        before = None if written.before is None else rows.object(written.before)
        row = rows.get(written.uuid)
        after = None if row is None or result != audit.DONE else rows.object(row.values)
        owner = _owner(call, written) or owner
    uuid = write.target or "" if written is None else written.uuid
    return Record(
        call.principal,
        call.request_id,
        call.address,
        write.action,
        write.resource.name,
        uuid,
        before,
        after,
        result,
        owner,
    )
