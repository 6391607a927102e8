"""What can be set about users and the database that has them.  Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ovncp.auth.principal import Role
from ovncp.cluster.rates import Limit
from ovncp.cluster.settings import SettingsError

SQLITE = "sqlite:///"
_SCHEMES = ("postgresql://", "postgres://")
_USER_LIMIT = Limit(120_000, 60.0)
_ADDRESS_LIMIT = Limit(240_000, 60.0)
_LOGIN_LIMIT = Limit(10, 300.0)
_ADDRESS_LOGIN_LIMIT = Limit(100, 300.0)


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where users, tenants, keys and the audit trail are."""

    primary: str = field(repr=False)
    """`postgresql://USER:PASSWORD@HOST:PORT,.../NAME?sslmode=...` as libpq has it, of which the
    host that takes writes is used; or `sqlite:///FILE`."""
    replicas: tuple[str, ...] = field(default=(), repr=False)
    """The like, of servers that are good for reading."""
    max_open: int = 25
    max_idle: int = 5
    lifetime_s: float = 3600.0
    """How old a connection gets."""
    timeout_s: float = 5.0
    """To connect, and for a statement."""

    def __post_init__(self) -> None:
        for url in (self.primary, *self.replicas):
            if not url.startswith((SQLITE, *_SCHEMES)):
                raise SettingsError(
                    f"a database is postgresql://USER:PASSWORD@HOST/NAME or {SQLITE}FILE"
                )
        if self.replicas and self.sqlite_file is not None:
            raise SettingsError("a SQLite file has no replicas")
        if not 0 < self.max_idle <= self.max_open:
            raise SettingsError("of the connections at most, some may be idle")

    @property
    def sqlite_file(self) -> Path | None:
        """The file, if it is SQLite."""
        if not self.primary.startswith(SQLITE):
            return None
        return Path(self.primary.removeprefix(SQLITE))


def postgres_url(host: str, port: int, database: str, user: str, password: str) -> str:
    """The URL of one server."""
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"postgresql://{credentials}@{host}:{port}/{quote(database, safe='')}"


def roles_by_group(texts: Iterable[str]) -> dict[str, Role]:
    """What GROUP=ROLE says, of each text.  Raises SettingsError."""
    return {group: _role(role, group) for group, role in map(_pair, texts)}


def tenants_by_group(texts: Iterable[str]) -> dict[str, tuple[str, Role]]:
    """What GROUP=TENANT:ROLE says, of each text.  Raises SettingsError."""
    found = {}
    for group, what in map(_pair, texts):
        tenant, _, role = what.partition(":")
        found[group] = tenant, _role(role, group)
    return found


def _pair(text: str) -> tuple[str, str]:
    group, equals, what = text.rpartition("=")
    if not equals:
        raise SettingsError(f"{text!r} is not GROUP=ROLE or GROUP=TENANT:ROLE")
    return group, what


def _role(name: str, group: str) -> Role:
    try:
        return Role.named(name)
    except KeyError as error:
        raise SettingsError(f"the role of group {group} is admin, operator or viewer") from error


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An OpenID Connect provider whose users may log in.

    What they may do follows from a claim with names, such as groups: `roles` has the role over
    everything for each, `tenants` the tenant and the role in it.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    roles: dict[str, Role] = field(default_factory=dict)
    tenants: dict[str, tuple[str, Role]] = field(default_factory=dict)
    redirect_url: str = ""
    """Of `/api/v1/login/oidc/callback` as browsers reach it; "" if they are not to log in."""
    audience: str = ""
    """What an access token must be for; `client_id` if empty."""
    ca_file: str = ""

    def __post_init__(self) -> None:
        if not self.issuer.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise SettingsError("an OpenID Connect issuer is an https:// URL")
        if not self.client_id:
            raise SettingsError("an OpenID Connect provider needs a client id")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Users, and what they may do to the platform itself."""

    database: DatabaseSettings
    session_s: float = 12 * 3600.0
    """How long a login lasts."""
    oidc: OidcSettings | None = None
    user_limit: Limit = _USER_LIMIT
    """Requests of one user."""
    address_limit: Limit = _ADDRESS_LIMIT
    """Requests from one address."""
    login_limit: Limit = _LOGIN_LIMIT
    """Failed logins of one user from one address."""
    address_login_limit: Limit = _ADDRESS_LOGIN_LIMIT
    """Failed logins from one address, of whomever."""
    audit_kept_s: float = 365 * 86400.0
    tidy_s: float = 300.0
    """How often the leader removes what is over."""
