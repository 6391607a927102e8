"""Who may do what: one pure function, and the tables that it looks in.

An action is `THING:read` or `THING:write`, where a thing is a resource of the API such as
`switches`, or one of `AREAS`.  What belongs to a tenant, its members and those who are responsible
for everything may touch; whatever belongs to nobody, the latter alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ovncp.auth.principal import Principal, Role

READ = "read"
WRITE = "write"


class Area(NamedTuple):
    """What it takes to read, and to change, things of a kind.

    `of_tenants`: members of a tenant may too, as far as it is the tenant's.
    """

    read: Role
    write: Role
    of_tenants: bool


NETWORK = Area(Role.VIEWER, Role.OPERATOR, of_tenants=True)
"""The resources of the Northbound and the Southbound; any thing that is not one of AREAS."""

AREAS = {
    "db": Area(Role.VIEWER, Role.ADMIN, of_tenants=False),
    "me": Area(Role.VIEWER, Role.VIEWER, of_tenants=True),
    "events": Area(Role.VIEWER, Role.VIEWER, of_tenants=True),
    "users": Area(Role.ADMIN, Role.ADMIN, of_tenants=False),
    "tenants": Area(Role.VIEWER, Role.ADMIN, of_tenants=False),
    "members": Area(Role.VIEWER, Role.ADMIN, of_tenants=True),
    "quotas": Area(Role.VIEWER, Role.ADMIN, of_tenants=False),
    "own-quotas": Area(Role.VIEWER, Role.ADMIN, of_tenants=True),
    "audit": Area(Role.ADMIN, Role.ADMIN, of_tenants=True),
    "cluster": Area(Role.VIEWER, Role.ADMIN, of_tenants=False),
}
"""Those that are no resources of a network."""


class Decision(NamedTuple):
    """Whether, and if not why, for people."""

    allowed: bool
    why: str = ""


_YES = Decision(True)


def action(thing: str, *, changes: bool) -> str:
    """The name of an action."""
    return f"{thing}:{WRITE if changes else READ}"


def allowed(principal: Principal, action: str, tenant: str | None = None) -> Decision:
    """Whether `principal` may do `action` to what is `tenant`'s, or to what is nobody's.

    Where all that is asked for is filtered by tenant anyway, `tenant` is the principal's own.
    """
    thing, _, verb = action.rpartition(":")
    area = AREAS.get(thing, NETWORK)
    needed = area.write if verb == WRITE else area.read
    if principal.role < needed:
        return Decision(False, f"this takes the role {needed}")
    if principal.tenant is not None and not area.of_tenants:
        return Decision(False, f"{thing} are not for members of a tenant")
    if principal.tenant not in (None, tenant):
        return Decision(False, "this is not the tenant's")
    if not _in_scope(principal.scopes, thing, verb):
        return Decision(False, f"the key is not good for {action}")
    return _YES


def _in_scope(scopes: frozenset[str] | None, thing: str, verb: str) -> bool:
    if scopes is None:
        return True
    wanted = {f"{one}:{other}" for one in (thing, "*") for other in (verb, "*")}
    return not wanted.isdisjoint(scopes)


def is_scope(text: str) -> bool:
    """Whether a text can be a scope: an action, or one with `*` for either part."""
    thing, colon, verb = text.rpartition(":")
    is_thing = thing == "*" or thing.replace("-", "").replace("_", "").isalnum()
    return bool(colon) and is_thing and verb in (READ, WRITE, "*")
