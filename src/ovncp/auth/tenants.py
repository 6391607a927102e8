"""Tenants, who belongs to them, and how much they may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ovncp.auth.database import Database
from ovncp.auth.errors import BadValue, Conflict, NoSuch, Taken
from ovncp.auth.names import now, tenant_id
from ovncp.auth.principal import Role
from ovncp.auth.schema import MEMBER, QUOTA, TENANT, USER
from ovncp.auth.users import find as find_user

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant: rows of the Northbound are theirs that name the id."""

    id: str
    description: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """Who belongs to a tenant, and in what role."""

    tenant: str
    user_id: str
    user: str
    role: Role


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(row.id, row.description, row.created)


class Tenants:
    """The tenants in a database."""

    def __init__(self, database: Database):
        self._database = database

    async def create(self, id: str, description: str) -> Tenant:
        """A new tenant.  Raises Taken, BadValue."""
        values = {"id": tenant_id(id), "description": description, "created": now()}
        try:
            await self._database.write(lambda c: c.execute(insert(TENANT).values(values)))
        except Conflict as error:
            raise Taken(f"there is a tenant {id} already") from error
        return await self.get(id)

    async def get(self, id: str) -> Tenant:
        """One tenant.  Raises NoSuch."""
        return await self._database.read(lambda c: find(c, id))

    async def all(self) -> list[Tenant]:
        """All of them, by id."""
        query = select(TENANT).order_by(TENANT.c.id)
        rows = await self._database.read(lambda c: c.execute(query))
        return [_tenant(row) for row in rows]

    async def describe(self, id: str, description: str) -> tuple[Tenant, Tenant]:
        """Give a tenant another description; before and after.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> tuple[Tenant, Tenant]:
            before = await find(connection, id)
            change = update(TENANT).where(TENANT.c.id == id).values(description=description)
            await connection.execute(change)
            return before, await find(connection, id)

        return await self._database.write(use)

    async def delete(self, id: str) -> Tenant:
        """Remove a tenant, with its members, quotas and keys; what it was.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> Tenant:
            tenant = await find(connection, id)
            await connection.execute(delete(TENANT).where(TENANT.c.id == id))
            return tenant

        return await self._database.write(use)

    # Members

    async def members(self, id: str) -> list[Member]:
        """Who belongs to a tenant, by name.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> list[Member]:
            await find(connection, id)
            query = _MEMBERS.where(MEMBER.c.tenant_id == id).order_by(USER.c.name)
            return [_member(row) for row in await connection.execute(query)]

        return await self._database.read(use)

    async def put_member(self, id: str, user: str, role: Role) -> tuple[Member | None, Member]:
        """Have a user be in a tenant in a role; before and after.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> tuple[Member | None, Member]:
            await _lock(connection, id)
            found = await find_user(connection, user)
            await _lock_user(connection, found.id)
            before = await _find_member(connection, id, found.id)
            await connection.execute(delete(MEMBER).where(*_is(id, found.id)))
            values = {"tenant_id": id, "user_id": found.id, "role": str(role)}
            await connection.execute(insert(MEMBER).values(values))
            return before, Member(id, found.id, found.name, role)

        return await self._database.write(use)

    async def remove_member(self, id: str, user: str) -> Member:
        """Have a user belong to a tenant no more; who it was.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> Member:
            found = await find_user(connection, user)
            before = await _find_member(connection, id, found.id)
            if before is None:
                raise NoSuch(f"{user} does not belong to tenant {id}")
            await connection.execute(delete(MEMBER).where(*_is(id, found.id)))
            return before

        return await self._database.write(use)

    async def set_roles(self, user_id: str, roles: Mapping[str, Role]) -> None:
        """Have a user be in these tenants, as far as they exist, and in no others."""
        wanted = {id: str(role) for id, role in roles.items()}
        if await self._database.read(lambda c: _has_roles(c, user_id, wanted)):
            return

        async def use(connection: AsyncConnection) -> None:
            await _lock_user(connection, user_id)
            await connection.execute(delete(MEMBER).where(MEMBER.c.user_id == user_id))
            known = await _existing(connection, wanted)
            rows = [{"tenant_id": id, "user_id": user_id, "role": known[id]} for id in known]
            if rows:
                await connection.execute(insert(MEMBER), rows)

        await self._database.write(use)

    # Quotas

    async def quotas(self, id: str) -> dict[str, int]:
        """How many rows of a resource a tenant may have, by the resource; others are not limited.

        Raises NoSuch.
        """

        async def use(connection: AsyncConnection) -> dict[str, int]:
            await find(connection, id)
            return await _quotas(connection, id)

        return await self._database.read(use)

    async def set_quotas(
        self, id: str, quotas: Mapping[str, int]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Limit a tenant to these; before and after.  Raises NoSuch, BadValue."""
        for resource, most in quotas.items():
            if not 0 <= most <= _MOST:
                raise BadValue(resource, f"a number from 0 to {_MOST} is wanted")

        async def use(connection: AsyncConnection) -> tuple[dict[str, int], dict[str, int]]:
            await _lock(connection, id)
            before = await _quotas(connection, id)
            await connection.execute(delete(QUOTA).where(QUOTA.c.tenant_id == id))
            rows = [{"tenant_id": id, "resource": r, "most": most} for r, most in quotas.items()]
            if rows:
                await connection.execute(insert(QUOTA), rows)
            return before, await _quotas(connection, id)

        return await self._database.write(use)


_MEMBERS = select(MEMBER, USER.c.name).join(USER, USER.c.id == MEMBER.c.user_id)


def _member(row: Row[Any]) -> Member:
    return Member(row.tenant_id, row.user_id, row.name, Role.named(row.role))


def _is(tenant: str, user_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return MEMBER.c.tenant_id == tenant, MEMBER.c.user_id == user_id


async def find(connection: AsyncConnection, id: str) -> Tenant:
    """The tenant of an id.  Raises NoSuch."""
    row = (await connection.execute(select(TENANT).where(TENANT.c.id == id))).first()
    if row is None:
        raise NoSuch(f"there is no tenant {id}")
    return _tenant(row)


async def _lock(connection: AsyncConnection, id: str) -> None:
    """Have others who change what belongs to a tenant wait for this one.  Raises NoSuch."""
    query = select(TENANT.c.id).where(TENANT.c.id == id)
    await connection.execute(query.with_for_update(key_share=True))
    await find(connection, id)


async def _lock_user(connection: AsyncConnection, id: str) -> None:
    """The same of what a user belongs to; after a tenant is locked, if one is."""
    query = select(USER.c.id).where(USER.c.id == id)
    await connection.execute(query.with_for_update(key_share=True))


async def _existing(connection: AsyncConnection, roles: Mapping[str, str]) -> dict[str, str]:
    """Those of the roles whose tenants exist."""
    known = set((await connection.execute(select(TENANT.c.id))).scalars())
    return {id: role for id, role in roles.items() if id in known}


async def _has_roles(connection: AsyncConnection, user_id: str, roles: Mapping[str, str]) -> bool:
    query = select(MEMBER.c.tenant_id, MEMBER.c.role).where(MEMBER.c.user_id == user_id)
    found = {row.tenant_id: row.role for row in await connection.execute(query)}
    return found == await _existing(connection, roles)


async def _find_member(connection: AsyncConnection, id: str, user_id: str) -> Member | None:
    row = (await connection.execute(_MEMBERS.where(*_is(id, user_id)))).first()
    return _member(row) if row else None


async def _quotas(connection: AsyncConnection, id: str) -> dict[str, int]:
    query = select(QUOTA).where(QUOTA.c.tenant_id == id).order_by(QUOTA.c.resource)
    return {row.resource: row.most for row in await connection.execute(query)}
