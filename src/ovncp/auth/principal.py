"""Who asks, and what they may do in general.

An identity is somebody known, with all that they are; a principal is what they are for one request,
which is about one tenant or about everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Role(IntEnum):
    """What somebody may do, each all that those before may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: str) -> Role:
        """The role of this name, in small letters.  Raises KeyError."""
        return cls[name.upper()]

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Principal:
    """Who asks. `tenant` is None for who is responsible for everything.

    `id` tells principals apart, over all nodes and for good; `name` is for people.  `scopes` are
    what an API key is good for, None for all that the role is; `has_key` if one was shown.
    """

    id: str
    name: str
    role: Role
    tenant: str | None = None
    scopes: frozenset[str] | None = None
    has_key: bool = False


class NotThere(Exception):
    """Somebody asked in the name of a tenant that they do not belong to, or of none."""


@dataclass(frozen=True)
class Identity:
    """Somebody known: a user, or an API key of theirs, which may be less.

    `role` is theirs over everything, None if they have none; `tenants` are their roles in those
    that they belong to.
    """

    id: str
    name: str
    role: Role | None
    tenants: Mapping[str, Role] = field(default_factory=dict)
    scopes: frozenset[str] | None = None
    has_key: bool = False

    def oneself(self) -> Principal:
        """Who they are where they ask about themselves, which anybody known may."""
        return self._as(Role.VIEWER, None)

    def acting(self, tenant: str | None) -> Principal:
        """Who they are where they ask for `tenant`; without one, for all that they may.

        Raises NotThere.
        """
        if tenant is not None:
            return self._in(tenant)
        if self.role is not None:
            return self._as(self.role, None)
        if len(self.tenants) == 1:
            return self._in(next(iter(self.tenants)))
        if self.tenants:
            raise NotThere(f"one of the tenants has to be named: {', '.join(sorted(self.tenants))}")
        raise NotThere(f"{self.name} has no role anywhere")

    def _in(self, tenant: str) -> Principal:
        roles = [role for role in (self.role, self.tenants.get(tenant)) if role is not None]
        if not roles:
            raise NotThere(f"{self.name} does not belong to tenant {tenant}")
        return self._as(max(roles), tenant)

    def _as(self, role: Role, tenant: str | None) -> Principal:
        return Principal(self.id, self.name, role, tenant, self.scopes, self.has_key)

    def limited(
        self, role: Role | None, tenant: str | None, scopes: frozenset[str] | None
    ) -> Identity:
        """This one as an API key makes it: with no more than a role, in one tenant alone."""

        def least(of: Role) -> Role:
            return of if role is None else min(of, role)

        if tenant is None:
            everywhere = None if self.role is None else least(self.role)
            tenants = {name: least(of) for name, of in self.tenants.items()}
            return Identity(self.id, self.name, everywhere, tenants, scopes, has_key=True)
        there = [of for of in (self.role, self.tenants.get(tenant)) if of is not None]
        tenants = {tenant: least(max(there))} if there else {}
        return Identity(self.id, self.name, None, tenants, scopes, has_key=True)
