"""OpenID Connect: users whom a provider knows (OpenID Connect Core 1.0, Discovery 1.0).

A token is good if the provider has signed it with one of the keys that it publishes, for us, and it
is not over.  A browser logs in by the authorization code flow with PKCE (RFC 7636).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt

from ovncp.auth.attempt import Attempt
from ovncp.auth.errors import BadToken, ProviderUnavailable
from ovncp.auth.principal import Role
from ovncp.auth.settings import OidcSettings
from ovncp.cluster.breaker import Breaker, BreakerOpen

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Those with a public key: one with a shared secret would let anybody who knows it sign."""

_DISCOVERY = "/.well-known/openid-configuration"
_TIMEOUT_S = 5.0
_KEPT_S = 3600.0
_ASKED_AGAIN_S = 10.0
_LEEWAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a provider says that somebody is, and what they may do here for that."""

    subject: str
    name: str
    role: Role | None
    tenants: Mapping[str, Role]


class Provider:
    """One provider, as it describes itself; belongs to one event loop."""

    def __init__(self, settings: OidcSettings):
        self.settings = settings
        self.breaker = Breaker("OpenID Connect provider", (ProviderUnavailable,))
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, verify=context)
        self._loop = asyncio.get_running_loop()
        self._described: Mapping[str, Any] = {}
        self._described_at = float("-inf")
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._keys_at = float("-inf")
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    def is_of_it(self, token: str) -> bool:
        """Whether a token claims to be the provider's."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return False
        return claims.get("iss") == self.settings.issuer

    async def verify(self, token: str) -> Claims:
        """Who shows a token.  Raises BadToken, ProviderUnavailable."""
        audience = self.settings.audience or self.settings.client_id
        return self._claims(await self._decode(token, audience))

    async def login_url(self, attempt: Attempt) -> str:
        """Where a browser is to be sent.  Raises ProviderUnavailable."""
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect_url,
            "scope": "openid profile email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = (await self._description())["authorization_endpoint"]
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def redeem(self, code: str, attempt: Attempt) -> Claims:
        """Who has come back from there with a code.  Raises BadToken, ProviderUnavailable."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_url,
            "client_id": self.settings.client_id,
            "code_verifier": attempt.verifier,
        }
        if self.settings.client_secret:
            form["client_secret"] = self.settings.client_secret
        endpoint = (await self._description())["token_endpoint"]
        answer = await self._ask("POST", endpoint, form)
        if "id_token" not in answer:
            raise BadToken("the provider did not take the code")
        claims = await self._decode(answer["id_token"], self.settings.client_id)
        if not secrets.compare_digest(str(claims.get("nonce", "")), attempt.nonce):
            raise BadToken("the token belongs to another login")
        return self._claims(claims)

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        settings = self.settings
        given = claims.get(settings.groups_claim) or []
        groups = [given] if isinstance(given, str) else list(map(str, given))
        roles = [settings.roles[group] for group in groups if group in settings.roles]
        tenants: dict[str, Role] = {}
        for group in groups:
            if group in settings.tenants:
                tenant, role = settings.tenants[group]
                tenants[tenant] = max(role, tenants.get(tenant, role))
        name = str(claims.get(settings.name_claim) or claims["sub"])
        return Claims(claims["sub"], name, max(roles, default=None), tenants)

    async def _decode(self, token: str, audience: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise BadToken("the token is not signed with a public key")
            key = await self._key(str(header.get("kid", "")))
            return jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=audience,
                issuer=self.settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "sub", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise BadToken(f"the token is not good: {error}") from error

    async def _key(self, id: str) -> jwt.PyJWK:
        """The provider's key of an id, or its only one.  Raises BadToken, ProviderUnavailable."""
        if self._keys_at + _KEPT_S < self._loop.time():
            await self._load_keys()
        key = self._known_key(id)
        if key is None and self._keys_at + _ASKED_AGAIN_S < self._loop.time():
            await self._load_keys()  # It may be a new one.
            key = self._known_key(id)
        if key is None:
            raise BadToken("the provider has no such key")
        return key

    def _known_key(self, id: str) -> jwt.PyJWK | None:
        if not id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(id)

    async def _load_keys(self) -> None:
        before = self._keys_at
        async with self._asking:
            if self._keys_at != before:
                return
            endpoint = (await self._description())["jwks_uri"]
            found = jwt.PyJWKSet.from_dict(await self._ask("GET", endpoint))
            self._keys = {key.key_id or "": key for key in found.keys}
            self._keys_at = self._loop.time()

    async def _description(self) -> Mapping[str, Any]:
        if self._described_at + _KEPT_S < self._loop.time():
            described = await self._ask("GET", self.settings.issuer.rstrip("/") + _DISCOVERY)
            if described.get("issuer") != self.settings.issuer:
                raise ProviderUnavailable(f"the provider calls itself {described.get('issuer')}")
            self._described, self._described_at = described, self._loop.time()
        return self._described

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            with self.breaker.attempt():
                return await self._answer(method, url, form)
        except BreakerOpen as error:
            raise ProviderUnavailable(str(error)) from error

    async def _answer(
        self, method: str, url: str, form: Mapping[str, str] | None
    ) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, url, data=form)
            if answer.status_code >= 500 or (form is None and not answer.is_success):
                raise ProviderUnavailable(f"the provider answers {answer.status_code}")
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ProviderUnavailable(f"the provider does not answer: {error}") from error
        if not isinstance(found, dict):
            raise ProviderUnavailable("the provider answers with something else")
        return found
