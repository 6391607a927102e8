"""A node's configuration: file, environment, flags, and what is said of what makes no sense."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ovncp.auth.principal import Role
from ovncp.auth.settings import AuthSettings, OidcSettings
from ovncp.cli import check_config, config, parts
from ovncp.cli.config import Config, ConfigError, load
from ovncp.cluster.rates import Limit
from ovncp.cluster.settings import RedisSettings
from servers import OVNCP


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def value(loaded: config.Loaded, path: str) -> Any:
    found: Any = loaded.config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def test_later_sources_override_earlier_ones(file: Any) -> None:
    path = file("server:\n  port: 1001\n  host: ::1\ncluster:\n  heartbeat_interval: 2s\n")
    loaded = load(path, {}, {})
    assert value(loaded, "server.port") == 1001
    loaded = load(path, {"NODE_PORT": "1002"}, {})
    assert value(loaded, "server.port") == 1002
    loaded = load(path, {"NODE_PORT": "1002"}, {"port": "1003"})
    assert value(loaded, "server.port") == 1003
    assert (value(loaded, "server.host"), value(loaded, "cluster.heartbeat_interval")) == (
        "::1",
        2.0,
    )
    assert loaded.sources["server.port"] == "--port"
    assert loaded.sources["server.host"] == str(path)
    assert load(None, {}, {}).config == config.Config()


def test_the_whole_of_a_file_is_read(file: Any) -> None:
    path = file("""
database:
  primary: {host: db-1, port: 5433, database: net, user: me, password: "${DB_PASSWORD}"}
  replicas:
    - host: db-2
    - host: ${SECOND:-db-3}
  connection_max_lifetime: 30m
ovn:
  northbound:
    endpoints: ["tcp:10.0.0.1:6641", "tcp:10.0.0.2:6641"]
  southbound:
    endpoints: tcp:10.0.0.1:6642, tcp:10.0.0.2:6642
  connection_timeout: 250ms
redis:
  addresses: ["r1:6379"]
  cluster_mode: yes
batch_processor:
  batch_timeout: 0.05
""")
    loaded = load(path, {"DB_PASSWORD": "a: b"}, {})
    database = loaded.config.database
    assert (database.primary.host, database.primary.password) == ("db-1", "a: b")
    assert [replica.host for replica in database.replicas] == ["db-2", "db-3"]
    assert (database.replicas[0].port, database.connection_max_lifetime) == (5432, 1800.0)
    assert loaded.config.ovn.northbound.endpoints == ("tcp:10.0.0.1:6641", "tcp:10.0.0.2:6641")
    assert loaded.config.ovn.southbound.endpoints == ("tcp:10.0.0.1:6642", "tcp:10.0.0.2:6642")
    assert loaded.config.ovn.connection_timeout == 0.25
    assert loaded.config.redis.cluster_mode is True
    assert loaded.config.batch_processor.batch_timeout == 0.05
    assert "a: b" not in repr(loaded.config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server:\n  prot: 1\n", "server.prot means nothing; there is host, port"),
        ("sever:\n  port: 1\n", "sever means nothing"),
        ("server: 8080\n", "server: settings are wanted"),
        ("server:\n  port: 70000\n", "up to 65535"),
        ("server:\n  port: [1]\n", "server.port"),
        ("cluster:\n  node_timeout: 5 parsecs\n", "such as 100ms, 5s"),
        ("cluster:\n  enabled: perhaps\n", "true or false"),
        ("cluster:\n  enabled: true\n", "set redis.url"),
        ("cache:\n  type: disk\n", "one of auto, memory, redis"),
        ("cache:\n  type: redis\n", "there is none"),
        ("session:\n  store: memory\nredis:\n  url: redis://r\n", "other nodes cannot see"),
        ("database:\n  replicas: {host: a}\n", "a list is wanted"),
        ("database:\n  replicas:\n    - hots: a\n", "database.replicas[0].hots means nothing"),
        ("database:\n  url: postgresql://x\n  primary: {host: y}\n", "say the same"),
        ("ovn:\n  northbound:\n    endpoints: []\n", "are wanted"),
        ("server:\n  host: ${NOWHERE}\n", "there is no variable NOWHERE"),
        ("ovn:\n  max_connections: 2\n", "at least 3"),
        ("server:\n  port: 1\n  host: a\n  port: 2\n", "line 4: port is there twice"),
        ("database:\n  replicas:\n    - {host: a, host: b}\n", "line 3: host is there twice"),
        ("server: {\n", "line 2: this is not YAML"),
        ("- a\n", "sections are wanted"),
    ],
)
def test_what_makes_no_sense_is_said(file: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(file(text), {}, {})
    assert said in str(raised.value)


def test_secrets_are_not_shown(file: Any) -> None:
    path = file("redis:\n  password: [hidden]\n")
    with pytest.raises(ConfigError) as raised:
        load(path, {}, {})
    assert "hidden" not in str(raised.value)
    loaded = load(None, {"REDIS_URL": "redis://:hidden@r", "DATABASE_URL": "postgresql://h@d"}, {})
    explained = config.explain(loaded)
    assert "hidden" not in explained and "h@d" not in explained
    assert "redis.url = (set)" in explained and "from REDIS_URL" in explained


def test_check_config_explains_every_setting(tmp_path: Path) -> None:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [OVNCP, "check-config", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", **env},
            check=False,
        )

    done = run(NODE_ID="n-7", OVN_NB_DB="tcp:10.1.1.1:6641,tcp:10.1.1.2:6641")
    assert done.returncode == 0, done.stderr
    assert "cluster.node_id = n-7" in done.stdout and "from NODE_ID" in done.stdout
    assert "tcp:10.1.1.1:6641,tcp:10.1.1.2:6641" in done.stdout
    for each in config.settings():
        assert f"{each.path} = " in done.stdout
    (tmp_path / "config.yaml").write_text("server:\n  nothing: 1\n")
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ovncp check-config: server.nothing means nothing")


@pytest.mark.parametrize(("bad", "said"), [("nonsense", "nonsense"), ("ptcp:1", "to connect to")])
def test_check_config_finds_what_no_part_can_be_made_of(
    bad: str, said: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_config.main([f"--nb={bad}"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err


def imported(module: str) -> set[str]:
    """The names of all that is imported with a module."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    return set(done.stdout.decode().split())


def test_what_is_not_needed_is_not_imported() -> None:
    """It would take most of the time of a start, or of a verb."""
    of_accounts = {"alembic", "httpx", "jwt", "sqlalchemy"}
    of_a_node = {"fastapi", "pydantic", "starlette", "uvicorn"}
    assert imported("ovncp.cli.check_config").isdisjoint(of_a_node | of_accounts)
    assert imported("ovncp.cli.set_password") & (of_a_node | of_accounts) == {"sqlalchemy"}
    assert imported("ovncp.cli.api_node") & (of_a_node | of_accounts) == of_a_node


PROMISED = """
    NODE_ID NODE_HOSTNAME NODE_IP NODE_PORT ENABLE_CLUSTERING CLUSTER_HEARTBEAT_INTERVAL
    CLUSTER_NODE_TIMEOUT REDIS_URL REDIS_CLUSTER_MODE REDIS_SENTINEL_MASTER REDIS_SENTINEL_NODES
    SESSION_STORE_TYPE SESSION_TTL SESSION_CLEANUP_INTERVAL OVN_MAX_CONNECTIONS
    DB_MAX_OPEN_CONNECTIONS DB_MAX_IDLE_CONNECTIONS REDIS_POOL_SIZE CACHE_TYPE CACHE_KEY_PREFIX
    DATABASE_URL
"""


def test_every_variable_that_is_promised_is_known() -> None:
    assert set(PROMISED.split()) <= {each.about["env"] for each in config.settings()}


def redis(given: Config) -> RedisSettings:
    found = parts.cluster_settings(given).redis
    assert found is not None
    return found


def auth(given: Config) -> AuthSettings:
    found = parts.account_settings(given)
    assert found is not None
    return found


def oidc(given: Config) -> OidcSettings:
    found = auth(given).oidc
    assert found is not None
    return found


def remotes(given: Config, side: str) -> list[str]:
    return [
        endpoint.text for endpoint in parts.endpoints(given, getattr(given.ovn, side).endpoints)
    ]


REDIS = {"redis": {"addresses": ["r:1"]}}
PRIMARY = {"database": {"primary": {"host": "db", "password": "p"}}}
USERS = {"auth": {"mode": "users"}}
OIDC = {"auth": {"mode": "users", "oidc": {"issuer": "https://i", "client_id": "c"}}}

# Of each setting: what else has to be set, two values as texts, what becomes of them in the part
# that is configured, and how that is looked at.
EFFECTS: dict[str, tuple[dict[str, Any], tuple[str, str], tuple[Any, Any], Any]] = {
    "server.host": ({}, ("127.0.0.2", "::1"), ("127.0.0.2", "::1"), lambda c: c.server.host),
    "server.port": ({}, ("81", "82"), (81, 82), lambda c: parts.cluster_settings(c).port),
    "server.trusted_proxies": (
        {}, ("10.0.0.1", "10.0.0.0/8, ::1"), (("10.0.0.1",), ("10.0.0.0/8", "::1")),
        lambda c: c.server.trusted_proxies,
    ),
    "server.request_timeout": ({}, ("5s", "1m"), (5.0, 60.0), lambda c: c.server.request_timeout),
    "server.metrics_port": ({}, ("83", "none"), (83, None), lambda c: c.server.metrics_port),
    "cluster.enabled": (
        REDIS, ("false", "true"), (True, False), lambda c: parts.cluster_settings(c).redis is None
    ),
    "cluster.node_id": ({}, ("a", "b"), ("a", "b"), lambda c: parts.cluster_settings(c).node_id),
    "cluster.node_hostname": (
        {}, ("a", "b"), ("a", "b"), lambda c: parts.cluster_settings(c).hostname
    ),
    "cluster.node_ip": ({}, ("::1", "::2"), ("::1", "::2"), lambda c: parts.cluster_settings(c).ip),
    "cluster.heartbeat_interval": (
        {}, ("100ms", "2s"), (0.1, 2.0), lambda c: parts.cluster_settings(c).heartbeat_s
    ),
    "cluster.node_timeout": (
        {}, ("1m", "2h"), (60.0, 7200.0), lambda c: parts.cluster_settings(c).node_timeout_s
    ),
    "redis.url": (
        {}, ("redis://u:p@a", "rediss://b:2/3"),
        ((("a:6379",), "u", "p", 0, False), (("b:2",), None, None, 3, True)),
        lambda c: (
            redis(c).addresses, redis(c).username, redis(c).password, redis(c).database,
            redis(c).tls,
        ),
    ),
    "redis.addresses": (
        {}, ("a:1", "a:1,b:2"), (("a:1",), ("a:1", "b:2")), lambda c: redis(c).addresses
    ),
    "redis.password": (REDIS, ("a", "b"), ("a", "b"), lambda c: redis(c).password),
    "redis.cluster_mode": (REDIS, ("true", "false"), (True, False), lambda c: redis(c).cluster),
    "redis.sentinel_master": (REDIS, ("a", "b"), ("a", "b"), lambda c: redis(c).sentinel_master),
    "redis.pool_size": (REDIS, ("3", "4"), (3, 4), lambda c: redis(c).pool_size),
    "redis.max_retries": (REDIS, ("0", "7"), (0, 7), lambda c: redis(c).max_retries),
    "redis.dial_timeout": (REDIS, ("1s", "2s"), (1.0, 2.0), lambda c: redis(c).dial_timeout_s),
    "redis.read_timeout": (REDIS, ("1s", "2s"), (1.0, 2.0), lambda c: redis(c).read_timeout_s),
    "redis.write_timeout": (REDIS, ("1s", "2s"), (1.0, 2.0), lambda c: redis(c).write_timeout_s),
    "database.url": (
        {}, ("sqlite:///a", "postgresql://a/b"), ("sqlite:///a", "postgresql://a/b"),
        lambda c: auth(c).database.primary,
    ),
    "database.primary.host": (
        {}, ("a", "b"), ("postgresql://ovncp@a:5432/ovncp", "postgresql://ovncp@b:5432/ovncp"),
        lambda c: auth(c).database.primary,
    ),
    "database.primary.port": (
        PRIMARY, ("1", "2"), ("postgresql://ovncp:p@db:1/ovncp", "postgresql://ovncp:p@db:2/ovncp"),
        lambda c: auth(c).database.primary,
    ),
    "database.primary.database": (
        PRIMARY, ("a", "b"), ("postgresql://ovncp:p@db:5432/a", "postgresql://ovncp:p@db:5432/b"),
        lambda c: auth(c).database.primary,
    ),
    "database.primary.user": (
        PRIMARY, ("a", "b"), ("postgresql://a:p@db:5432/ovncp", "postgresql://b:p@db:5432/ovncp"),
        lambda c: auth(c).database.primary,
    ),
    "database.primary.password": (
        PRIMARY, ("a@", "b"),
        ("postgresql://ovncp:a%40@db:5432/ovncp", "postgresql://ovncp:b@db:5432/ovncp"),
        lambda c: auth(c).database.primary,
    ),
    "database.max_open_connections": (
        PRIMARY, ("9", "8"), (9, 8), lambda c: auth(c).database.max_open
    ),
    "database.max_idle_connections": (
        PRIMARY, ("9", "8"), (9, 8), lambda c: auth(c).database.max_idle
    ),
    "database.connection_max_lifetime": (
        PRIMARY, ("30m", "1h"), (1800.0, 3600.0), lambda c: auth(c).database.lifetime_s
    ),
    "ovn.northbound.endpoints": (
        {}, ("tcp:a:1", "tcp:a:1,unix:b"), (["tcp:a:1"], ["tcp:a:1", "unix:b"]),
        lambda c: remotes(c, "northbound"),
    ),
    "ovn.southbound.endpoints": (
        {}, ("tcp:a:1", "tcp:a:1,unix:b"), (["tcp:a:1"], ["tcp:a:1", "unix:b"]),
        lambda c: remotes(c, "southbound"),
    ),
    "ovn.max_connections": ({}, ("3", "20"), (1, 4), parts.traces_at_once),
    "ovn.connection_timeout": (
        {}, ("1s", "2s"), (1.0, 2.0), lambda c: c.ovn.connection_timeout
    ),
    "ovn.private_key": ({}, ("a", "b"), ("a", "b"), lambda c: c.ovn.private_key),
    "ovn.certificate": ({}, ("a", "b"), ("a", "b"), lambda c: c.ovn.certificate),
    "ovn.ca_cert": ({}, ("a", "b"), ("a", "b"), lambda c: c.ovn.ca_cert),
    "cache.type": (REDIS, ("auto", "redis"), ("auto", "redis"), lambda c: c.cache.type),
    "cache.key_prefix": (REDIS, ("a:", "b:"), ("a:", "b:"), lambda c: redis(c).prefix),
    "cache.entries": ({}, ("1", "2"), (1, 2), lambda c: parts.cluster_settings(c).cache_entries),
    "session.store": (REDIS, ("auto", "redis"), ("auto", "redis"), lambda c: c.session.store),
    "session.ttl": (
        {}, ("10m", "1h"), (600.0, 3600.0), lambda c: parts.cluster_settings(c).session_ttl_s
    ),
    "session.cleanup_interval": (
        {}, ("1s", "2s"), (1.0, 2.0), lambda c: parts.cluster_settings(c).session_cleanup_s
    ),
    "batch_processor.batch_size": ({}, ("1", "2"), (1, 2), lambda c: parts.grouping(c).size),
    "batch_processor.batch_timeout": (
        {}, ("1ms", "2s"), (0.001, 2.0), lambda c: parts.grouping(c).timeout_s
    ),
    "batch_processor.max_concurrent": (
        {}, ("1", "2"), (1, 2), lambda c: parts.grouping(c).max_concurrent
    ),
    "auth.mode": (
        {}, ("users", "open"), (False, True), lambda c: parts.account_settings(c) is None
    ),
    "auth.session_ttl": (USERS, ("1h", "1d"), (3600.0, 86400.0), lambda c: auth(c).session_s),
    "auth.requests_per_minute": (
        USERS, ("1", "2"), (Limit(1, 60.0), Limit(2, 60.0)), lambda c: auth(c).user_limit
    ),
    "auth.address_requests_per_minute": (
        USERS, ("1", "2"), (Limit(1, 60.0), Limit(2, 60.0)), lambda c: auth(c).address_limit
    ),
    "auth.failed_logins": (
        USERS, ("1", "2"), ((1, 10), (2, 20)),
        lambda c: (auth(c).login_limit.n, auth(c).address_login_limit.n),
    ),
    "auth.audit_retention": (
        USERS, ("1d", "2d"), (86400.0, 172800.0), lambda c: auth(c).audit_kept_s
    ),
    "auth.oidc.issuer": (OIDC, ("https://a", "https://b"), ("https://a", "https://b"),
                         lambda c: oidc(c).issuer),
    "auth.oidc.client_id": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).client_id),
    "auth.oidc.client_secret": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).client_secret),
    "auth.oidc.audience": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).audience),
    "auth.oidc.redirect_url": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).redirect_url),
    "auth.oidc.name_claim": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).name_claim),
    "auth.oidc.groups_claim": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).groups_claim),
    "auth.oidc.roles": (OIDC, ("g=admin", "g=viewer"), ({"g": Role.ADMIN}, {"g": Role.VIEWER}),
                        lambda c: oidc(c).roles),
    "auth.oidc.tenants": (
        OIDC, ("g=t:admin", "g=u:viewer"), ({"g": ("t", Role.ADMIN)}, {"g": ("u", Role.VIEWER)}),
        lambda c: oidc(c).tenants,
    ),
    "auth.oidc.ca_cert": (OIDC, ("a", "b"), ("a", "b"), lambda c: oidc(c).ca_file),
    "log.level": ({}, ("debug", "error"), ("debug", "error"), lambda c: c.log.level),
    "log.format": ({}, ("text", "json"), ("text", "json"), lambda c: c.log.format),
}  # fmt: skip


def test_there_is_an_effect_of_every_setting() -> None:
    assert [each.path for each in config.settings() if each.path not in EFFECTS] == []


@pytest.mark.parametrize("path", EFFECTS)
def test_each_setting_has_its_effect_wherever_it_is_set(file: Any, path: str) -> None:
    """In the file, and by the variable and the flag that there are, each over those before."""
    others, texts, effects, look = EFFECTS[path]
    (about,) = (each.about for each in config.settings() if each.path == path)

    def written(text: str) -> Path:
        tree = copy.deepcopy(others)
        put(tree, path, text)
        return file(yaml.safe_dump(tree))

    for text, effect in zip(texts, effects, strict=True):
        assert look(load(written(text), {}, {}).config) == effect
        assert look(load(written(f"${{THAT:-{text}}}"), {}, {}).config) == effect
        if about["env"]:
            found = load(written(texts[0]), {about["env"]: text}, {})
            assert look(found.config) == effect and found.sources[path] == about["env"]
        if about["flag"]:
            env = {about["env"]: texts[0]} if about["env"] else {}
            found = load(written(texts[0]), env, {about["flag"]: text})
            assert look(found.config) == effect and found.sources[path] == f"--{about['flag']}"
        shown = config.explain(load(written(text), {}, {}))
        assert not about["secret"] or f"= {text}\n" not in shown
        assert f"\n{path} = " in f"\n{shown}"


def put(tree: dict[str, Any], path: str, value: str) -> None:
    *above, name = path.split(".")
    for each in above:
        tree = tree.setdefault(each, {})
    tree[name] = value


def test_replicas_of_the_database_are_used_for_reading(file: Any) -> None:
    path = file("database: {url: postgresql://a/b, replicas: [{host: c, password: hush}]}\n")
    loaded = load(path, {}, {})
    assert auth(loaded.config).database.replicas == ("postgresql://ovncp:hush@c:5432/ovncp",)
    assert "hush" not in config.explain(loaded) and "database.replicas[0]" in config.explain(loaded)
