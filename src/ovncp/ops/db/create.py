"""`ovncp db create`: an empty database of the schema in a file, or of a running server's."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson

from ovncp.follow.link import Connect
from ovncp.log import standalone
from ovncp.log.base import Chunks, Exists
from ovncp.log.registry import engine
from ovncp.ops import schema_file
from ovncp.ops.db import server_dump
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.report import FINE
from ovncp.ovsdb.schema import DatabaseSchema


@dataclass(frozen=True)
class Created:
    """An empty database was made."""

    place: Place
    schema: DatabaseSchema
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield f"{self.place.name}: created, of schema {self.schema.name} {self.schema.version}"

    def to_json(self) -> dict[str, str]:
        """See `Report`."""
        return {
            "place": self.place.name,
            "schema": self.schema.name,
            "version": self.schema.version,
        }


@dataclass(frozen=True)
class Present:
    """There was a database already, and it is as it was."""

    place: Place
    status = FINE

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield f"{self.place.name}: there already"

    def to_json(self) -> dict[str, str]:
        """See `Report`."""
        return {"place": self.place.name}


async def create(
    url: str, source: str, connect: Callable[[str], Connect], *, if_absent: bool = False
) -> Created | Present:
    """Make the database `url` of the schema that `source` has, a schema file or a running server.

    Raises Refusal, OSError, OvsdbError and LogError, the last of them if there is one at `url`
    already, unless it is to be made only `if_absent`.
    """
    place, schema = Place.parse_log(url), await _schema(Place.parse(source), connect)
    if if_absent and place.kind is Kind.FILE and os.path.lexists(place.location):
        return Present(place)
    try:
        await make(place, schema_text(schema))
    except Exists:
        if if_absent:
            return Present(place)
        raise
    return Created(place, schema)


async def _schema(source: Place, connect: Callable[[str], Connect]) -> DatabaseSchema:
    if source.kind is Kind.SERVER:
        return await server_dump.fetch_schema(source, connect)
    return schema_file.read(source.location)


def schema_text(schema: DatabaseSchema) -> bytes:
    """A schema as a log has it."""
    return orjson.dumps(schema.to_json())


async def make(place: Place, schema: bytes, data: Chunks = b"", index: int = 0) -> None:
    """Make the log at `place`, which has the snapshot `data`. Raises LogError if there is one.

    It is as of the entry `index` where that is not decided by the place.
    """
    if place.kind is Kind.ENGINE:
        await engine(place.location).create(place.location, schema, data, index)
    else:
        assert isinstance(data, bytes), "a file is written at once"
        standalone.create(place.location, schema, [data] if data else [])
