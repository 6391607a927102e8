"""Everything about users at one node: found out who asks, and kept up to date.

Who a token belongs to is known here for a few seconds, so that not every request asks the database;
a change of users, keys or members, at whichever node, makes all nodes forget it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ovncp.auth.credentials import Credentials
from ovncp.auth.database import Database
from ovncp.auth.errors import (
    BadToken,
    DatabaseUnavailable,
    DatabaseUnusable,
    OutcomeUnknown,
    Refused,
    TooManyTries,
)
from ovncp.auth.idempotency import Keys
from ovncp.auth.migration import migrate
from ovncp.auth.passwords import Passwords
from ovncp.auth.principal import Identity
from ovncp.auth.replica_lag import lags_s
from ovncp.auth.settings import AuthSettings, OidcSettings
from ovncp.auth.tenants import Tenants
from ovncp.auth.tokens import KEY, SESSION, hash_of
from ovncp.auth.trail import Trail
from ovncp.auth.users import FIRST_NAME, User, Users
from ovncp.cluster.background import end
from ovncp.cluster.lease import Lease
from ovncp.cluster.metrics import Family, family, labels
from ovncp.cluster.node import Node

if TYPE_CHECKING:
    from ovncp.auth.oidc import Claims, Provider

_logger = logging.getLogger("ovncp.auth.accounts")

_KNOWN_S = 10.0
_MOST_KNOWN = 10_000
_AGAIN_S = 1.0
_PATIENCE_S = 5.0
_PATTERN = "identity:*"

Announce = Callable[[str], None]


def _provider(settings: OidcSettings) -> Provider:
    # Its libraries are for those who have one.
    from ovncp.auth.oidc import Provider

    return Provider(settings)


class Accounts:
    """The users, as one node has them; belongs to one event loop."""

    def __init__(
        self,
        settings: AuthSettings,
        node: Node,
        announce: Announce = print,
        passwords: Passwords | None = None,
    ):
        """`announce` is given the first password, once.  To be made before the node starts."""
        self.settings = settings
        self.database = Database(settings.database)
        self.users = Users(self.database, passwords or Passwords())
        self.tenants = Tenants(self.database)
        self.credentials = Credentials(self.database, settings.session_s)
        self.keys = Keys(self.database)
        self.trail = Trail(self.database)
        self.provider = _provider(settings.oidc) if settings.oidc else None
        self._node = node
        self._announce = announce
        self._known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()
        self._finding: dict[str, asyncio.Task[Identity | None]] = {}
        self._prepared = asyncio.Event()
        self._quotas: dict[str, tuple[float, dict[str, int]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        node.breakers += self.database.breakers
        if self.provider is not None:
            node.breakers.append(self.provider.breaker)
        node.cache.on_forget.append(self._hear_of_a_change)
        node.leadership.add("what is over", self.tidy)

    async def start(self) -> None:
        """Prepare the database, as soon as it can be reached."""
        self._tasks = [asyncio.create_task(self._prepare()), asyncio.create_task(self.trail.run())]

    async def close(self) -> None:
        """End what runs, and all connections."""
        await end(self._tasks)
        if self.provider is not None:
            await self.provider.close()
        await self.database.close()

    @property
    def is_prepared(self) -> bool:
        """Whether the tables are what they have to be."""
        return self._prepared.is_set()

    async def _prepare(self) -> None:
        while not self.is_prepared:
            try:
                await self.prepare()
            except (DatabaseUnavailable, OutcomeUnknown) as error:
                _logger.warning("users are not known yet: %s", error)
            except DatabaseUnusable as error:
                _logger.error("users cannot be known: %s", error)
            await asyncio.sleep(_AGAIN_S)

    async def prepare(self) -> None:
        """Make the tables, and the first user.  Raises as `migrate`."""
        await migrate(self.database)
        password = await self.users.create_first()
        if password is not None:
            self._announce(f"The first user is {FIRST_NAME}, with the password {password}")
        self._prepared.set()

    # Who it is

    async def identity(self, token: str) -> Identity | None:
        """Whose token it is, if it is good.

        Raises BadToken with a reason, DatabaseUnavailable, ProviderUnavailable.
        """
        return await self._remembered(hash_of(token), lambda: self._find(token))

    async def _find(self, token: str) -> Identity | None:
        if token.startswith((KEY, SESSION)):
            return await self.credentials.identity_of(token)
        if self.provider is not None and self.provider.is_of_it(token):
            claims = await self.provider.verify(token)
            return await self.credentials.identity_of_user((await self.sign_up(claims)).id)
        return None

    async def identity_by_password(self, name: str, password: str, address: str) -> Identity | None:
        """Who somebody is by name and password.  Raises TooManyTries, DatabaseUnavailable."""

        async def find() -> Identity | None:
            user = await self.check(name, password, address)
            return None if user is None else await self.credentials.identity_of_user(user.id)

        return await self._remembered(hash_of(f"{name}:{password}"), find)

    async def check(self, name: str, password: str, address: str) -> User | None:
        """The user of this name, if that is the password.

        Raises TooManyTries, DatabaseUnavailable.
        """
        rates = self._node.rates
        tries = {
            f"login:{address}": self.settings.address_login_limit,
            f"login:{name}:{address}": self.settings.login_limit,
        }
        await self._until_prepared()
        if wait_s := max(rates.wait_s(who, limit) for who, limit in tries.items()):
            raise TooManyTries(wait_s)
        # Counted before it has failed, so that no more are tried at once either.
        for who, limit in tries.items():
            rates.add(who, limit)
        is_wrong = False
        try:
            user = await self.users.check(name, password)
            is_wrong = user is None
        finally:
            if not is_wrong:
                for who, limit in tries.items():
                    rates.take_back(who, limit)
        return user

    async def sign_up(self, claims: Claims) -> User:
        """The user whom the provider says somebody is.  Raises BadToken, DatabaseUnavailable."""
        assert self.provider is not None
        issuer = self.provider.settings.issuer
        try:
            user = await self.users.sign_up(issuer, claims.subject, claims.name, claims.role)
            await self.tenants.set_roles(user.id, claims.tenants)
        except Refused as error:
            raise BadToken(str(error)) from error
        return user

    async def log_in(self, user: User, address: str) -> tuple[str, datetime]:
        """A token for a user who has shown who they are, and when it is over."""
        return await self.credentials.log_in(user.id, address)

    async def _until_prepared(self) -> None:
        """Wait for a node that starts; not for a database that is away.

        Raises DatabaseUnavailable.
        """
        if not self.is_prepared and not self.database.is_away:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._prepared.wait(), _PATIENCE_S)
        if not self.is_prepared:
            raise DatabaseUnavailable("the database is not prepared yet")

    async def _remembered(
        self, hash: str, find: Callable[[], Coroutine[Any, Any, Identity | None]]
    ) -> Identity | None:
        until, known = self._known.get(hash, (0.0, None))
        if known is not None and until > asyncio.get_running_loop().time():
            return known
        await self._until_prepared()
        finding = self._finding.get(hash)
        if finding is None:
            finding = self._finding[hash] = asyncio.create_task(find())
            finding.add_done_callback(lambda done: self._found(hash, done))
        return await asyncio.shield(finding)

    def _found(self, hash: str, finding: asyncio.Task[Identity | None]) -> None:
        if self._finding.get(hash) is not finding:
            return  # Something has changed since it was asked for.
        del self._finding[hash]
        if finding.cancelled() or finding.exception() or (found := finding.result()) is None:
            return
        self._known[hash] = asyncio.get_running_loop().time() + _KNOWN_S, found
        self._known.move_to_end(hash)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    async def changed(self) -> None:
        """Users, keys, members or quotas are others: have all nodes forget what they know."""
        self._forget()
        await self._node.cache.invalidate(_PATTERN)

    def _hear_of_a_change(self, _: str, pattern: str) -> None:
        if pattern in (_PATTERN, "*"):
            self._forget()

    def _forget(self) -> None:
        self._known.clear()
        self._finding.clear()
        self._quotas.clear()

    async def quotas(self, tenant: str) -> dict[str, int]:
        """How many rows of a resource a tenant may have.

        Raises NoSuch, DatabaseUnavailable.
        """
        now = asyncio.get_running_loop().time()
        until, known = self._quotas.get(tenant, (0.0, {}))
        if until <= now:
            known = await self.tenants.quotas(tenant)
            self._quotas[tenant] = now + _KNOWN_S, known
        return known

    def families(self) -> Iterable[Family]:
        """Figures about the database of accounts."""
        yield family(
            "ovncp_database_connections_in_use",
            "gauge",
            "Connections to the servers of accounts that are in use.",
            {labels(server=name): n for name, n in self.database.in_use().items()},
        )
        yield family(
            "ovncp_database_connections_max",
            "gauge",
            "Connections to one of them at most.",
            {
                labels(server=name): self.settings.database.max_open
                for name in self.database.in_use()
            },
        )
        yield family(
            "ovncp_audit_records_waiting",
            "gauge",
            "Records of the audit trail that wait for their database.",
            self.trail.n_late,
        )

    async def lags(self) -> Family:
        """The figure that the replicas of the database are asked for."""
        return family(
            "ovncp_database_replica_lag_seconds",
            "gauge",
            "By how much a replica of the database of accounts is behind the primary.",
            {labels(server=name): s for name, s in (await lags_s(self.database)).items()},
        )

    # Work of the leader

    async def tidy(self, lease: Lease) -> None:
        """Remove what is over, again and again."""
        while lease.is_held:
            await asyncio.sleep(self.settings.tidy_s)
            if self.is_prepared:
                await self.sweep()

    async def sweep(self) -> int:
        """Do so once; how much there was."""
        kept_s = self.settings.audit_kept_s
        return (
            await self.credentials.sweep()
            + await self.keys.sweep()
            + await self.trail.sweep(kept_s)
        )
