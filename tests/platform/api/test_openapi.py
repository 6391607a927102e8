"""The description of the interface, and whether the interface is as described."""

import os
import re
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings

from ovncp.ovn.resources import RESOURCES
from platform_node import Node

CASES = int(os.environ.get("API_CASES", "6"))
"""How many requests are made of each operation."""


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


def test_nothing_that_is_asked_makes_the_server_fail(node: Node) -> None:
    """What is described is asked, with values that fit and with some that do not."""
    node.post("/switches", {"name": "0", "ports": [{"name": "0"}]})
    node.post("/routers", {"name": "0"})
    node.post("/port-groups", {"name": "0"})
    schema = schemathesis.openapi.from_url(f"{node.url}/openapi.json")
    schema.config.update(base_url=node.url)

    n_asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if not operation.path.startswith("/api/v1") or operation.path.endswith("/events"):
            continue

        @settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            nonlocal n_asked
            n_asked += 1
            answer = case.call(timeout=20)
            assert answer.status_code < 500, f"{case.as_curl_command()}: {answer.text}"

        ask()
    assert n_asked > 500
    assert "Traceback" not in node.log
