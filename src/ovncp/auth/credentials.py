"""What somebody shows to say who they are: logins, which end, and API keys, which are limited."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ovncp.auth.database import Database
from ovncp.auth.decision import is_scope
from ovncp.auth.errors import BadValue, DatabaseUnavailable, NoSuch, OutcomeUnknown
from ovncp.auth.names import now, role_of
from ovncp.auth.principal import Identity, Role
from ovncp.auth.schema import API_KEY, LOGIN, MEMBER, USER
from ovncp.auth.tenants import find as find_tenant
from ovncp.auth.tokens import KEY, SESSION, hash_of, new_token
from ovncp.auth.users import find as find_user

LONGEST_NAME = 128
LONGEST_ADDRESS = 64
_USED_EVERY = timedelta(minutes=1)
"""How exactly it is known when a key was used last."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its token; None is no limit."""

    id: str
    user_id: str
    name: str
    role: Role | None
    tenant: str | None
    scopes: list[str] | None
    created: datetime
    expires: datetime
    used: datetime | None


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.id,
        row.user_id,
        row.name,
        role_of(row.role),
        row.tenant_id,
        row.scopes,
        row.created,
        row.expires,
        row.used,
    )


class Credentials:
    """The logins and keys in a database."""

    def __init__(self, database: Database, session_s: float):
        self._database = database
        self._session = timedelta(seconds=session_s)

    # Logins

    async def log_in(self, user_id: str, address: str) -> tuple[str, datetime]:
        """A token for a user who has shown who they are, and when it is over."""
        token, expires = new_token(SESSION), now() + self._session
        values = {
            "hash": token.hash,
            "user_id": user_id,
            "address": address[:LONGEST_ADDRESS],
            "created": now(),
            "expires": expires,
        }
        await self._database.write(lambda c: c.execute(insert(LOGIN).values(values)))
        return token.text, expires

    async def log_out(self, token: str) -> None:
        """End the login of a token, if there is one."""
        query = delete(LOGIN).where(LOGIN.c.hash == hash_of(token))
        await self._database.write(lambda c: c.execute(query))

    # Keys

    async def create_key(
        self,
        user: str,
        name: str,
        expires: datetime,
        role: Role | None = None,
        tenant: str | None = None,
        scopes: list[str] | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of a user's, and its token, which is not kept.  Raises NoSuch, BadValue."""
        _check_key(name, expires, scopes)
        token, id = new_token(KEY), str(uuid.uuid4())

        async def use(connection: AsyncConnection) -> ApiKey:
            if tenant is not None:
                await find_tenant(connection, tenant)
            values = {
                "id": id,
                "hash": token.hash,
                "user_id": (await find_user(connection, user)).id,
                "name": name,
                "role": None if role is None else str(role),
                "tenant_id": tenant,
                "scopes": scopes,
                "created": now(),
                "expires": expires,
            }
            await connection.execute(insert(API_KEY).values(values))
            return await _find_key(connection, id)

        return await self._database.write(use), token.text

    async def keys(self, user: str) -> list[ApiKey]:
        """A user's keys, the oldest first.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> list[ApiKey]:
            user_id = (await find_user(connection, user)).id
            query = select(API_KEY).where(API_KEY.c.user_id == user_id)
            rows = await connection.execute(query.order_by(API_KEY.c.created, API_KEY.c.id))
            return [_api_key(row) for row in rows]

        return await self._database.read(use)

    async def get_key(self, id: str) -> ApiKey:
        """One key.  Raises NoSuch."""
        return await self._database.read(lambda c: _find_key(c, id))

    async def delete_key(self, id: str) -> ApiKey:
        """End a key; what it was.  Raises NoSuch."""

        async def use(connection: AsyncConnection) -> ApiKey:
            key = await _find_key(connection, id)
            await connection.execute(delete(API_KEY).where(API_KEY.c.id == id))
            return key

        return await self._database.write(use)

    # Who it is

    async def identity_of(self, token: str) -> Identity | None:
        """Whose token it is, if it is good: a login's, or a key's."""
        if token.startswith(SESSION):
            return await self._database.read(lambda c: _of_login(c, hash_of(token)))
        if token.startswith(KEY):
            return await self._of_key(hash_of(token))
        return None

    async def identity_of_user(self, user_id: str) -> Identity | None:
        """What an active user is."""
        return await self._database.read(lambda c: _identity(c, USER.c.id == user_id))

    async def _of_key(self, hash: str) -> Identity | None:
        async def use(connection: AsyncConnection) -> tuple[Identity | None, bool]:
            query = select(API_KEY).where(API_KEY.c.hash == hash, API_KEY.c.expires > now())
            row = (await connection.execute(query)).first()
            if row is None:
                return None, False
            user = await _identity(connection, USER.c.id == row.user_id)
            if user is None:
                return None, False
            scopes = None if row.scopes is None else frozenset(row.scopes)
            is_due = row.used is None or row.used < now() - _USED_EVERY
            return user.limited(role_of(row.role), row.tenant_id, scopes), is_due

        identity, is_due = await self._database.read(use)
        if is_due:
            note = update(API_KEY).where(API_KEY.c.hash == hash).values(used=now())
            # Nobody is turned away because that is not noted.
            with contextlib.suppress(DatabaseUnavailable, OutcomeUnknown):
                await self._database.write(lambda c: c.execute(note))
        return identity

    async def sweep(self) -> int:
        """Remove what is over; how many."""

        async def use(connection: AsyncConnection) -> int:
            n = 0
            for table in (LOGIN, API_KEY):
                n += (
                    await connection.execute(delete(table).where(table.c.expires < now()))
                ).rowcount
            return n

        return await self._database.write(use)


def _check_key(name: str, expires: datetime, scopes: list[str] | None) -> None:
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadValue("name", f"from 1 to {LONGEST_NAME} characters are wanted")
    if expires <= now():
        raise BadValue("expires", "a time to come is wanted")
    for scope in scopes or ():
        if not is_scope(scope):
            raise BadValue("scopes", f"{scope!r} is not like switches:read, switches:* or *:read")


async def _find_key(connection: AsyncConnection, id: str) -> ApiKey:
    row = (await connection.execute(select(API_KEY).where(API_KEY.c.id == id))).first()
    if row is None:
        raise NoSuch(f"there is no key {id}")
    return _api_key(row)


async def _of_login(connection: AsyncConnection, hash: str) -> Identity | None:
    query = select(LOGIN.c.user_id).where(LOGIN.c.hash == hash, LOGIN.c.expires > now())
    user_id = await connection.scalar(query)
    return None if user_id is None else await _identity(connection, USER.c.id == user_id)


async def _identity(connection: AsyncConnection, which: Any) -> Identity | None:
    user = (await connection.execute(select(USER).where(which, USER.c.is_active))).first()
    if user is None:
        return None
    query = select(MEMBER).where(MEMBER.c.user_id == user.id)
    tenants = {row.tenant_id: Role.named(row.role) for row in await connection.execute(query)}
    return Identity(user.id, user.name, role_of(user.role), tenants)
