"""What was changed, by whom: told of every write, whatever came of it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ovncp.auth.principal import Principal

_LOG = logging.getLogger("ovncp.audit")

DONE, UNKNOWN = "done", "unknown"


@dataclass(frozen=True)
class Record:
    """One write. `before` and `after` are the row's fields, None where there is no such row.

    `result` is DONE, UNKNOWN, or the kind of the problem that was answered; `tenant` is whose the
    row is, if that is another question than who asked.
    """

    principal: Principal
    request_id: str
    address: str
    action: str
    resource: str
    uuid: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    result: str
    tenant: str | None = None


class Audit(Protocol):
    """Where it is kept."""

    def check(self) -> None:
        """Refuse changes while they could not be kept. Raises Problem."""

    async def record(self, records: Sequence[Record]) -> None:
        """Keep these; they are kept when this returns."""


class LoggedAudit:
    """Keeps it in the log alone."""

    def check(self) -> None:
        """See `Audit.check`."""

    async def record(self, records: Sequence[Record]) -> None:
        """See `Audit.record`."""
        for each in records:
            text = f"{each.action} of {each.resource} {each.uuid}: {each.result}"
            _LOG.info("%s", text, extra={"fields": {"audit": asdict(each)}})
