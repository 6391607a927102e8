"""What was changed, by whom: told of every write, whatever came of it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ovncp.auth.principal import Principal, Role

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


def shown(value: Any) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [shown(each) for each in value]
    if isinstance(value, Role):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def fields(record: Record) -> dict[str, Any]:
    """A record as `ovncp.auth.trail` takes it."""
    return {
        "at": datetime.now(UTC),
        "principal_id": record.principal.id,
        "principal": record.principal.name,
        "tenant": record.tenant if record.tenant is not None else record.principal.tenant,
        "request_id": record.request_id,
        "address": record.address,
        "action": record.action,
        "resource": record.resource,
        "target": record.uuid,
        "before": record.before,
        "after": record.after,
        "result": record.result,
    }


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
