"""The configuration as JSON: what `--config-file` names (upstream's ovsdb-server(1)).

    {"remotes": {TARGET: null or {OPTION: VALUE, ...}, ...},
     "databases": {FILE: null or {"service-model": "standalone"},
                   NAME: {"service-model": "relay", "source": {REMOTES: null or {...}}}, ...}}

Runtime changes of a server without such a file are kept in the same form, for its next life under
`--monitor`.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ovncp.server.configuration import (
    RELAY_PREFIX,
    Configuration,
    ConfigurationError,
    RemoteOptions,
    relay_spec,
    split_relay_spec,
)

_SECTIONS = ("remotes", "databases")
_DATABASE_KEYS = ("service-model", "source", "backup", "exclude-tables")
_KEYS_OF_MODEL = {"standalone": {"service-model"}, "relay": {"service-model", "source"}}
_LATER_MODELS = ("clustered", "active-backup")


class _Option(NamedTuple):
    """A key of a remote: the field of RemoteOptions, its type in words, and the check of it."""

    field: str
    type_name: str
    is_valid: Callable[[Any], bool]


def _is_msec(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_dscp(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 63


_REMOTE_OPTIONS = {
    "max-backoff": _Option("max_backoff_msec", "a number of milliseconds", _is_msec),
    "inactivity-probe": _Option("inactivity_probe_msec", "a number of milliseconds", _is_msec),
    "read-only": _Option("read_only", "true or false", lambda value: type(value) is bool),
    "role": _Option("role", "a string", lambda value: type(value) is str),
    "dscp": _Option("dscp", "a number from 0 to 63", _is_dscp),
}


_SOURCE_OPTIONS = {
    name: _REMOTE_OPTIONS[name] for name in ("max-backoff", "inactivity-probe", "dscp")
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
    served = dict(_database(name, settings) for name, settings in databases.items())
    return Configuration(
        databases=tuple(served),
        remotes={
            target: _options(f"remote {target}", options, _REMOTE_OPTIONS)
            for target, options in remotes.items()
        },
        sources={spec: options for spec, options in served.items() if options is not None},
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


def _options(what: str, json: Any, options: Mapping[str, _Option]) -> RemoteOptions:
    members = _members(what, json, options)
    fields = {}
    for name, value in members.items():
        option = options[name]
        if not option.is_valid(value):
            raise ConfigurationError(f"{what}: '{name}' must be {option.type_name}")
        fields[option.field] = value
    return RemoteOptions(**fields)


def _database(name: str, json: Any) -> tuple[str, RemoteOptions | None]:
    """The database as the command line names it, with the options of its source if it has one."""
    members = _members(f"database {name}", json, _DATABASE_KEYS)
    model = members.get("service-model", "standalone")
    if model in _LATER_MODELS:
        raise ConfigurationError(f"database {name}: service model '{model}' is not supported yet")
    if model not in _KEYS_OF_MODEL:
        valid = ", ".join(_KEYS_OF_MODEL)
        text = f"database {name}: '{model}' is not a valid service model; there are: {valid}"
        raise ConfigurationError(text)
    for key in members:
        if key not in _KEYS_OF_MODEL[model]:
            text = f"database {name}: '{key}' has no meaning for a {model} database"
            raise ConfigurationError(text)
    return (name, None) if model == "standalone" else _relay(name, members.get("source"))


def _relay(name: str, json: Any) -> tuple[str, RemoteOptions]:
    sources = _members(f"database {name}: 'source'", json)
    if len(sources) != 1:
        raise ConfigurationError(f"database {name}: 'source' must have one member, the remotes")
    ((remotes, options),) = sources.items()
    return relay_spec(name, remotes), _options(f"source {remotes}", options, _SOURCE_OPTIONS)


def dump(configuration: Configuration) -> bytes:
    """The JSON text of `configuration`, without its TLS settings, which no command changes."""
    remotes = {
        target: _options_json(options, _REMOTE_OPTIONS)
        for target, options in configuration.remotes.items()
    }
    databases = dict(_database_json(spec, configuration) for spec in configuration.databases)
    return orjson.dumps({"remotes": remotes, "databases": databases})


def _database_json(spec: str, configuration: Configuration) -> tuple[str, Any]:
    if not spec.startswith(RELAY_PREFIX):
        return spec, None
    name, remotes = split_relay_spec(spec)
    options = configuration.sources.get(spec, RemoteOptions())
    source = {remotes: _options_json(options, _SOURCE_OPTIONS)}
    return name, {"service-model": "relay", "source": source}


def _options_json(options: RemoteOptions, names: Mapping[str, _Option]) -> Mapping[str, Any]:
    values = {name: getattr(options, row.field) for name, row in names.items()}
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
