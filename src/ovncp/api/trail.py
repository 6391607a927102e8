"""The audit trail, for administrators of everything or of a tenant: `/audit`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from ovncp.api.administration import Body, Shown, Time, Visit, visiting
from ovncp.api.location import PREFIX
from ovncp.auth.wanted import Wanted

router = APIRouter(prefix=PREFIX, tags=["audit"])

_MOST = 1000


class Asked(Body):
    """Which records; all of them if nothing is said."""

    tenant: str | None = None
    principal: str | None = Field(None, description="The name of who did it.")
    resource: str | None = None
    target: str | None = Field(None, description="The uuid or name of what was changed.")
    request_id: str | None = None
    since: Time | None = None
    until: Time | None = None
    before: int | None = Field(
        None, ge=1, le=2**63 - 1, description="Those older than the record of this id."
    )
    limit: int = Field(100, ge=1, le=_MOST)


class AuditRecord(Shown):
    """What was changed, or tried, by whom."""

    id: int
    at: datetime
    principal_id: str
    principal: str = Field(description="The name of who did it.")
    tenant: str | None = Field(description="Whose it is; null for nobody's.")
    request_id: str
    address: str
    action: str = Field(examples=["create", "change", "delete"])
    resource: str
    target: str = Field(description="The uuid or name of what was changed.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    result: str = Field(
        description="`done`, `unknown`, or the kind of the problem, such as `forbidden`."
    )


class PageOfAuditRecords(Shown):
    """Records, the latest first."""

    items: list[AuditRecord]
    next: int | None = Field(description="The `before` of the following page.")


@router.get("/audit", summary="Read the audit trail")
async def read_trail(
    asked: Annotated[Asked, Query()], visit: Annotated[Visit, Depends(visiting("audit"))]
) -> PageOfAuditRecords:
    """What was changed, the latest first; `next` is `before` of the following page."""
    given = asked.model_dump(exclude={"limit"})
    if visit.principal.tenant is not None:
        given["tenant"] = visit.principal.tenant
    records = await visit.accounts.trail.read(Wanted(**given), asked.limit)
    following = records[-1]["id"] if len(records) == asked.limit else None
    items = list(map(AuditRecord.model_validate, records))
    return PageOfAuditRecords(items=items, next=following)
