"""Who uses a deployment: an administrator, operators who write, viewers who listen."""

from __future__ import annotations

from argon2 import PasswordHasher

from ovncp.auth.accounts import Accounts
from ovncp.auth.migration import migrate
from ovncp.auth.passwords import Passwords
from ovncp.auth.principal import Role
from ovncp.auth.settings import AuthSettings, DatabaseSettings
from ovncp.cluster.memory import Memory, MemoryStore
from ovncp.cluster.node import Node
from ovncp.cluster.settings import ClusterSettings

TENANT = "red"
WRITERS = ("w1", "w2", "w3")
TENANT_WRITERS = ("red1",)
_ROLES = {"admin": Role.ADMIN, "viewer": Role.VIEWER, **dict.fromkeys(WRITERS, Role.OPERATOR)}
_MEMBERS = {"red-viewer": Role.VIEWER, **dict.fromkeys(TENANT_WRITERS, Role.OPERATOR)}
_PASSWORD = "correct horse battery"


async def tokens_of(url: str) -> dict[str, str]:
    """Make the users in a database of accounts; the token of a login of each."""
    settings = AuthSettings(DatabaseSettings(url))
    quick = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    node = Node(ClusterSettings("maker of users"), MemoryStore(Memory()), "1.0")
    accounts = Accounts(settings, node, lambda text: None, quick)
    try:
        await migrate(accounts.database)
        await accounts.tenants.create(TENANT, "")
        tokens = {}
        for name, role in {**_ROLES, **dict.fromkeys(_MEMBERS)}.items():
            user = await accounts.users.create(name, role, _PASSWORD)
            if name in _MEMBERS:
                await accounts.tenants.put_member(TENANT, name, _MEMBERS[name])
            tokens[name], _ = await accounts.log_in(user, "::1")
        return tokens
    finally:
        await accounts.close()
