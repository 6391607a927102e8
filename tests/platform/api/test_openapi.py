"""The description of the interface, and whether the interface is as described."""

import os
import re
from collections.abc import Callable
from typing import Any
from zlib import crc32

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import data, sampled_from
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from engines import Postgres, shared
from ovncp.ovn.resources import BY_NAME, RESOURCES
from platform_node import Node, databases
from servers import Server

CASES = int(os.environ.get("API_CASES", "2"))
"""How many requests are made of each operation."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
ENDLESS = ("/events", "/logout")
"""What is answered for ever, or ends what is shown to be let in."""


def described(node: Node) -> Any:
    answer = node.client.get(f"{node.url}/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def test_every_resource_is_described(node: Node) -> None:
    description = described(node)
    assert description["openapi"] == "3.1.0"
    schemas = description["components"]["schemas"]
    for resource in RESOURCES:
        path = f"/api/v1/{resource.name}"
        methods = {"get"} if resource.is_read_only else {"get", "patch", "delete"}
        assert methods == description["paths"][f"{path}/{{row}}"].keys() - {"parameters"}
        assert ("post" in description["paths"][path]) == (
            not resource.parents and not resource.is_read_only
        )
        for parent in resource.parents:
            nested = f"/api/v1/{parent.resource}/{{parent}}/{parent.path}"
            assert {"get", "post"} <= description["paths"][nested].keys()
    acl = schemas["NewAcls"]
    assert acl["required"] == ["action", "direction"]
    assert acl["properties"]["priority"] == {"type": "integer", "minimum": 0, "maximum": 32767}
    assert acl["additionalProperties"] is False
    assert "from-lport" in acl["properties"]["direction"]["enum"]


def test_operations_have_names_of_their_own_and_say_who_may(node: Node) -> None:
    operations = [
        operation
        for path in described(node)["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))


def test_the_pages_load_nothing_from_elsewhere(node: Node) -> None:
    page = node.client.get(f"{node.url}/docs")
    assert page.headers["content-type"].startswith("text/html")
    found = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(found) == 4
    for link in found:
        assert not re.match(r"[a-z]*:|//", link)
        assert node.client.get(f"{node.url}/{link}").status_code == 200
    assert node.client.get(f"{node.url}/docs/nothing.js").status_code == 404


def conforms(node: Node, wanted: Callable[[str], bool], n_cases: int, **headers: str) -> int:
    """Ask the operations at the paths that are `wanted`; how often.

    Each gets values that fit and some that do not; it does not fail, and answers as described.
    """
    schema = schemathesis.openapi.from_url(f"{node.url}/openapi.json")
    schema.config.update(base_url=node.url)
    n_asked = 0

    @settings(
        max_examples=n_cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=data())
    def ask(operation: Any, data: Any) -> None:
        nonlocal n_asked
        mode = data.draw(sampled_from(list(GenerationMode)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        n_asked += 1
        answer = case.call(session=session, timeout=20, headers=headers)
        case.validate_response(answer, checks=CHECKS)

    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            if wanted(operation.path) and not operation.path.endswith(ENDLESS):
                ask(operation)
    assert '"level":"error"' not in node.log
    return n_asked


def is_of_a_resource(path: str) -> bool:
    return path.split("/")[3:4] != [] and path.split("/")[3] in BY_NAME


def test_answers_are_as_described(node: Node, server: Server) -> None:
    """Half of the operations in front of either kind of server."""
    node.post("/switches", {"name": "0", "ports": [{"name": "0"}]})
    node.post("/routers", {"name": "0"})
    node.post("/port-groups", {"name": "0"})
    half = server.kind == "c"
    assert conforms(node, lambda path: crc32(path.encode()) % 2 == half, CASES) > 150


def test_answers_about_accounts_are_as_described() -> None:
    """With the accounts in PostgreSQL, which takes less than SQLite does."""
    postgres = shared("postgresql")
    assert isinstance(postgres, Postgres)
    postgres.sql("CREATE DATABASE described ENCODING 'UTF8' TEMPLATE template0")
    env = {**os.environ, "DATABASE_URL": f"postgresql://ovncp@{postgres.host}/described"}
    with databases("ovncp") as server, Node(server.remote, server.remote, env=env) as node:
        headers = {"Authorization": f"Bearer {log_in(node)}"}
        node.client.headers.update(headers)
        description = described(node)
        assert description["security"] == [{"bearer": []}, {"basic": []}, {"cookie": []}]
        assert description["paths"]["/api/v1/login"]["post"]["security"] == []
        node.post("/tenants", {"id": "0"})
        node.post("/users", {"name": "0", "role": "viewer"})
        n_asked = conforms(node, lambda path: not is_of_a_resource(path), 2 * CASES, **headers)
        assert n_asked > 40
        node.get("/me")


def log_in(node: Node) -> str:
    """The token of the first user, whose password is printed."""
    assert node.process.stdout is not None
    line = ""
    while not line.startswith("The first user"):
        line = node.process.stdout.readline().decode()
    body = {"name": "admin", "password": line.split()[-1]}
    token: str = node.post("/login", body, 200)["token"]
    return token
