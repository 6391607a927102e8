"""Tenants, their members, and what they may have: `/tenants`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field, RootModel
from starlette.responses import Response

from ovncp.api.administration import Body, RoleName, Shown, ShownRole, Visit, visiting
from ovncp.api.location import PREFIX
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


class Tenant(Shown):
    """A tenant."""

    id: str
    description: str
    created: datetime


class ListOfTenants(Shown):
    """Tenants."""

    items: list[Tenant]


class Member(Shown):
    """Who belongs to a tenant."""

    tenant: str
    user_id: str
    user: str
    role: ShownRole


class ListOfMembers(Shown):
    """Who belong to a tenant."""

    items: list[Member]


Quotas = RootModel[dict[str, Annotated[int, Field(ge=0, le=2**31 - 1)]]]


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
async def list_tenants(visit: Reading) -> ListOfTenants:
    """All of them, by id."""
    tenants = await visit.accounts.tenants.all()
    return ListOfTenants(items=list(map(Tenant.model_validate, tenants)))


@router.post("", summary="Make a tenant", status_code=201)
async def create_tenant(new: NewTenant, visit: Changing) -> Tenant:
    """A tenant has no members and no limits at first."""
    async with visit.change("create", "tenants", new.id) as change:
        change.after = await visit.accounts.tenants.create(new.id, new.description)
    return Tenant.model_validate(change.after)


@router.get("/{tenant}", summary="Show a tenant")
async def show_tenant(tenant: str, visit: ReadingMembers) -> Tenant:
    """One tenant."""
    return Tenant.model_validate(await visit.accounts.tenants.get(tenant))


@router.patch("/{tenant}", summary="Change a tenant")
async def change_tenant(tenant: str, wanted: ChangeOfTenant, visit: Changing) -> Tenant:
    """Describe a tenant otherwise."""
    async with visit.change("change", "tenants", tenant) as change:
        tenants = visit.accounts.tenants
        change.before, change.after = await tenants.describe(tenant, wanted.description)
    return Tenant.model_validate(change.after)


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
async def list_members(tenant: str, visit: ReadingMembers) -> ListOfMembers:
    """The members, by name."""
    members = await visit.accounts.tenants.members(tenant)
    return ListOfMembers(items=list(map(Member.model_validate, members)))


@router.put("/{tenant}/members/{user}", summary="Have somebody belong to a tenant")
async def put_member(tenant: str, user: str, wanted: Membership, visit: ChangingMembers) -> Member:
    """Give a user a role in a tenant, in the place of another one if they have it."""
    async with visit.change("change", "members", user) as change:
        role = Role.named(wanted.role)
        tenants = visit.accounts.tenants
        change.before, change.after = await tenants.put_member(tenant, user, role)
    await visit.accounts.changed()
    return Member.model_validate(change.after)


@router.delete("/{tenant}/members/{user}", summary="Have somebody leave a tenant", status_code=204)
async def remove_member(tenant: str, user: str, visit: ChangingMembers) -> Response:
    """Take a user's role in a tenant away."""
    async with visit.change("delete", "members", user) as change:
        change.before = await visit.accounts.tenants.remove_member(tenant, user)
    await visit.accounts.changed()
    return Response(status_code=204)


# Quotas


@router.get("/{tenant}/quotas", summary="Show what a tenant may have")
async def show_quotas(tenant: str, visit: ReadingQuotas) -> Quotas:
    """How many rows of each resource at most; what is not named is not limited."""
    return Quotas(await visit.accounts.tenants.quotas(tenant))


@router.put("/{tenant}/quotas", summary="Limit what a tenant may have")
async def set_quotas(tenant: str, quotas: Quotas, visit: ChangingQuotas) -> Quotas:
    """Replace the limits; those who have more already keep it."""
    async with visit.change("change", "quotas", tenant) as change:
        for name in quotas.root:
            if name not in BY_NAME or BY_NAME[name].is_read_only:
                raise Problem("invalid", f"{name!r} is no resource that a tenant could make")
        tenants = visit.accounts.tenants
        change.before, change.after = await tenants.set_quotas(tenant, quotas.root)
    await visit.accounts.changed()
    return quotas
