"""Users of an OpenID Connect provider, which answers over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider
from ovncp.auth.attempt import Attempt
from ovncp.auth.errors import BadToken, ProviderUnavailable
from ovncp.auth.oidc import Provider
from ovncp.auth.principal import Identity, Role
from ovncp.auth.settings import OidcSettings, roles_by_group, tenants_by_group
from ovncp.cluster.settings import SettingsError

CALLBACK = "http://127.0.0.1:9/callback"


@pytest.fixture(params=["RS256", "ES256"])
def there(request):
    """The provider."""
    with OidcProvider(request.param) as provider:
        yield provider


@pytest.fixture
def oidc_settings(there):
    return OidcSettings(
        there.issuer,
        CLIENT_ID,
        CLIENT_SECRET,
        roles={"net-admins": Role.ADMIN, "net-eyes": Role.VIEWER},
        tenants={"team-a": ("a", Role.OPERATOR), "leads-a": ("a", Role.ADMIN)},
        redirect_url=CALLBACK,
    )


@pytest.fixture
async def provider(oidc_settings):
    """It, as we see it."""
    provider = Provider(oidc_settings)
    yield provider
    await provider.close()


async def test_a_token_says_who_it_is_and_what_they_may(there, provider):
    there.claims |= {"groups": ["net-eyes", "team-a", "leads-a", "others"]}
    token = there.token()
    assert provider.is_of_it(token)
    claims = await provider.verify(token)
    assert (claims.subject, claims.name, claims.role) == ("1", "ann", Role.VIEWER)
    assert claims.tenants == {"a": Role.ADMIN}
    there.claims = {"sub": "2", "groups": "net-admins"}
    claims = await provider.verify(there.token())
    assert (claims.name, claims.role, claims.tenants) == ("2", Role.ADMIN, {})
    assert there.n_asked_for_keys == 1


async def test_a_token_that_is_not_good_is_refused(there, provider):
    now = int(time.time())
    for others in (
        {"exp": now - 60},
        {"exp": None},
        {"nbf": now + 600},
        {"aud": "another"},
        {"aud": None},
        {"iss": "http://127.0.0.1/another"},
        {"sub": None},
    ):
        with pytest.raises(BadToken):
            await provider.verify(there.token(**others))
    head, body, signature = there.token().split(".")
    with pytest.raises(BadToken):
        await provider.verify(f"{head}.{body}.{'A' * len(signature)}")
    claims = jwt.decode(there.token(), options={"verify_signature": False})
    for forged in (
        jwt.encode(claims, None, "none"),
        jwt.encode(claims, "x" * 32, "HS256", headers={"kid": there.key_id}),
        "a.b.c",
        "",
    ):
        with pytest.raises(BadToken):
            await provider.verify(forged)
    assert not provider.is_of_it("a.b.c")
    assert not provider.is_of_it(there.token(iss="x"))


async def test_keys_that_are_replaced_are_asked_for_again_but_not_by_anybody(
    there, provider, monkeypatch
):
    monkeypatch.setattr("ovncp.auth.oidc._ASKED_AGAIN_S", 0.0)
    old = there.token()
    await provider.verify(old)
    there.new_key()
    await provider.verify(there.token())
    assert there.n_asked_for_keys == 2
    monkeypatch.setattr("ovncp.auth.oidc._ASKED_AGAIN_S", 60.0)
    for _ in range(3):
        with pytest.raises(BadToken):
            await provider.verify(old)
    assert there.n_asked_for_keys == 2


async def test_a_provider_that_does_not_answer_is_no_fault_of_the_token(there, provider):
    there.is_down = True
    with pytest.raises(ProviderUnavailable):
        await provider.verify(there.token())
    there.is_down = False
    await provider.verify(there.token())
    there.is_down = True
    await provider.verify(there.token())


async def test_a_provider_that_is_another_one_is_refused(there, oidc_settings):
    localhost = OidcSettings(there.issuer.replace("127.0.0.1", "localhost"), CLIENT_ID)
    provider = Provider(localhost)
    with pytest.raises(ProviderUnavailable, match="calls itself"):
        await provider.verify(there.token())
    await provider.close()


async def visit(url):
    """What a browser is sent back with."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302
    back, _, query = answer.headers["location"].partition("?")
    assert back == CALLBACK
    return {name: values[0] for name, values in parse_qs(query).items()}


async def test_a_browser_logs_in(there, provider):
    attempt = Attempt.new()
    url = await provider.login_url(attempt)
    assert urlsplit(url).path == "/authorize"
    back = await visit(url)
    assert back["state"] == attempt.state
    assert (await provider.redeem(back["code"], attempt)).name == "ann"
    with pytest.raises(BadToken):  # A code is good once.
        await provider.redeem(back["code"], attempt)


async def test_a_login_that_somebody_else_began_is_refused(there, provider):
    mine, theirs = Attempt.new(), Attempt.new()
    back = await visit(await provider.login_url(theirs))
    with pytest.raises(BadToken):
        await provider.redeem(back["code"], mine)
    back = await visit(await provider.login_url(mine))
    with pytest.raises(BadToken, match="another login"):
        await provider.redeem(back["code"], Attempt(mine.state, "other", mine.verifier))


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_its_users_are_ours_with_the_roles_that_it_says(there, oidc_settings, open_accounts):
    accounts = await open_accounts(oidc=oidc_settings)
    await accounts.tenants.create("a", "")
    there.claims |= {"groups": ["net-eyes", "team-a"]}
    identity = await accounts.identity(there.token())
    assert identity == Identity(identity.id, "ann", Role.VIEWER, {"a": Role.OPERATOR})
    there.claims |= {"groups": ["net-admins"]}
    token = there.token()
    again = await accounts.identity(token)
    assert again == Identity(identity.id, "ann", Role.ADMIN, {})
    assert await accounts.check("ann", "", "::1") is None
    await accounts.users.change("ann", {"is_active": False})
    await accounts.changed()
    assert await accounts.identity(token) is None
    there.claims = {"sub": "2", "preferred_username": "admin", "groups": ["net-admins"]}
    with pytest.raises(BadToken, match="another user"):
        await accounts.identity(there.token())
    assert await accounts.identity("x.y.z") is None


async def test_a_new_user_who_comes_often_at_once_is_one(there, oidc_settings, open_accounts):
    nodes = [await open_accounts(oidc=oidc_settings) for _ in range(2)]
    await nodes[0].tenants.create("a", "")
    there.claims |= {"groups": ["net-eyes", "team-a"]}
    tokens = [there.token(jti=str(n)) for n in range(4)]
    found = await asyncio.gather(*(node.identity(token) for node in nodes for token in tokens))
    assert len({identity.id for identity in found}) == 1
    assert found[0].tenants == {"a": Role.OPERATOR}


async def test_a_provider_that_is_down_is_not_asked_all_the_time(there, provider):
    there.is_down = True
    for _ in range(8):
        with pytest.raises(ProviderUnavailable):
            await provider.verify(there.token())
    assert there.n_refused == 3 and provider.breaker.state == "open"
    there.is_down = False
    async with asyncio.timeout(10):
        while provider.breaker.state == "open":
            with contextlib.suppress(ProviderUnavailable):
                await provider.verify(there.token())
            await asyncio.sleep(0.05)


def test_settings_that_make_no_sense_are_refused():
    for issuer, client in (("http://example.org", "x"), ("https://example.org", "")):
        with pytest.raises(SettingsError):
            OidcSettings(issuer, client)
    for text in ("group", "group=king", "=x:admin:"):
        with pytest.raises(SettingsError):
            roles_by_group([text])
        with pytest.raises(SettingsError):
            tenants_by_group([text])
    assert roles_by_group(["a=b=admin"]) == {"a=b": Role.ADMIN}
    assert tenants_by_group(["g=t:viewer"]) == {"g": ("t", Role.VIEWER)}
    assert "hush" not in repr(OidcSettings("https://example.org", "x", "hush"))
