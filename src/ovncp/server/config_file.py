"""The configuration as JSON: what `--config-file` names (upstream's ovsdb-server(1)).

    {"remotes": {TARGET: null or {OPTION: VALUE, ...}, ...},
     "databases": {FILE: null or {"service-model": MODEL}, ...}}

Runtime changes of a server without such a file are kept in the same form, for its next life under
`--monitor`.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ovncp.server.configuration import Configuration, ConfigurationError, RemoteOptions

_SECTIONS = ("remotes", "databases")
_DATABASE_KEYS = ("service-model", "source", "backup", "exclude-tables")
_SERVED_MODELS = ("standalone",)
_LATER_MODELS = ("clustered", "active-backup", "relay")


class _Option(NamedTuple):
    """A key of a remote: the field of RemoteOptions, its type in words, and the check of it."""

    field: str
    type_name: str
    is_valid: Callable[[Any], bool]


def _is_msec(value: Any) -> bool:
    return type(value) is int and value >= 0


_REMOTE_OPTIONS = {
    "max-backoff": _Option("max_backoff_msec", "a number of milliseconds", _is_msec),
    "inactivity-probe": _Option("inactivity_probe_msec", "a number of milliseconds", _is_msec),
    "read-only": _Option("read_only", "true or false", lambda value: type(value) is bool),
    "role": _Option("role", "a string", lambda value: type(value) is str),
}


def read(path: str) -> Configuration:
    """The configuration in the file `path`. Raises ConfigurationError, which names the file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        text = f"failed to open configuration file '{path}': {error.strerror}"
        raise ConfigurationError(text) from error
    try:
        return parse(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def parse(data: bytes) -> Configuration:
    """The configuration that the JSON text `data` is. Raises ConfigurationError."""
    try:
        json = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"reading JSON failed ({error})") from error
    sections = _members("configuration in a file", json, _SECTIONS)
    remotes = _members("'remotes'", sections.get("remotes"))
    databases = _members("'databases'", sections.get("databases"))
    for file, settings in databases.items():
        _check_database(file, settings)
    return Configuration(
        databases=tuple(databases),
        remotes={target: _remote(target, options) for target, options in remotes.items()},
    )


def _members(what: str, json: Any, names: Collection[str] | None = None) -> dict[str, Any]:
    """The members of `json`, an object or null; only `names` are allowed."""
    if json is None:
        return {}
    if type(json) is not dict:
        raise ConfigurationError(f"{what} is not a JSON object")
    unknown = [name for name in json if names is not None and name not in names]
    if unknown:
        valid = ", ".join(names or ())
        raise ConfigurationError(f"{what} has unknown member '{unknown[0]}'; there are: {valid}")
    return json


def _remote(target: str, json: Any) -> RemoteOptions:
    members = _members(f"remote {target}", json, _REMOTE_OPTIONS)
    fields = {}
    for name, value in members.items():
        option = _REMOTE_OPTIONS[name]
        if not option.is_valid(value):
            raise ConfigurationError(f"remote {target}: '{name}' must be {option.type_name}")
        fields[option.field] = value
    return RemoteOptions(**fields)


def _check_database(file: str, json: Any) -> None:
    members = _members(f"database {file}", json, _DATABASE_KEYS)
    model = members.get("service-model", "standalone")
    if model in _LATER_MODELS:
        raise ConfigurationError(f"database {file}: service model '{model}' is not supported yet")
    if model not in _SERVED_MODELS:
        valid = ", ".join(_SERVED_MODELS)
        text = f"database {file}: '{model}' is not a valid service model; there are: {valid}"
        raise ConfigurationError(text)
    for name in members:
        if name != "service-model":
            text = f"database {file}: '{name}' has no meaning for a standalone database"
            raise ConfigurationError(text)


def dump(configuration: Configuration) -> bytes:
    """The JSON text of `configuration`, without its TLS settings, which no command changes."""
    remotes = {target: _remote_json(options) for target, options in configuration.remotes.items()}
    return orjson.dumps({"remotes": remotes, "databases": dict.fromkeys(configuration.databases)})


def _remote_json(options: RemoteOptions) -> Mapping[str, Any]:
    values = {name: getattr(options, row.field) for name, row in _REMOTE_OPTIONS.items()}
    return {name: value for name, value in values.items() if value is not None}


class SavedConfiguration:
    """A file with no name, in which a configuration outlives the process that it was given to.

    It is made before the daemon forks, so that the next daemon under `--monitor` finds it.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process

    def save(self, configuration: Configuration) -> None:
        """Keep `configuration`, without its TLS settings."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(dump(configuration))
        self._file.flush()

    def load(self) -> Configuration | None:
        """What an earlier daemon kept, None if there was none or it kept nothing."""
        self._file.seek(0)
        data = self._file.read()
        return parse(data) if data else None
