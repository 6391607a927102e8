"""What a path names: rows of a resource, in a parent or not, or one of them.

    /switches                       all switches
    /switches/web                   one, by its name or uuid
    /switches/web/ports             what belongs to it
    /switches/web/ports/p1
    /db/nb/Logical_Switch           rows of any table, and
    /db/nb/Logical_Switch/web       one of them

The same is what the operations of `transactions` and `batch` name, below /api/v1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from ovncp.api import access
from ovncp.api.call import Call
from ovncp.api.problem import Problem
from ovncp.ovn.replica import Replica
from ovncp.ovn.resources import (
    BY_NAME,
    BY_TABLE,
    NORTHBOUND,
    RESOURCES,
    SOUTHBOUND,
    Parent,
    Resource,
)
from ovncp.ovn.write import Place

PREFIX = "/api/v1"
DATABASES = {"nb": NORTHBOUND, "sb": SOUTHBOUND}
RAW = "db"

_CHILDREN: Mapping[tuple[str, str], tuple[Resource, Parent]] = {
    (parent.resource, parent.path): (resource, parent)
    for resource in RESOURCES
    for parent in resource.parents
}


@dataclass(frozen=True)
class Location:
    """What is named: rows of `resource`, in `place` where that is given; one where `target` is.

    `is_raw` says that they are named by their table.
    """

    resource: Resource
    target: str | None
    place: Place | None
    is_raw: bool = False


def database_of(path: str) -> str:
    """The database that a path below PREFIX is about, as far as it is about any."""
    first, _, rest = path.strip("/").partition("/")
    if first == RAW:
        return DATABASES.get(rest.partition("/")[0], NORTHBOUND)
    resource = BY_NAME.get(first)
    return NORTHBOUND if resource is None else resource.database


def locate(path: str, replicas: Mapping[str, Replica]) -> Location:
    """What a path below `PREFIX` names; its parts are quoted. Raises Problem."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == RAW:
        return _raw(parts[1:], replicas)
    resource = BY_NAME.get(parts[0])
    if resource is None or len(parts) > 4:
        raise _nothing(path)
    if len(parts) <= 2:
        return Location(resource, parts[1] if len(parts) == 2 else None, None)
    child = _CHILDREN.get((resource.name, parts[2]))
    if child is None:
        raise _nothing(path)
    target = parts[3] if len(parts) == 4 else None
    return Location(child[0], target, Place(child[1], parts[1]))


def _raw(parts: Sequence[str], replicas: Mapping[str, Replica]) -> Location:
    database = DATABASES.get(parts[0]) if parts else None
    if database is None or len(parts) not in (2, 3):
        raise _nothing("/".join((RAW, *parts)))
    table = parts[1]
    if table not in replicas[database].rows:
        raise Problem("not-found", f"{database} has no table {table!r}")
    target = parts[2] if len(parts) == 3 else None
    return Location(raw_resource(database, table), target, None, is_raw=True)


def raw_resource(database: str, table: str) -> Resource:
    """The rows of a table, as if they were a resource."""
    known = BY_TABLE.get((database, table))
    order = "_uuid" if known is None else known.order
    return Resource(table, f"row of {table}", table, database, order=order)


def template(path: str) -> str:
    """What paths of this kind are called in the description, by a path below `PREFIX`."""
    parts = path.strip("/").split("/")
    if parts[0] == RAW and len(parts) in (3, 4):
        return PREFIX + "/db/{database}/{table}" + ("/{row}" if len(parts) == 4 else "")
    if parts[0] in BY_NAME and len(parts) <= 2:
        return f"{PREFIX}/{parts[0]}" + ("/{row}" if len(parts) == 2 else "")
    if tuple(parts[::2][:2]) in _CHILDREN and len(parts) <= 4:
        within = f"{PREFIX}/{parts[0]}/{{parent}}/{parts[2]}"
        return within + ("/{row}" if len(parts) == 4 else "")
    return PREFIX + "/{path}"


def _nothing(path: str) -> Problem:
    return Problem("not-found", f"there is nothing at {path}")


def thing_of(location: Location) -> str:
    """What a path names, as `ovncp.auth.decision` calls it."""
    return RAW if location.is_raw else location.resource.name


def check_location(call: Call, location: Location, *, changes: bool) -> None:
    """Refuse who may not read or change what a path names. Raises Problem."""
    access.allow(call.principal, thing_of(location), changes=changes)
