"""What somebody wants to read of the audit trail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records; None is any.  `before` is an id: those older than it."""

    tenant: str | None = None
    principal: str | None = None
    resource: str | None = None
    target: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
