"""Log lines: JSON objects for programs, or plain text for people, each with its request's id.

What belongs to a line besides its text is given as `extra={"fields": {...}}`.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import orjson
from opentelemetry import trace

from ovncp.api import request_id

FORMATS = ("json", "text")


def configure(format: str, level: str, node_id: str) -> None:
    """Have all that is logged go to the standard error, in one of FORMATS."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(format, node_id))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ovncp").setLevel(level.upper())


def formatter(format: str, node_id: str) -> logging.Formatter:
    """What makes lines in one of FORMATS."""
    return _Json(node_id) if format == "json" else _Text()


class _Json(logging.Formatter):
    def __init__(self, node_id: str) -> None:
        super().__init__()
        self._node_id = node_id

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "node": self._node_id,
        }
        told |= _context() | getattr(record, "fields", {})
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return _to_json(told)


class _Text(logging.Formatter):
    """As daemons of Open vSwitch's kind write to a terminal: who shows the lines adds the time.

    The fields are left out, which are for programs.
    """

    def format(self, record: logging.LogRecord) -> str:
        about = "".join(f" [{id}]" for id in _context().values())
        text = f"{record.levelname}|{record.name}|{record.getMessage()}{about}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _to_json(value: Any) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _context() -> dict[str, str]:
    """What is known of the request that is being answered, if one is."""
    span = trace.get_current_span().get_span_context()
    found = {
        "request_id": request_id.current.get(),
        "trace_id": trace.format_trace_id(span.trace_id) if span.is_valid else "",
    }
    return {name: value for name, value in found.items() if value}
