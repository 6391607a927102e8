"""Logging in and out, and what somebody may see and change of themselves: `/login`, `/me`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Self

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import JSONResponse, RedirectResponse, Response

from ovncp.api import access, audit
from ovncp.api.access import Access
from ovncp.api.administration import Body, RoleName, Shown, ShownRole, Time, Visit
from ovncp.api.identification import (
    COOKIE,
    AccountAccess,
    address_of,
    check_own_page,
    tenant_of,
)
from ovncp.api.location import PREFIX
from ovncp.api.platform import Platform
from ovncp.api.problem import NotAllowed, Problem
from ovncp.auth.attempt import Attempt
from ovncp.auth.passwords import LONGEST, SHORTEST
from ovncp.auth.principal import Identity, NotThere, Role

if TYPE_CHECKING:
    from ovncp.auth import credentials
    from ovncp.auth.accounts import Accounts
    from ovncp.auth.oidc import Provider
    from ovncp.auth.users import User

router = APIRouter(prefix=PREFIX, tags=["login"])

_ATTEMPT_COOKIE = "ovncp_login"
_ATTEMPT_S = 600
_HOME = "/"


@dataclass(frozen=True)
class OwnVisit(Visit):
    """Somebody who asks about themselves."""

    identity: Identity


def visiting_oneself(*, changes: bool = False) -> Callable[[Request], Awaitable[OwnVisit]]:
    """The dependency of a route about who asks, who need not be anything anywhere."""

    async def visit(request: Request) -> OwnVisit:
        platform: Platform = request.app.state.platform
        known: Access = platform.access
        identity = await known.identity(request)
        principal = request.scope["principal"] = identity.oneself()
        access.allow(principal, "me", changes=changes)
        return OwnVisit(platform, principal, request, identity)

    return visit


Mine = Annotated[OwnVisit, Depends(visiting_oneself())]
MineToChange = Annotated[OwnVisit, Depends(visiting_oneself(changes=True))]


class Acting(Shown):
    """Who somebody is in a request."""

    role: ShownRole
    tenant: str | None = Field(description="Null for everything.")


class Me(Shown):
    """Who asks, and what they may do."""

    id: str
    name: str
    role: ShownRole | None = Field(description="Over everything; null for none.")
    tenants: dict[str, ShownRole] = Field(description="The role in each tenant.")
    scopes: list[str] | None = Field(description="What a key is good for; null for everything.")
    acting: Acting | None = Field(
        description="In a request like this one; null where they are nobody."
    )


class ApiKey(Shown):
    """An API key, without its token."""

    id: str
    user_id: str
    name: str
    role: ShownRole | None
    tenant: str | None
    scopes: list[str] | None
    created: datetime
    expires: datetime
    used: datetime | None = Field(description="When it was used last, within a minute.")


class ListOfApiKeys(Shown):
    """API keys."""

    items: list[ApiKey]

    @classmethod
    def of(cls, keys: Sequence[credentials.ApiKey]) -> Self:
        """These."""
        return cls(items=list(map(ApiKey.model_validate, keys)))


class MadeApiKey(ApiKey):
    """A new API key."""

    token: str = Field(description="Shown this once.")


class Token(Shown):
    """What a login is shown by."""

    token: str
    expires: datetime


class Login(Body):
    """Who logs in."""

    name: str = Field(max_length=128)
    password: str = Field(max_length=LONGEST)
    cookie: bool = Field(False, description="Have the token in a cookie, for a page in a browser.")


class Password(Body):
    """Another password."""

    old: str = Field(max_length=LONGEST)
    new: str = Field(min_length=SHORTEST, max_length=LONGEST)


class NewKey(Body):
    """An API key: no more than its owner, and less if wanted."""

    name: str = Field(min_length=1, max_length=128)
    expires: Time
    role: RoleName | None = Field(None, description="At most this role.")
    tenant: str | None = Field(None, description="For this tenant alone.")
    scopes: list[str] | None = Field(
        None,
        description="Good for these actions alone: `switches:read`, `ports:*`, `*:read`.",
        max_length=100,
    )


def _accounts(request: Request) -> Accounts:
    """The accounts, for somebody who is not known yet. Raises Problem."""
    platform: Platform = request.app.state.platform
    if platform.accounts is None:
        raise Problem("not-found", "this node has no accounts: everybody may do everything")
    if isinstance(platform.access, AccountAccess):
        platform.access.admit_address(request)
    return platform.accounts


async def _logged_in(
    accounts: Accounts, user: User, request: Request, response: Response
) -> tuple[str, datetime]:
    token, expires = await accounts.log_in(user, address_of(request))
    response.set_cookie(
        COOKIE,
        token,
        expires=expires,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return token, expires


@router.post(
    "/login",
    summary="Log in with a name and a password",
    response_model=Token,
    responses={204: {"description": "The token is in a cookie."}},
)
async def log_in(login: Login, request: Request) -> Response:
    """Give a token for `Authorization: Bearer`, or a cookie."""
    accounts = _accounts(request)
    if login.cookie:
        check_own_page(request)
    user = await accounts.check(login.name, login.password, address_of(request))
    if user is None:
        raise Problem("unauthorized", "no such name, or another password")
    if login.cookie:
        response = Response(status_code=204)
        await _logged_in(accounts, user, request, response)
        return response
    token, expires = await accounts.log_in(user, address_of(request))
    return JSONResponse(Token(token=token, expires=expires).model_dump(mode="json"))


@router.post("/logout", summary="Log out", status_code=204)
async def log_out(mine: MineToChange) -> Response:
    """End the login that was shown."""
    _, _, shown_token = mine.request.headers.get("authorization", "").partition(" ")
    token = shown_token.strip() or mine.request.cookies.get(COOKIE, "")
    await mine.accounts.credentials.log_out(token)
    await mine.accounts.changed()
    response = Response(status_code=204)
    response.delete_cookie(COOKIE)
    return response


# By an OpenID Connect provider


def _provider(accounts: Accounts) -> Provider:
    provider = accounts.provider
    if provider is None or not provider.settings.redirect_url:
        raise Problem("not-found", "browsers cannot log in by an OpenID Connect provider here")
    return provider


def _name(state: str) -> str:
    return f"oidc:{state}"


@router.get("/login/oidc", summary="Log in by the OpenID Connect provider", status_code=302)
async def log_in_elsewhere(request: Request) -> Response:
    """Send a browser to the provider."""
    platform: Platform = request.app.state.platform
    attempt = Attempt.new()
    url = await _provider(_accounts(request)).login_url(attempt)
    text = orjson.dumps([attempt.state, attempt.nonce, attempt.verifier])
    await platform.node.store.put(_name(attempt.state), text, _ATTEMPT_S)
    response = RedirectResponse(url, 302)
    # So that nobody can have somebody else come back in their name.
    response.set_cookie(
        _ATTEMPT_COOKIE,
        attempt.state,
        max_age=_ATTEMPT_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.get("/login/oidc/callback", summary="Come back from the provider", status_code=302)
async def come_back(request: Request, state: str = "", code: str = "") -> Response:
    """Log in who has come back, and send them to the first page."""
    platform: Platform = request.app.state.platform
    accounts = _accounts(request)
    provider = _provider(accounts)
    store = platform.node.store
    text = await store.get(_name(state)) if state else None
    is_own = state and request.cookies.get(_ATTEMPT_COOKIE) == state
    # It is good for once.
    if text is None or not is_own or not await store.swap(_name(state), text, None, _ATTEMPT_S):
        raise Problem("unauthorized", "this login was not begun here, or is over")
    claims = await provider.redeem(code, Attempt(*orjson.loads(text)))
    user = await accounts.sign_up(claims)
    if not user.is_active:
        raise Problem("unauthorized", f"the user {user.name} is not active")
    response = RedirectResponse(_HOME, 302)
    response.delete_cookie(_ATTEMPT_COOKIE)
    await _logged_in(accounts, user, request, response)
    return response


# Oneself


@router.get("/me", summary="Show who asks")
async def me(mine: Mine) -> Me:
    """Who it is, and what they may do: over everything, in tenants, and in a request like this."""
    identity = mine.identity
    told = {
        "id": identity.id,
        "name": identity.name,
        "role": identity.role,
        "tenants": identity.tenants,
        "scopes": None if identity.scopes is None else sorted(identity.scopes),
        "acting": _acting(identity, mine.request),
    }
    return Me.model_validate(told)


def _acting(identity: Identity, request: Request) -> Acting | None:
    """Who they are in requests that name the tenant which this one does."""
    try:
        return Acting.model_validate(identity.acting(tenant_of(request)))
    except NotThere:
        return None


@router.put("/me/password", summary="Change one's password", status_code=204)
async def change_password(password: Password, mine: MineToChange) -> Response:
    """Take another password; all logins are over then."""
    _check_no_key(mine)
    name = mine.principal.name
    async with mine.change("change", "users", mine.principal.id):
        user = await mine.accounts.check(name, password.old, address_of(mine.request))
        if user is None:
            raise Problem("forbidden", "the old password is another one")
        await mine.accounts.users.change(user.id, {"password": password.new})
    await mine.accounts.changed()
    return Response(status_code=204)


@router.get("/me/keys", summary="List one's API keys")
async def list_keys(mine: Mine) -> ListOfApiKeys:
    """The keys, without their tokens."""
    return ListOfApiKeys.of(await mine.accounts.credentials.keys(mine.principal.id))


@router.post("/me/keys", summary="Make an API key", status_code=201)
async def create_key(new: NewKey, mine: MineToChange) -> MadeApiKey:
    """Give a key, whose token is shown this once."""
    _check_no_key(mine)
    async with mine.change("create", "keys", new.name) as change:
        key, token = await mine.accounts.credentials.create_key(
            mine.principal.id,
            new.name,
            new.expires,
            None if new.role is None else Role.named(new.role),
            new.tenant,
            new.scopes,
        )
        change.target, change.after = key.id, key
    return MadeApiKey.model_validate({**audit.shown(key), "token": token})


@router.delete("/me/keys/{key}", summary="End an API key", status_code=204)
async def delete_key(key: str, mine: MineToChange) -> Response:
    """Have a key be good no more."""
    async with mine.change("delete", "keys", key) as change:
        change.before = await mine.accounts.credentials.get_key(key)
        if change.before.user_id != mine.principal.id:
            raise Problem("not-found", f"there is no key {key}")
        await mine.accounts.credentials.delete_key(key)
    await mine.accounts.changed()
    return Response(status_code=204)


def _check_no_key(mine: Visit) -> None:
    """A key that may do less than its owner must not become one that may do more."""
    if mine.principal.has_key:
        raise NotAllowed("this takes a login, not an API key")
