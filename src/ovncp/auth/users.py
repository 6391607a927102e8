"""Users: their names, passwords, and roles over everything."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ovncp.auth.database import Database
from ovncp.auth.errors import BadValue, Conflict, NoSuch, NotAllowed, Taken
from ovncp.auth.names import now, role_of, user_name
from ovncp.auth.passwords import Passwords, WeakPassword, new_password
from ovncp.auth.principal import Role
from ovncp.auth.schema import LOGIN, USER

FIRST_NAME = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """A user, without the password."""

    id: str
    name: str
    role: Role | None
    is_active: bool
    issuer: str | None
    """Who checks who it is: an OpenID Connect issuer, or None for the password here."""
    created: datetime
    changed: datetime


def _user(row: Row[Any]) -> User:
    return User(
        row.id, row.name, role_of(row.role), row.is_active, row.issuer, row.created, row.changed
    )


class Users:
    """The users in a database."""

    def __init__(self, database: Database, passwords: Passwords):
        self._database = database
        self._passwords = passwords

    async def create_first(self) -> str | None:
        """If there are no users, make an administrator; the password then, to be shown once."""
        password = new_password()
        kept = await self._passwords.hash(password)

        async def use(connection: AsyncConnection) -> bool:
            if await connection.scalar(select(func.count()).select_from(USER)):
                return False
            await connection.execute(insert(USER).values(_new(FIRST_NAME, Role.ADMIN, kept)))
            return True

        try:
            return password if await self._database.write(use) else None
        except Conflict:
            return None  # Another node was faster.

    async def create(self, name: str, role: Role | None, password: str | None) -> User:
        """A new user, who cannot log in by password if there is none.  Raises Taken, BadValue."""
        values = _new(user_name(name), role, await self._kept(password))
        try:
            await self._database.write(lambda c: c.execute(insert(USER).values(values)))
        except Conflict as error:
            raise Taken(f"there is a user {name} already") from error
        return await self.get(values["id"])

    async def _kept(self, password: str | None) -> str | None:
        try:
            return None if password is None else await self._passwords.hash(password)
        except WeakPassword as error:
            raise BadValue("password", str(error)) from error

    async def get(self, id_or_name: str) -> User:
        """One user.  Raises NoSuch."""
        return await self._database.read(lambda c: find(c, id_or_name))

    async def all(self) -> list[User]:
        """Everybody, by name."""
        query = select(USER).order_by(USER.c.name)
        rows = await self._database.read(lambda c: c.execute(query))
        return [_user(row) for row in rows]

    async def change(self, id_or_name: str, values: dict[str, Any]) -> tuple[User, User]:
        """Give a user another `name`, `role`, `is_active` or `password`; before and after.

        Without a password, or inactive, they are logged out everywhere.

        Raises NoSuch, Taken, BadValue, NotAllowed.
        """
        new = dict(values)
        if "name" in new:
            user_name(new["name"])
        if "role" in new:
            new["role"] = None if new["role"] is None else str(new["role"])
        if "password" in new:
            new["password"] = await self._kept(new["password"])

        async def use(connection: AsyncConnection) -> tuple[User, User]:
            user = await find(connection, id_or_name)
            if new.get("role", "admin") != "admin" or not new.get("is_active", True):
                await _leave_somebody_in_charge(connection, user)
            of_user = USER.c.id == user.id
            await connection.execute(update(USER).where(of_user).values(**new, changed=now()))
            if "password" in new or not new.get("is_active", True):
                await connection.execute(delete(LOGIN).where(LOGIN.c.user_id == user.id))
            return user, await find(connection, user.id)

        try:
            return await self._database.write(use)
        except Conflict as error:
            raise Taken(f"there is a user {new.get('name')} already") from error

    async def delete(self, id_or_name: str) -> User:
        """Remove a user, with their keys and logins; who it was.  Raises NoSuch, NotAllowed."""

        async def use(connection: AsyncConnection) -> User:
            user = await find(connection, id_or_name)
            await _leave_somebody_in_charge(connection, user)
            await connection.execute(delete(USER).where(USER.c.id == user.id))
            return user

        return await self._database.write(use)

    async def check(self, name: str, password: str) -> User | None:
        """The active user of this name, if that is the password."""
        query = select(USER).where(USER.c.name == name, USER.c.is_active)
        row = (await self._database.read(lambda c: c.execute(query))).first()
        is_right = await self._passwords.is_right(row.password if row else None, password)
        return _user(row) if row and is_right else None

    async def sign_up(self, issuer: str, subject: str, name: str, role: Role | None) -> User:
        """The user whom an issuer knows by `subject`, made or brought up to date.

        Raises BadValue, Taken if another user has the name.
        """
        known = await self._database.read(lambda c: _signed_up(c, issuer, subject))
        if known is not None and known.role == role:
            return known

        async def use(connection: AsyncConnection) -> User:
            known = await _signed_up(connection, issuer, subject)
            if known is None:
                values = _new(user_name(name), role, None) | {"issuer": issuer, "subject": subject}
                await connection.execute(insert(USER).values(values))
                return await find(connection, values["id"])
            changes = {"role": None if role is None else str(role), "changed": now()}
            await connection.execute(update(USER).where(USER.c.id == known.id).values(changes))
            return await find(connection, known.id)

        try:
            return await self._database.write(use)
        except Conflict as error:
            # It was this one who came twice at once, or another one who has the name.
            known = await self._database.read(lambda c: _signed_up(c, issuer, subject))
            if known is None:
                raise Taken(f"there is another user {name}") from error
            return known


async def _signed_up(connection: AsyncConnection, issuer: str, subject: str) -> User | None:
    query = select(USER).where(USER.c.issuer == issuer, USER.c.subject == subject)
    row = (await connection.execute(query)).first()
    return None if row is None else _user(row)


def _new(name: str, role: Role | None, password: str | None) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "role": None if role is None else str(role),
        "password": password,
        "is_active": True,
        "created": now(),
        "changed": now(),
    }


async def find(connection: AsyncConnection, id_or_name: str) -> User:
    """The user of an id, or a name.  Raises NoSuch."""
    query = select(USER).where((USER.c.id == id_or_name) | (USER.c.name == id_or_name))
    rows = (await connection.execute(query)).all()
    # Somebody may be called by the id of another.
    for row in sorted(rows, key=lambda row: row.id != id_or_name):
        return _user(row)
    raise NoSuch(f"there is no user {id_or_name}")


async def _leave_somebody_in_charge(connection: AsyncConnection, leaving: User) -> None:
    """See that there is an administrator besides this one.  Raises NotAllowed."""
    admins = select(USER.c.id).where(USER.c.role == "admin", USER.c.is_active).with_for_update()
    left = set((await connection.execute(admins)).scalars())
    if left == {leaving.id}:
        raise NotAllowed(f"{leaving.name} is the last administrator")
