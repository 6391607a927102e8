"""Schema files: a `<database-schema>` of RFC 7047 section 3.2 as JSON text on disk."""

import os
from typing import Any

from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import DatabaseSchema
from ovncp.wire.json_stream import JsonError, parse

_UNREADABLE = "failed to read schema"
_PIECE_BYTES = 1 << 20


def read(path: str) -> DatabaseSchema:
    """The schema in the file `path`. Raises OvsdbError, in the C server's words."""
    try:
        return DatabaseSchema.from_json(_read_json(path))
    except OvsdbError as error:
        if error.tag != _UNREADABLE:
            error.details = f'failed to parse "{path}" as ovsdb schema: {error.details}'
        raise


def _read_json(path: str) -> Any:
    try:
        return parse(_read_bytes(path))
    except JsonError as error:
        raise _unreadable(path, str(error)) from error


def _read_bytes(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(path, f'error opening "{path}": {error.strerror}') from error
    try:
        return b"".join(iter(lambda: os.read(fd, _PIECE_BYTES), b""))
    except OSError as error:
        raise _unreadable(path, f"error reading JSON stream: {error.strerror}") from error
    finally:
        os.close(fd)


def _unreadable(path: str, why: str) -> OvsdbError:
    return OvsdbError(_UNREADABLE, f'"{path}" could not be read as JSON ({why})')
