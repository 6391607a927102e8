"""Where a database is, as the command line names it.

    etcd://H1:2379,H2:2379/PREFIX?db=NAME, postgresql://...     a log on an engine
    PATH, file://PATH                                           a database file (ovsdb(5))
    tcp:HOST:PORT?db=NAME, ssl:..., unix:FILE?db=NAME           a running server's database

A server's `?db=NAME` may be left out where it has but one.
"""

from dataclasses import dataclass
from enum import Enum, auto

from ovncp.log.base import LogError
from ovncp.log.location import Location
from ovncp.ops.refusal import Refusal

_METHODS = ("tcp:", "ssl:", "unix:", "ptcp:", "pssl:", "punix:")


class Kind(Enum):
    """What keeps a database."""

    ENGINE = auto()
    FILE = auto()
    SERVER = auto()


@dataclass(frozen=True)
class Place:
    """A place: `name` is what it is called in messages, which is without a password.

    `location` is a URL of a log, a path, or an OVSDB remote. `database` is the name that was
    given with a remote, "" if none was.
    """

    kind: Kind
    name: str
    location: str
    database: str = ""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that `text` names. Raises Refusal."""
        if text.startswith(_METHODS):
            remote, _, database = text.partition("?db=")
            return cls(Kind.SERVER, text, remote, database)
        scheme, separator, rest = text.partition("://")
        if not separator or scheme == "file":
            path = rest if separator else text
            return cls(Kind.FILE, path, path)
        try:
            return cls(Kind.ENGINE, str(Location.parse(text)), text)
        except LogError as error:
            raise Refusal(error.details) from error

    @classmethod
    def parse_log(cls, text: str) -> "Place":
        """As `parse`, of a place that keeps a log: no running server. Raises Refusal."""
        place = cls.parse(text)
        if place.kind is Kind.SERVER:
            raise Refusal(f"{place.name}: a log is wanted, on an engine or in a file, not a server")
        return place
