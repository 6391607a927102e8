"""Who asks, found out by what they show: a login's token, an API key, a provider's, or a password.

It comes in the header `Authorization`, as `Bearer` or `Basic`, or, for pages in a browser, in a
cookie; a page of another site can send the cookie too, so such requests are told apart by the
headers that browsers add. `OVN-Tenant` names the tenant that a request is about.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from ovncp.api.problem import NotAllowed, Problem
from ovncp.auth.principal import Identity, NotThere, Principal
from ovncp.cluster.rates import Limit, Rates

if TYPE_CHECKING:
    from ovncp.auth.accounts import Accounts

COOKIE = "ovncp_session"
TENANT = "ovn-tenant"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ovncp", Basic realm="ovncp"'}
_SAFE = ("GET", "HEAD", "OPTIONS")


class AccountAccess:
    """Access of those who have an account."""

    def __init__(self, accounts: Accounts, rates: Rates) -> None:
        self._accounts = accounts
        self._rates = rates

    async def principal(self, connection: HTTPConnection) -> Principal:
        """See `Access.principal`."""
        identity = await self.identity(connection)
        try:
            return identity.acting(tenant_of(connection))
        except NotThere as error:
            connection.scope["principal"] = identity.oneself()
            raise NotAllowed(str(error)) from error

    async def identity(self, connection: HTTPConnection) -> Identity:
        """See `Access.identity`. Raises what `problem.of` knows."""
        self.admit_address(connection)
        identity = await self._find(connection, address_of(connection))
        if identity is None:
            raise Problem("unauthorized", "who asks is not known", headers=_CHALLENGE)
        self._admit(f"user:{identity.id}", self._accounts.settings.user_limit)
        return identity

    def admit_address(self, connection: HTTPConnection) -> None:
        """Count a request of whoever it is by where it comes from. Raises Problem."""
        self._admit(f"address:{address_of(connection)}", self._accounts.settings.address_limit)

    async def quotas(self, tenant: str) -> Mapping[str, int]:
        """See `Access.quotas`."""
        return await self._accounts.quotas(tenant)

    def _admit(self, key: str, limit: Limit) -> None:
        wait_s = self._rates.admit(key, limit)
        if wait_s:
            headers = {"Retry-After": f"{math.ceil(wait_s)}"}
            raise Problem("too-many-requests", "too many requests", headers=headers)

    async def _find(self, connection: HTTPConnection, address: str) -> Identity | None:
        scheme, _, shown = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._accounts.identity(shown.strip())
        if scheme.lower() == "basic":
            name, password = _name_and_password(shown)
            return await self._accounts.identity_by_password(name, password, address)
        token = connection.cookies.get(COOKIE)
        if token is None:
            return None
        check_own_page(connection)
        return await self._accounts.identity(token)


def tenant_of(connection: HTTPConnection) -> str | None:
    """The tenant that a request names; a browser's WebSocket can only do so in the query."""
    named = connection.headers.get(TENANT)
    if named is None and connection.scope["type"] == "websocket":
        named = connection.query_params.get(TENANT)
    return named


def address_of(connection: HTTPConnection) -> str:
    """Where a request comes from."""
    return connection.client.host if connection.client is not None else ""


def _name_and_password(shown: str) -> tuple[str, str]:
    """What `Basic` says (RFC 7617). Raises Problem."""
    try:
        text = base64.b64decode(shown, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise Problem("unauthorized", "not a name and a password", headers=_CHALLENGE) from error
    name, _, password = text.partition(":")
    return name, password


def check_own_page(connection: HTTPConnection) -> None:
    """Refuse what a page of another site has a browser do. Raises Problem."""
    if connection.scope["type"] == "http" and connection.scope["method"] in _SAFE:
        return
    site = connection.headers.get("sec-fetch-site")
    origin = connection.headers.get("origin")
    host = connection.headers.get("host", "")
    is_own = site in ("same-origin", "none") if site else bool(origin)
    if not is_own or (origin is not None and urlsplit(origin).netloc != host):
        raise Problem("forbidden", "a page of another site cannot do that")
