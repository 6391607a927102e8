"""One request about accounts or nodes, as the routes for those need to know it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from starlette.requests import Request

from ovncp.api import access, audit, problem
from ovncp.api.audit import Record
from ovncp.api.identification import address_of
from ovncp.api.platform import Platform
from ovncp.api.problem import Problem
from ovncp.auth.principal import Principal

if TYPE_CHECKING:
    from ovncp.auth.accounts import Accounts


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time within the years 1 to 9999 is wanted") from error


Time = Annotated[datetime, AfterValidator(_in_utc)]
"""A time, in UTC; one without a zone is that of this machine."""


class Body(BaseModel):
    """What a client sends: nothing but what is described."""

    model_config = ConfigDict(extra="forbid")


class Shown(BaseModel):
    """What a client is told of something that has these attributes."""

    model_config = ConfigDict(from_attributes=True)


RoleName = Literal["admin", "operator", "viewer"]
ShownRole = Annotated[RoleName, BeforeValidator(str)]


@dataclass
class Change:
    """One change for the audit trail: `before` and `after` become known while it is made."""

    target: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class Visit:
    """Who asks what for."""

    platform: Platform
    principal: Principal
    request: Request

    @property
    def accounts(self) -> Accounts:
        """The accounts of this node. Raises Problem if it has none."""
        if self.platform.accounts is None:
            raise Problem("not-found", "this node has no accounts: everybody may do everything")
        return self.platform.accounts

    @asynccontextmanager
    async def change(self, action: str, resource: str, target: str) -> AsyncIterator[Change]:
        """A block that makes a change, which is told to the audit trail whatever comes of it."""
        self.platform.audit.check()
        change, result = Change(target), audit.DONE
        try:
            yield change
        except Exception as error:
            known = problem.of(error)
            result = "error" if known is None else known.kind
            raise
        finally:
            record = Record(
                self.principal,
                self.request.scope["request_id"],
                address_of(self.request),
                action,
                resource,
                change.target,
                audit.shown(change.before) if change.before is not None else None,
                audit.shown(change.after)
                if change.after is not None and result == audit.DONE
                else None,
                result,
                self.request.path_params.get("tenant"),
            )
            await self.platform.audit.record([record])


def visiting(thing: str, *, changes: bool = False) -> Callable[[Request], Awaitable[Visit]]:
    """The dependency of a route about a thing as `ovncp.auth.decision` names them.

    If the path has a tenant, it is about that one's.
    """

    async def visit(request: Request) -> Visit:
        principal = await access.principal_of(request)
        whose = request.path_params.get("tenant", principal.tenant)
        access.allow_in(whose, principal, thing, changes=changes)
        return Visit(request.app.state.platform, principal, request)

    return visit
