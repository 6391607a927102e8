"""What users, tenants, and keys may be called."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ovncp.auth.errors import BadValue
from ovncp.auth.principal import Role

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}\Z").match
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z").match


def user_name(text: str) -> str:
    """A user's name.  Raises BadValue."""
    if not _USER(text):
        raise BadValue("name", "letters, digits and ._@+- are wanted, 128 at most")
    return text


def tenant_id(text: str) -> str:
    """A tenant's id.  Raises BadValue."""
    if not _TENANT(text):
        raise BadValue("id", "small letters, digits and - are wanted, 63 at most")
    return text


def role_of(text: str | None) -> Role | None:
    """The role that is stored as a text.  None for none."""
    return None if text is None else Role.named(text)


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)
