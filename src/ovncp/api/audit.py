"""What was changed, by whom: told of every write, whatever came of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ovncp.auth.principal import Principal

_LOG = logging.getLogger("ovncp.audit")

DONE, UNKNOWN = "done", "unknown"


@dataclass(frozen=True)
class Record:
    """One write. `before` and `after` are the row's fields, None where there is no such row.

    `result` is DONE, UNKNOWN, or the kind of the problem that was answered.
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


class Audit(Protocol):
    """Where it is kept."""

    async def record(self, records: Sequence[Record]) -> None:
        """Keep these; they are kept when this returns."""


class LoggedAudit:
    """Keeps it in the log alone."""

    async def record(self, records: Sequence[Record]) -> None:
        """See `Audit.record`."""
        if not _LOG.isEnabledFor(logging.INFO):
            return
        for each in records:
            _LOG.info("%s", orjson.dumps(each, option=orjson.OPT_NON_STR_KEYS).decode())
