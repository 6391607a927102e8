"""How a node of the platform is configured: `config.yaml`, the environment, flags.

What there is to set is what the dataclasses below say; each later source overrides those before.
A file has a section for each; `${VAR}` in it is the variable of the environment, `${VAR:-text}`
with a text for when there is none. A key that means nothing is an error that names those that do.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

USUAL_FILE = "config.yaml"
"""The file that is read, if it is there, when none is named."""


class ConfigError(Exception):
    """What is configured makes no sense; the text is one line, without secrets."""


# Kinds of values: each makes the value of what a file, a variable or a flag has.

Kind = Callable[[Any], Any]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?\Z").match


def as_text(value: Any) -> str:
    """A text."""
    if type(value) is not str:
        raise ValueError("a text is wanted")
    return value


def as_number(value: Any) -> int:
    """A whole number that is not negative."""
    word = str(value)
    if type(value) not in (int, str) or not (word.isascii() and word.isdecimal()):
        raise ValueError("a whole number is wanted")
    return int(word)


def as_port(value: Any) -> int:
    """A TCP port; 0 lets the kernel choose."""
    found = as_number(value)
    if found > 65535:
        raise ValueError("a port is a number up to 65535")
    return found


def as_port_or_none(value: Any) -> int | None:
    """A TCP port as `as_port` has it, or "none"."""
    return None if value == "none" else as_port(value)


def as_boolean(value: Any) -> bool:
    """A boolean."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    known = words.get(str(value).lower())
    if known is None:
        raise ValueError("true or false is wanted")
    return known


def as_seconds(value: Any) -> float:
    """A time in seconds, from a text such as 100ms, 5s, 30m, 1h."""
    found = _DURATION(str(value)) if type(value) in (str, int, float) else None
    if found is None:
        raise ValueError("a time is wanted, such as 100ms, 5s, 30m or 1h")
    return float(found[1]) * _UNITS[found[2] or "s"]


def as_list(value: Any) -> tuple[str, ...]:
    """Texts: a list, or one text with commas."""
    given = value.split(",") if type(value) is str else value
    if type(given) not in (list, tuple) or not all(type(each) is str for each in given):
        raise ValueError("a list of texts is wanted")
    return tuple(each.strip() for each in given if each.strip())


def as_one_of(*allowed: str) -> Kind:
    """One of a few words."""

    def kind(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)} is wanted")
        return str(value)

    return kind


def setting(
    kind: Kind,
    default: Any,
    help: str,
    *,
    env: str = "",
    flag: str = "",
    secret: bool = False,
) -> Any:
    """A field of a section: what it may be, and the variable and the flag that set it too."""
    about = {"kind": kind, "help": help, "env": env, "flag": flag, "secret": secret}
    return field(default=default, metadata=about, repr=not secret)


def section(kind: type, *, many: bool = False) -> Any:
    """A field that is a section, or `many` of them, none unless they are given."""
    about = {"section": kind, "many": many}
    if many:
        return field(default=(), metadata=about)
    return field(default_factory=kind, metadata=about)


@dataclass(frozen=True)
class ServerSection:
    """Where the node listens."""

    host: str = setting(as_text, "127.0.0.1", "the address to listen on", flag="host")
    port: int = setting(as_port, 8080, "the port of the API", env="NODE_PORT", flag="port")
    trusted_proxies: tuple[str, ...] = setting(
        as_list, (), "addresses or networks whose X-Forwarded-For counts", env="TRUSTED_PROXIES"
    )
    request_timeout: float = setting(as_seconds, 30.0, "for all of a request to arrive")
    metrics_port: int | None = setting(
        as_port_or_none,
        9090,
        "the port where /metrics asks nobody who they are; none for none",
        env="METRICS_PORT",
        flag="metrics-port",
    )


@dataclass(frozen=True)
class ClusterSection:
    """Who the node is among others."""

    enabled: bool | None = setting(
        as_boolean, None, "whether there are others; as Redis is given", env="ENABLE_CLUSTERING"
    )
    node_id: str = setting(
        as_text, "", "unique among the nodes; made of the host name", env="NODE_ID"
    )
    node_hostname: str = setting(as_text, "", "the host name, to show", env="NODE_HOSTNAME")
    node_ip: str = setting(as_text, "127.0.0.1", "the address, to show", env="NODE_IP")
    heartbeat_interval: float = setting(
        as_seconds, 5.0, "between signs of life", env="CLUSTER_HEARTBEAT_INTERVAL"
    )
    node_timeout: float = setting(
        as_seconds, 30.0, "until a silent node is gone", env="CLUSTER_NODE_TIMEOUT"
    )


@dataclass(frozen=True)
class RedisSection:
    """How Redis is reached, if there is one."""

    url: str = setting(
        as_text, "", "redis[s]://[USER:PASSWORD@]HOST:PORT/N", env="REDIS_URL", secret=True
    )
    addresses: tuple[str, ...] = setting(
        as_list, (), "HOST:PORT of servers, or of sentinels", env="REDIS_SENTINEL_NODES"
    )
    password: str = setting(as_text, "", "the password", secret=True)
    cluster_mode: bool = setting(
        as_boolean, False, "whether it is Redis Cluster", env="REDIS_CLUSTER_MODE"
    )
    sentinel_master: str = setting(
        as_text, "", "the master's name at the sentinels", env="REDIS_SENTINEL_MASTER"
    )
    pool_size: int = setting(as_number, 10, "connections at most", env="REDIS_POOL_SIZE")
    max_retries: int = setting(as_number, 3, "how often a command is tried again")
    dial_timeout: float = setting(as_seconds, 5.0, "to connect")
    read_timeout: float = setting(as_seconds, 3.0, "to wait for an answer")
    write_timeout: float = setting(as_seconds, 3.0, "to send")


@dataclass(frozen=True)
class DatabaseServer:
    """One PostgreSQL server."""

    host: str = setting(as_text, "", "its host")
    port: int = setting(as_port, 5432, "its port")
    database: str = setting(as_text, "ovncp", "the database there")
    user: str = setting(as_text, "ovncp", "who to connect as")
    password: str = setting(as_text, "", "the password", secret=True)


@dataclass(frozen=True)
class DatabaseSection:
    """Where users, tenants, keys and the audit trail are kept; SQLite if nothing is given."""

    url: str = setting(
        as_text, "", "postgresql://USER:PASSWORD@HOST/NAME, or sqlite:///FILE", env="DATABASE_URL",
        secret=True,
    )  # fmt: skip
    primary: DatabaseServer = section(DatabaseServer)
    replicas: tuple[DatabaseServer, ...] = section(DatabaseServer, many=True)
    max_open_connections: int = setting(
        as_number, 25, "connections at most", env="DB_MAX_OPEN_CONNECTIONS"
    )
    max_idle_connections: int = setting(
        as_number, 5, "connections kept while idle", env="DB_MAX_IDLE_CONNECTIONS"
    )
    connection_max_lifetime: float = setting(as_seconds, 3600.0, "until a connection is replaced")


@dataclass(frozen=True)
class NorthboundSection:
    """Where the Northbound is."""

    endpoints: tuple[str, ...] = setting(
        as_list,
        ("tcp:127.0.0.1:6641",),
        "where the Northbound is: tcp:HOST:PORT, ssl: or unix:, the preferred one first",
        env="OVN_NB_DB",
        flag="nb",
    )


@dataclass(frozen=True)
class SouthboundSection:
    """Where the Southbound is."""

    endpoints: tuple[str, ...] = setting(
        as_list,
        ("tcp:127.0.0.1:6642",),
        "where the Southbound is: tcp:HOST:PORT, ssl: or unix:, the preferred one first",
        env="OVN_SB_DB",
        flag="sb",
    )


@dataclass(frozen=True)
class OvnSection:
    """How OVN's databases are reached."""

    northbound: NorthboundSection = section(NorthboundSection)
    southbound: SouthboundSection = section(SouthboundSection)
    max_connections: int = setting(
        as_number, 10, "connections at most, those of ovn-trace too", env="OVN_MAX_CONNECTIONS"
    )
    connection_timeout: float = setting(
        as_seconds, 30.0, "for how long a request waits for a connection"
    )
    private_key: str = setting(as_text, "", "a file, for ssl: endpoints", flag="private-key")
    certificate: str = setting(as_text, "", "a file, for ssl: endpoints", flag="certificate")
    ca_cert: str = setting(as_text, "", "a file, for ssl: endpoints", flag="ca-cert")


@dataclass(frozen=True)
class CacheSection:
    """What nodes keep of what is costly to find out."""

    type: str = setting(
        as_one_of("auto", "memory", "redis"),
        "auto",
        "where; auto: where Redis is",
        env="CACHE_TYPE",
    )
    key_prefix: str = setting(as_text, "ovncp:", "what all keys begin with", env="CACHE_KEY_PREFIX")
    entries: int = setting(as_number, 10_000, "values that a node keeps at hand")


@dataclass(frozen=True)
class SessionSection:
    """WebSocket sessions."""

    store: str = setting(
        as_one_of("auto", "memory", "redis"), "auto", "where; auto: where Redis is",
        env="SESSION_STORE_TYPE",
    )  # fmt: skip
    ttl: float = setting(as_seconds, 1800.0, "until a silent one is over", env="SESSION_TTL")
    cleanup_interval: float = setting(
        as_seconds, 60.0, "between looks for those", env="SESSION_CLEANUP_INTERVAL"
    )


@dataclass(frozen=True)
class BatchSection:
    """How single writes are grouped into transactions of the Northbound."""

    batch_size: int = setting(as_number, 100, "writes in a transaction at most")
    batch_timeout: float = setting(as_seconds, 0.1, "for how long a write waits for others at most")
    max_concurrent: int = setting(as_number, 4, "transactions on their way at once")


@dataclass(frozen=True)
class OidcSection:
    """An OpenID Connect provider whose users may log in."""

    issuer: str = setting(as_text, "", "its URL; none if empty", env="OIDC_ISSUER")
    client_id: str = setting(as_text, "", "what we are called there", env="OIDC_CLIENT_ID")
    client_secret: str = setting(
        as_text, "", "what we show there", env="OIDC_CLIENT_SECRET", secret=True
    )
    audience: str = setting(as_text, "", "whom access tokens are for; client_id if empty")
    redirect_url: str = setting(
        as_text, "", "https://HOST/api/v1/login/oidc/callback, if browsers are to log in"
    )
    name_claim: str = setting(as_text, "preferred_username", "the claim with the user's name")
    groups_claim: str = setting(as_text, "groups", "the claim with the user's groups")
    roles: tuple[str, ...] = setting(as_list, (), "GROUP=ROLE, a role over everything")
    tenants: tuple[str, ...] = setting(as_list, (), "GROUP=TENANT:ROLE, a role in a tenant")
    ca_cert: str = setting(as_text, "", "a file with authorities for its certificate")


@dataclass(frozen=True)
class AuthSection:
    """Who may do what."""

    mode: str = setting(
        as_one_of("auto", "users", "open"),
        "auto",
        "users: who has an account; open: everybody on this machine; auto: open if the node listens"
        " on this machine alone and no database is given",
        env="AUTH_MODE",
    )
    session_ttl: float = setting(as_seconds, 43200.0, "until a login is over")
    requests_per_minute: int = setting(as_number, 120_000, "of one user, over all nodes")
    address_requests_per_minute: int = setting(as_number, 240_000, "from one address")
    failed_logins: int = setting(
        as_number,
        10,
        "of one user from one address, in five minutes; ten times that of all users from it",
    )
    audit_retention: float = setting(as_seconds, 31_536_000.0, "until a record is removed")
    oidc: OidcSection = section(OidcSection)


@dataclass(frozen=True)
class LogSection:
    """What is logged, on the standard error."""

    level: str = setting(
        as_one_of("debug", "info", "warning", "error"),
        "info",
        "the least that is logged; debug has each request that only reads too",
        env="LOG_LEVEL",
        flag="log-level",
    )
    format: str = setting(
        as_one_of("json", "text"),
        "json",
        "json: objects for programs; text: for people",
        env="LOG_FORMAT",
        flag="log-format",
    )


@dataclass(frozen=True)
class Config:
    """A node's configuration."""

    server: ServerSection = section(ServerSection)
    cluster: ClusterSection = section(ClusterSection)
    redis: RedisSection = section(RedisSection)
    database: DatabaseSection = section(DatabaseSection)
    ovn: OvnSection = section(OvnSection)
    cache: CacheSection = section(CacheSection)
    session: SessionSection = section(SessionSection)
    batch_processor: BatchSection = section(BatchSection)
    auth: AuthSection = section(AuthSection)
    log: LogSection = section(LogSection)


class Setting(NamedTuple):
    """One thing to set: its place, and what `setting` says of it."""

    path: str
    about: Mapping[str, Any]
    default: Any


def settings(kind: type = Config, prefix: str = "") -> Iterator[Setting]:
    """All that there is to set, but for what a list of sections has."""
    for each in dataclasses.fields(kind):
        path = prefix + each.name
        if "section" not in each.metadata:
            yield Setting(path, each.metadata, each.default)
        elif not each.metadata["many"]:
            yield from settings(each.metadata["section"], f"{path}.")


class Loaded(NamedTuple):
    """A configuration, and where each setting that is no default comes from."""

    config: Config
    sources: Mapping[str, str]


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str]) -> Loaded:
    """The configuration. Raises ConfigError."""
    sources: dict[str, str] = {}
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read(file, environment)
        for path in _leaves(tree):
            sources[path] = str(file)
    for each in settings():
        for key, given, words_of in (("env", environment, "{}"), ("flag", flags, "--{}")):
            name = each.about[key]
            if name and name in given:
                _put(tree, each.path, given[name])
                sources[each.path] = words_of.format(name)
    config = _section(Config, tree, "", sources)
    _check(config)
    return Loaded(config, sources)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        else:
            yield path


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for each in above:
        tree = tree.setdefault(each, {})
    tree[name] = value


def _read(file: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    import yaml  # needs a tenth of a second, and not every start has a file

    try:
        text = file.read_text()
        for name, line in _given_twice(yaml.compose(text, yaml.SafeLoader)):
            raise ConfigError(f"{file}, line {line}: {name} is there twice")
        tree = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        place = f", line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"{file}{place}: this is not YAML") from error
    if tree is None:
        return {}
    expanded = _expand(tree, environment, str(file))
    if type(expanded) is not dict:
        raise ConfigError(f"{file}: sections are wanted, such as `server:`")
    return expanded


def _given_twice(node: Any) -> Iterator[tuple[str, int]]:
    """The keys of one mapping that are the same, of which YAML would take the last; their lines."""
    if node is None or type(node.value) is str:
        return
    seen: set[str] = set()
    for each in node.value:
        key, value = each if type(each) is tuple else (None, each)
        name = "" if key is None else str(key.value)
        if key is not None and name in seen:
            yield name, key.start_mark.line + 1
        seen.add(name)
        yield from _given_twice(value)


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(value: Any, environment: Mapping[str, str], where: str) -> Any:
    if type(value) is dict:
        return {str(name): _expand(each, environment, where) for name, each in value.items()}
    if type(value) is list:
        return [_expand(each, environment, where) for each in value]
    if type(value) is not str:
        return value

    def variable(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if name in environment:
            return environment[name]
        if default is None:
            raise ConfigError(f"{where}: there is no variable {name} for ${{{name}}}")
        return str(default)

    return _VARIABLE.sub(variable, value)


def _section(kind: type, tree: Any, path: str, sources: Mapping[str, str]) -> Any:
    if type(tree) is not dict:
        raise ConfigError(f"{path or 'the file'}: settings are wanted, such as `port: 8080`")
    fields = {each.name: each for each in dataclasses.fields(kind)}
    values = {}
    for name, value in tree.items():
        place = f"{path}.{name}" if path else name
        if name not in fields:
            raise ConfigError(f"{place} means nothing; there is {', '.join(fields)}")
        values[name] = _value(fields[name], value, place, sources)
    return kind(**values)


def _value(
    each: "dataclasses.Field[Any]", value: Any, place: str, sources: Mapping[str, str]
) -> Any:
    about = each.metadata
    if "section" in about:
        if not about["many"]:
            return _section(about["section"], value, place, sources)
        if type(value) is not list:
            raise ConfigError(f"{place}: a list is wanted")
        return tuple(
            _section(about["section"], one, f"{place}[{number}]", sources)
            for number, one in enumerate(value)
        )
    try:
        return about["kind"](value)
    except ValueError as error:
        source = sources.get(place, "")
        shown = "what is given" if about["secret"] else repr(value)
        raise ConfigError(f"{place} ({source}): {shown} is not valid: {error}") from error


def _check(config: Config) -> None:
    """See that the settings go together. Raises ConfigError."""
    has_redis = bool(config.redis.url or config.redis.addresses)
    if config.cluster.enabled and not has_redis:
        raise ConfigError("cluster.enabled: nodes find each other through Redis: set redis.url")
    is_shared = has_redis and config.cluster.enabled is not False
    for place, kind in (("cache.type", config.cache.type), ("session.store", config.session.store)):
        if kind == "redis" and not is_shared:
            raise ConfigError(f"{place} is redis, and there is none: set redis.url")
        if kind == "memory" and is_shared:
            raise ConfigError(f"{place} is memory, which other nodes cannot see")
    if config.database.url and config.database.primary.host:
        raise ConfigError("database.url and database.primary say the same: set one of them")
    if config.batch_processor.batch_size < 1 or config.batch_processor.max_concurrent < 1:
        raise ConfigError("batch_processor: batch_size and max_concurrent are at least 1")
    if config.ovn.max_connections < 3:
        text = "at least 3: for the Northbound, the Southbound and ovn-trace"
        raise ConfigError(f"ovn.max_connections: {text}")
    for side in (config.ovn.northbound, config.ovn.southbound):
        if not side.endpoints:
            raise ConfigError("ovn: northbound.endpoints and southbound.endpoints are wanted")


def explain(loaded: Loaded) -> str:
    """Every setting with its value, where that comes from, and what it is for."""
    lines = []
    for each in settings():
        value: Any = loaded.config
        for name in each.path.split("."):
            value = getattr(value, name)
        shown = "(set)" if each.about["secret"] and value else written(value)
        source = loaded.sources.get(each.path, "default")
        others = [f"${each.about['env']}"] if each.about["env"] else []
        others += [f"--{each.about['flag']}"] if each.about["flag"] else []
        also = f" [{', '.join(others)}]" if others else ""
        lines.append(f"{each.path} = {shown}\n    {each.about['help']}{also}; from {source}\n")
    for number, replica in enumerate(loaded.config.database.replicas):
        lines.append(f"database.replicas[{number}] = {replica}\n")
    return "".join(lines)


def written(value: Any) -> str:
    """A value as people write it."""
    if type(value) is tuple:
        return ",".join(value) or "(none)"
    if value is None or value == "":
        return "(none)"
    if type(value) is float:
        return _duration(value)
    return str(value).lower() if type(value) is bool else str(value)


def _duration(seconds: float) -> str:
    """A time in the largest unit of which it is a whole number."""
    for unit, size in sorted(_UNITS.items(), key=lambda each: -each[1]):
        n_units = seconds / size
        if seconds and n_units == int(n_units):
            return f"{n_units:.0f}{unit}"
    return f"{seconds:g}s"
