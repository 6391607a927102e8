"""Users, for administrators: `/users`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from ovncp.api.administration import Body, RoleName, Shown, ShownRole, Visit, visiting
from ovncp.api.location import PREFIX
from ovncp.api.login import ListOfApiKeys
from ovncp.auth.passwords import LONGEST, SHORTEST
from ovncp.auth.principal import Role

router = APIRouter(prefix=f"{PREFIX}/users", tags=["users"])

Reading = Annotated[Visit, Depends(visiting("users"))]
Changing = Annotated[Visit, Depends(visiting("users", changes=True))]


class User(Shown):
    """A user."""

    id: str
    name: str
    role: ShownRole | None = Field(description="Over everything; null for none.")
    is_active: bool
    issuer: str | None = Field(
        description="The OpenID Connect provider who says who it is; null if a password here does."
    )
    created: datetime
    changed: datetime


class ListOfUsers(Shown):
    """Users."""

    items: list[User]


class NewUser(Body):
    """A new user."""

    name: str = Field(min_length=1, max_length=128)
    role: RoleName | None = Field(None, description="Over everything; none for tenants' members.")
    password: str | None = Field(None, min_length=SHORTEST, max_length=LONGEST)


class ChangeOfUser(Body):
    """What is to be another; what is left out stays."""

    name: str = Field("", min_length=1, max_length=128)
    role: RoleName | None = None
    password: str | None = Field(None, min_length=SHORTEST, max_length=LONGEST)
    is_active: bool = True


@router.get("", summary="List users")
async def list_users(visit: Reading) -> ListOfUsers:
    """Everybody, by name."""
    users = await visit.accounts.users.all()
    return ListOfUsers(items=list(map(User.model_validate, users)))


@router.post("", summary="Make a user", status_code=201)
async def create_user(new: NewUser, visit: Changing) -> User:
    """A user without a password cannot log in by one."""
    async with visit.change("create", "users", new.name) as change:
        role = None if new.role is None else Role.named(new.role)
        user = await visit.accounts.users.create(new.name, role, new.password)
        change.target, change.after = user.id, user
    return User.model_validate(user)


@router.get("/{user}", summary="Show a user")
async def show_user(user: str, visit: Reading) -> User:
    """One user, by id or name."""
    return User.model_validate(await visit.accounts.users.get(user))


@router.patch("/{user}", summary="Change a user")
async def change_user(user: str, wanted: ChangeOfUser, visit: Changing) -> User:
    """One who gets another password, or is not active any more, is logged out everywhere."""
    values = wanted.model_dump(exclude_unset=True)
    if values.get("role") is not None:
        values["role"] = Role.named(values["role"])
    async with visit.change("change", "users", user) as change:
        change.before, change.after = await visit.accounts.users.change(user, values)
        change.target = change.after.id
    await visit.accounts.changed()
    return User.model_validate(change.after)


@router.delete("/{user}", summary="Remove a user", status_code=204)
async def delete_user(user: str, visit: Changing) -> Response:
    """Remove a user, with their keys and logins."""
    async with visit.change("delete", "users", user) as change:
        change.before = await visit.accounts.users.delete(user)
        change.target = change.before.id
    await visit.accounts.changed()
    return Response(status_code=204)


@router.get("/{user}/keys", summary="List a user's API keys")
async def list_keys_of_user(user: str, visit: Reading) -> ListOfApiKeys:
    """The keys, without their tokens."""
    return ListOfApiKeys.of(await visit.accounts.credentials.keys(user))


@router.delete("/{user}/keys/{key}", summary="End a user's API key", status_code=204)
async def delete_key_of_user(user: str, key: str, visit: Changing) -> Response:
    """Have a key be good no more."""
    async with visit.change("delete", "keys", key) as change:
        keys = await visit.accounts.credentials.keys(user)
        change.before = next((each for each in keys if each.id == key), None)
        await visit.accounts.credentials.delete_key(key if change.before else "")
    await visit.accounts.changed()
    return Response(status_code=204)
