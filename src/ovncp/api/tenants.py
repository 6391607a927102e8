"""Tenants, their members, and what they may have: `/tenants`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from ovncp.api.administration import Body, Visit, shown, visiting
from ovncp.api.location import PREFIX
from ovncp.api.login import RoleName
from ovncp.api.problem import Problem
from ovncp.auth.principal import Role
from ovncp.ovn.resources import BY_NAME
from ovncp.ovn.tenancy import View

router = APIRouter(prefix=f"{PREFIX}/tenants", tags=["tenants"])

Reading = Annotated[Visit, Depends(visiting("tenants"))]
Changing = Annotated[Visit, Depends(visiting("tenants", changes=True))]
ReadingMembers = Annotated[Visit, Depends(visiting("members"))]
ChangingMembers = Annotated[Visit, Depends(visiting("members", changes=True))]
ReadingQuotas = Annotated[Visit, Depends(visiting("own-quotas"))]
ChangingQuotas = Annotated[Visit, Depends(visiting("quotas", changes=True))]


class NewTenant(Body):
    """A new tenant; rows of the Northbound name it by its id."""

    id: str = Field(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    description: str = Field("", max_length=1024)


class ChangeOfTenant(Body):
    """Another description."""

    description: str = Field(max_length=1024)


class Membership(Body):
    """What somebody is in a tenant."""

    role: RoleName


@router.get("", summary="List tenants")
async def list_tenants(visit: Reading) -> dict[str, Any]:
    """All of them, by id."""
    return {"items": [shown(tenant) for tenant in await visit.accounts.tenants.all()]}


@router.post("", summary="Make a tenant", status_code=201)
async def create_tenant(new: NewTenant, visit: Changing) -> dict[str, Any]:
    """A tenant has no members and no limits at first."""
    async with visit.change("create", "tenants", new.id) as change:
        change.after = await visit.accounts.tenants.create(new.id, new.description)
    found: dict[str, Any] = shown(change.after)
    return found


@router.get("/{tenant}", summary="Show a tenant")
async def show_tenant(tenant: str, visit: ReadingMembers) -> dict[str, Any]:
    """One tenant."""
    found: dict[str, Any] = shown(await visit.accounts.tenants.get(tenant))
    return found


@router.patch("/{tenant}", summary="Change a tenant")
async def change_tenant(tenant: str, wanted: ChangeOfTenant, visit: Changing) -> dict[str, Any]:
    """Describe a tenant otherwise."""
    async with visit.change("change", "tenants", tenant) as change:
        tenants = visit.accounts.tenants
        change.before, change.after = await tenants.describe(tenant, wanted.description)
    found: dict[str, Any] = shown(change.after)
    return found


@router.delete("/{tenant}", summary="Remove a tenant", status_code=204)
async def delete_tenant(tenant: str, visit: Changing) -> Response:
    """Remove a tenant that has nothing any more, with its memberships, limits and keys."""
    async with visit.change("delete", "tenants", tenant) as change:
        _check_has_nothing(visit, tenant)
        change.before = await visit.accounts.tenants.delete(tenant)
    await visit.accounts.changed()
    return Response(status_code=204)


def _check_has_nothing(visit: Visit, tenant: str) -> None:
    platform = visit.platform
    view = View(platform.nb, platform.sb, tenant)
    for name, rows in platform.nb.rows.items():
        if next(iter(view.all(rows) or ()), None) is not None:
            raise Problem("in-use", f"the tenant has rows of {name}")


# Members


@router.get("/{tenant}/members", summary="List who belongs to a tenant")
async def list_members(tenant: str, visit: ReadingMembers) -> dict[str, Any]:
    """The members, by name."""
    return {"items": [shown(each) for each in await visit.accounts.tenants.members(tenant)]}


@router.put("/{tenant}/members/{user}", summary="Have somebody belong to a tenant")
async def put_member(
    tenant: str, user: str, wanted: Membership, visit: ChangingMembers
) -> dict[str, Any]:
    """Give a user a role in a tenant, in the place of another one if they have it."""
    async with visit.change("change", "members", user) as change:
        role = Role.named(wanted.role)
        tenants = visit.accounts.tenants
        change.before, change.after = await tenants.put_member(tenant, user, role)
    await visit.accounts.changed()
    found: dict[str, Any] = shown(change.after)
    return found


@router.delete("/{tenant}/members/{user}", summary="Have somebody leave a tenant", status_code=204)
async def remove_member(tenant: str, user: str, visit: ChangingMembers) -> Response:
    """Take a user's role in a tenant away."""
    async with visit.change("delete", "members", user) as change:
        change.before = await visit.accounts.tenants.remove_member(tenant, user)
    await visit.accounts.changed()
    return Response(status_code=204)


# Quotas


@router.get("/{tenant}/quotas", summary="Show what a tenant may have")
async def show_quotas(tenant: str, visit: ReadingQuotas) -> dict[str, int]:
    """How many rows of each resource at most; what is not named is not limited."""
    return await visit.accounts.tenants.quotas(tenant)


@router.put("/{tenant}/quotas", summary="Limit what a tenant may have")
async def set_quotas(
    tenant: str, quotas: dict[str, Annotated[int, Field(ge=0, le=2**31 - 1)]], visit: ChangingQuotas
) -> dict[str, int]:
    """Replace the limits; those who have more already keep it."""
    async with visit.change("change", "quotas", tenant) as change:
        for name in quotas:
            if name not in BY_NAME or BY_NAME[name].is_read_only:
                raise Problem("invalid", f"{name!r} is no resource that a tenant could make")
        tenants = visit.accounts.tenants
        change.before, change.after = await tenants.set_quotas(tenant, quotas)
    await visit.accounts.changed()
    return dict(quotas)
