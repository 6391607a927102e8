"""Many writes in one request: `transactions`, all or nothing, and `batch`, each for itself.

An operation is what a request of its own would be: method, path below /api/v1, body, and `if_match`
in place of the header.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, RootModel
from starlette.responses import Response

from ovncp.api import attempts, problem, quotas, reading, writing
from ovncp.api.call import Call, begin
from ovncp.api.execution import draft_of, execute, of_operation, quotas_of
from ovncp.api.idempotency import Answer, uuid_for
from ovncp.api.location import PREFIX, Location, check_location, locate
from ovncp.api.problem import NotAllowed, ProblemDetails
from ovncp.ovn.rehearsal import rehearse
from ovncp.ovn.resources import BY_TABLE
from ovncp.ovn.rows import encode
from ovncp.ovn.write import Write, Written
from ovncp.ovsdb.row import Change
from ovncp.ovsdb.schema import VERSION

MOST_OPERATIONS = 1000


class Row(RootModel[dict[str, Any]]):
    """A row, or some fields of one."""


class Operation(BaseModel):
    """One write."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    method: Literal["POST", "PATCH", "DELETE"]
    path: str = Field(
        description="Below /api/v1, such as `/switches/web/ports`. In a transaction `@name` stands"
        " for the row that an operation before was given that name by `as`, here and in bodies.",
        examples=["/switches"],
    )
    body: Row | None = Field(None, description="The fields, for POST and PATCH.")
    if_match: str | None = Field(
        None, description='The entity tag that the row has to have, as in the header: `"..."`.'
    )


class NamedOperation(Operation):
    """One write of a transaction."""

    name: str | None = Field(
        None,
        alias="as",
        pattern="^[A-Za-z0-9_.-]+$",
        description="What the others call the new row, after an @.",
    )


class Transaction(BaseModel):
    """Writes that take effect together or not at all."""

    model_config = ConfigDict(extra="forbid")

    operations: Annotated[list[NamedOperation], Field(min_length=1, max_length=MOST_OPERATIONS)]
    dry_run: bool = Field(False, description="Only tell what would change.")
    wait: Literal["none", "sb", "hv"] = Field(
        "none",
        description="Answer when the Southbound has what was changed, or all hypervisors.",
    )
    timeout: float = Field(
        writing.DEFAULT_WAIT_SECONDS,
        ge=0,
        le=writing.MOST_WAIT_SECONDS,
        description="For how many seconds to wait at most.",
    )


class Batch(BaseModel):
    """Writes that have nothing to do with each other."""

    model_config = ConfigDict(extra="forbid")

    operations: Annotated[list[Operation], Field(min_length=1, max_length=MOST_OPERATIONS)]


class Result(BaseModel):
    """What came of one write."""

    status: int = Field(description="What a request of its own would have been answered with.")
    location: str | None = Field(None, description="Where a new row is.")
    body: Row | None = Field(None, description="The row.")


class ResultOfBatch(Result):
    """What came of one write that had nothing to do with the others."""

    problem: ProblemDetails | None = Field(None, description="Why it was not done.")


class RowChange(BaseModel):
    """What would change of a row."""

    table: str
    resource: str | None
    uuid: str
    before: Row | None = Field(description="Null for a new row.")
    after: Row | None = Field(description="Null for one that would be deleted.")


class TransactionResults(BaseModel):
    """What was done; or of a dry run, what would be."""

    results: list[Result] = Field([], description="One for each operation.")
    caught_up: bool | None = Field(None, description="Whether `wait` saw it arrive in time.")
    changes: list[RowChange] = Field([], description="What a dry run would change.")


class BatchResults(BaseModel):
    """What came of each operation."""

    results: list[ResultOfBatch]


router = APIRouter(prefix=PREFIX, tags=["many writes"])


@router.post(
    "/transactions",
    summary="Do many writes, all or nothing",
    response_model=TransactionResults,
    responses={202: {"model": TransactionResults, "description": "Done, and not seen in time."}},
)
async def transactions(request: Request, body: Transaction) -> Response:
    """Create, change and delete rows of any resources in one transaction of the database."""
    call = await begin(request)

    async def work(_: bytes, key: str | None) -> Answer:
        wanted: list[Write] = []
        locations: list[Location] = []
        for number, operation in enumerate(body.operations):
            with of_operation(number):
                location = _locate(call, operation)
                locations.append(location)
                wanted.append(_write(call, operation, location, key, number, operation.name))
        if body.dry_run:
            return Answer(200, {}, encode({"changes": await _rehearse(call, wanted)}))
        if body.wait != "none":
            call.platform.barrier.check()
        written = await execute(call, wanted, alone=True)
        return await _told(call, body, locations, written)

    return await writing.once(call, work, await request.body())


def _locate(call: Call, operation: Operation) -> Location:
    """What an operation is about. Raises Problem."""
    location = locate(operation.path, call.platform.replicas)
    try:
        check_location(call, location, changes=True)
    except NotAllowed as error:
        error.operation = operation.method, operation.path
        raise
    reading.rows_of(call.platform, location)
    return location


def _write(
    call: Call,
    operation: Operation,
    location: Location,
    key: str | None,
    number: int,
    name: str | None = None,
) -> Write:
    """The write that an operation asks for. Raises what `problem.of` knows."""
    uuid = None if key is None else uuid_for(call.principal.id, key, number)
    fields = {} if operation.body is None else operation.body.root
    return writing.write_of(operation.method, location, fields, operation.if_match, uuid, name)


async def _told(
    call: Call, body: Transaction, locations: Sequence[Location], written: Sequence[Written]
) -> Answer:
    answers = [
        writing.told(call, location, each)
        for location, each in zip(locations, written, strict=True)
    ]
    members: dict[str, Any] = {"results": [_result(answer) for answer in answers]}
    if body.wait == "none":
        return Answer(200, {}, encode(members))
    with call.platform.spans.step("wait"):
        caught_up = await call.platform.barrier.seen(body.wait, body.timeout)
    return Answer(200 if caught_up else 202, {}, encode({**members, "caught_up": caught_up}))


def _result(answer: Answer) -> dict[str, Any]:
    """An answer as part of another one."""
    result: dict[str, Any] = {"status": answer.status}
    if "Location" in answer.headers:
        result["location"] = answer.headers["Location"]
    if answer.body:
        result["body"] = orjson.Fragment(answer.body)
    return result


async def _rehearse(call: Call, wanted: Sequence[Write]) -> list[dict[str, Any]]:
    """What `wanted` would change, as far as who asks sees it. Raises what `problem.of` knows."""
    draft, _ = draft_of(call, wanted, is_bulk=True)
    quotas.check(quotas.limited_by(await quotas_of(call, draft), draft), draft, {})
    changes = rehearse(call.platform.nb, draft)
    return [_change(call, change) for change in changes if _sees(call, change)]


def _sees(call: Call, change: Change) -> bool:
    # What is new is their own; the rest is what it was, since nothing was done.
    rows = call.platform.nb.rows[change.table.name]
    return change.old is None or call.view.sees(rows, change.row)


def _change(call: Call, change: Change) -> dict[str, Any]:
    rows = call.platform.nb.rows[change.table.name]
    resource = BY_TABLE.get((call.platform.nb.name, change.table.name))
    names = None
    if change.old is not None and change.new is not None:
        columns = change.table.column_list
        names = [columns[place].name for place in change.columns if place != VERSION]
    return {
        "table": change.table.name,
        "resource": None if resource is None else resource.name,
        "uuid": change.row.uuid,
        "before": None if change.old is None else rows.object(change.old, names),
        "after": None if change.new is None else rows.object(change.new, names),
    }


@router.post("/batch", summary="Do many writes, each for itself", response_model=BatchResults)
async def batch(request: Request, body: Batch) -> Response:
    """Create, change and delete rows, each of which succeeds or fails by itself."""
    call = await begin(request)

    async def work(_: bytes, key: str | None) -> Answer:
        results = await asyncio.gather(
            *(
                _one(call, operation, key, number)
                for number, operation in enumerate(body.operations)
            )
        )
        return Answer(200, {}, encode({"results": results}))

    return await writing.once(call, work, await request.body())


async def _one(call: Call, operation: Operation, key: str | None, number: int) -> dict[str, Any]:
    """The result of one operation of a batch."""
    try:
        location = _locate(call, operation)
        wanted = _write(call, operation, location, key, number)
        (written,) = await execute(call, [wanted])
        return _result(writing.told(call, location, written))
    except problem.KNOWN as error:
        if isinstance(error, NotAllowed):
            await attempts.tell(call.request, error, operation.method, operation.path)
        known = problem.of(error)
        assert known is not None
        return {"status": known.status, "problem": known.to_json()}
