"""Where an engine keeps a database: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT],.../PATH?db=NAME&...`.

The parameter `db` names the database within what the rest names; those of `COMMON` there are on any
engine, and each has further ones.
Credentials are percent-encoded (RFC 3986), and are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ovncp.log.base import LogError

COMMON = ("db", "keep_mb", "keep_s")
"""Parameters of every location; `log.retention` has what the last two mean."""

# By hand, as urllib knows no list of hosts.
_LOCATION = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<place>[^/?#]*)(/(?P<path>[^?#]*))?[?](?P<query>[^#]*)"
)


@dataclass(frozen=True, slots=True)
class Location:
    """One parsed location; `hosts` are HOST or HOST:PORT, `path` is without its first slash."""

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    hosts: tuple[str, ...]
    path: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str, known: Collection[str] | None = None) -> Location:
        """Parse `text`; `known` are the parameters that its engine has, if it says so.

        Raises LogError if it is not a location, names no database, or has another parameter.
        """
        parts = _LOCATION.fullmatch(text)
        if parts is None:
            raise LogError("not a location of a log, such as SCHEME://HOST:PORT/PATH?db=NAME")
        credentials, _, hosts = parts["place"].rpartition("@")
        user, colon, password = credentials.partition(":")
        try:
            pairs = parse_qsl(parts["query"], keep_blank_values=True, strict_parsing=True)
        except ValueError as error:
            raise LogError(f"not a location of a log: {error}") from error
        location = cls(
            parts["scheme"],
            unquote(user) or None,
            unquote(password) if colon else None,
            tuple(hosts.split(",")),
            unquote(parts["path"] or ""),
            dict(pairs),
        )
        location._check(known)
        return location

    def _check(self, known: Collection[str] | None) -> None:
        if not all(self.hosts):
            raise LogError(f"{self}: a host is missing")
        if not self.parameters.get("db"):
            raise LogError(f"{self}: the parameter db=NAME is missing")
        for name in ("keep_mb", "keep_s"):
            self.number(name, 0)
        for name in self.parameters:
            if known is not None and name not in {*COMMON, *known}:
                names = ", ".join(sorted({*COMMON, *known}))
                raise LogError(f"{self}: there is no parameter {name!r}; there are: {names}")

    @property
    def database(self) -> str:
        """The database's name."""
        return self.parameters["db"]

    def milliseconds(self, name: str, default: int) -> int:
        """The parameter `name`, a positive number of milliseconds."""
        what = "a positive number of milliseconds"
        if not (number := self._number(name, default, what)):
            raise LogError(f"{self}: {name}=0 is not {what}")
        return number

    def number(self, name: str, default: int) -> int:
        """The parameter `name`, a number."""
        return self._number(name, default, "a number")

    def _number(self, name: str, default: int, what: str) -> int:
        text = self.parameters.get(name, str(default))
        if not text.isascii() or not text.isdigit():
            raise LogError(f"{self}: {name}={text} is not {what}")
        return int(text)

    def with_database(self, name: str) -> Location:
        """The same place, another database in it."""
        return replace(self, parameters={**self.parameters, "db": name})

    def url(self) -> str:
        """The location as text that `parse` takes, with the password: not to be shown."""
        user = quote(self.user or "", safe="")
        password = "" if self.password is None else ":" + quote(self.password, safe="")
        at = "@" if user or password else ""
        return self._text(f"{user}{password}{at}")

    def __str__(self) -> str:
        return self._text("")

    def _text(self, credentials: str) -> str:
        hosts, path = ",".join(self.hosts), quote(self.path)
        query = urlencode(self.parameters, safe="/:")
        return f"{self.scheme}://{credentials}{hosts}/{path}?{query}"
