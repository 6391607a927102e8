"""Pages of rows: filtered, in an order, from where the last page ended."""

from collections.abc import Iterator
from typing import Any

import pytest

from platform_node import Node, names

N_PORTS = 25


@pytest.fixture(scope="module", autouse=True)
def rows(node: Node) -> None:
    ports = [
        {
            "name": f"p{number:02}",
            "tag": number or None,
            "type": "router" if number % 5 == 0 else "",
            "addresses": [f"00:00:00:00:00:{number:02x}", "unknown"][: 1 + number % 2],
            "external_ids": {"half": str(number % 2), f"only-{number}": "x"},
            "enabled": None if number % 3 == 0 else number % 3 == 1,
        }
        for number in range(N_PORTS)
    ]
    node.post("/switches", {"name": "s", "ports": ports})
    node.post("/switches", {"name": "other", "ports": [{"name": "q"}]})


def numbers(page: Any) -> list[int]:
    return [int(name[1:]) for name in names(page)]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("name=p07", [7]),
        ("name=none", []),
        ("type=router", [0, 5, 10, 15, 20]),
        ("type.ne=router&tag.lt=8", [1, 2, 3, 4, 6, 7]),
        ("tag=3", [3]),
        ("tag.ge=22", [22, 23, 24]),
        ("tag.gt=3&tag.le=5", [4, 5]),
        ("tag.empty=true", [0]),
        ("tag.empty=false&tag.lt=3", [1, 2]),
        ("tag.in=1,2,99", [1, 2]),
        ("name.like=p0[12]", [1, 2]),
        ("name.like=*9", [9, 19]),
        ("addresses=unknown&tag.lt=6", [1, 3, 5]),
        ("addresses.like=*:0?&addresses=unknown&tag.le=3", [1, 3]),
        ("enabled=true&tag.lt=9", [1, 4, 7]),
        ("external_ids.half=1&tag.lt=6", [1, 3, 5]),
        ("external_ids=only-4", [4]),
        ("external_ids.only-4=x", [4]),
        ("external_ids.only-4=y", []),
        ("q=only-7", [7]),
        ("q=:0a", [10]),
    ],
)
def test_filters(node: Node, query: str, wanted: list[int]) -> None:
    assert numbers(node.get(f"/switches/s/ports?{query}")) == wanted
    whole = [n for n in names(node.get(f"/switch-ports?{query}&limit=1000")) if n != "q"]
    assert [int(name[1:]) for name in whole] == wanted
    assert node.get(f"/switches/s/ports?{query}&count=true")["count"] == len(wanted)


def test_references_are_filtered_by_name(node: Node) -> None:
    node.post("/dhcp-options", {"cidr": "10.0.0.0/8"})
    (options,) = node.get("/dhcp-options")["items"]
    node.patch("/switch-ports/p03", {"dhcpv4_options": options["_uuid"]})
    assert numbers(node.get(f"/switch-ports?dhcpv4_options={options['_uuid']}")) == [3]
    assert names(node.get("/switches?ports=p03")) == ["s"]
    assert node.get("/switches?ports=nope", 422)["errors"][0]["rule"] == "reference"


def pages(node: Node, path: str) -> Iterator[Any]:
    """All pages of a list."""
    url = path
    while True:
        answer = node.client.get(url)
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if "next" not in answer.links:
            assert answer.json()["next"] is None
            return
        url = answer.links["next"]["url"].removeprefix("/api/v1")


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("name", lambda row: row["name"]),
        ("tag", lambda row: row["tag"] or 0),
        ("external_ids", lambda row: sorted(row["external_ids"].items())),
        ("addresses", lambda row: row["addresses"]),
        ("type,name", lambda row: (row["type"], row["name"])),
        ("type,-tag,name", lambda row: (row["type"], -(row["tag"] or 0), row["name"])),
        ("_uuid", lambda row: row["_uuid"]),
    ],
)
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("place", ["/switches/s/ports", "/switch-ports"])
def test_pages_hold_every_row_once_in_order(
    node: Node, sort: str, key: Any, sign: str, place: str
) -> None:
    spec = ",".join(f"{sign}{word}" for word in sort.split(",")).replace("--", "")
    found = list(pages(node, f"{place}?sort={spec}&limit=7"))
    rows = [row for page in found for row in page["items"] if row["name"] != "q"]
    assert [len(page["items"]) for page in found] == [7, 7, 7, len(found[-1]["items"])]
    assert len({row["_uuid"] for row in rows}) == N_PORTS
    assert [key(row) for row in rows] == sorted(map(key, rows), reverse=bool(sign))


def test_a_page_goes_on_where_the_last_one_ended(node: Node) -> None:
    first = node.get("/switch-ports?limit=5&name.like=p*")
    assert numbers(first) == [0, 1, 2, 3, 4]
    node.delete("/switch-ports/p04")
    node.post("/switches/s/ports", {"name": "p00b"})
    second = node.get(f"/switch-ports?limit=5&name.like=p*&cursor={first['next']}")
    assert numbers(second) == [5, 6, 7, 8, 9]
    node.delete("/switch-ports/p00b")
    node.post("/switches/s/ports", {"name": "p04", "tag": 4, "external_ids": {"half": "0"}})


def test_fields_are_chosen(node: Node) -> None:
    (row,) = node.get("/switch-ports?name=p07&fields=name,tag")["items"]
    assert row == {"name": "p07", "tag": 7}
    assert node.get("/switch-ports/p07?fields=tag") == {"tag": 7}


def test_how_old_what_is_served_is_is_said(node: Node) -> None:
    for path in ("/switches", "/switches/s"):
        assert 0 <= float(node.client.get(path).headers["ovn-age"]) < 60


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=" + 5000 * "9", "limit"),
        ("tag=" + 5000 * "9", "tag"),
        ("sort=nothing", "sort"),
        ("sort=", "sort"),
        ("fields=nothing", "fields"),
        ("cursor=x", "cursor"),
        ("cursor=WzFd", "cursor"),
        ("cursor=WyJuYW1lIiwxLDJd", "cursor"),
        ("nothing=x", "nothing"),
        ("tag=x", "tag"),
        ("tag.lt=x", "tag.lt"),
        ("tag.xx=1", "tag.xx"),
        ("tag.empty=x", "tag.empty"),
        ("ha_chassis_group=x", "ha_chassis_group"),
        ("_version=x", "_version"),
        ("count=x", "count"),
    ],
    ids=lambda text: text[:20],
)
def test_a_query_that_makes_no_sense_is_refused(node: Node, query: str, field: str) -> None:
    problem = node.get(f"/switch-ports?{query}", 422)
    assert [error["field"] for error in problem["errors"]] == [field]


def test_how_large_a_page_can_be_is_said(node: Node) -> None:
    rules = {"0": "minimum", "-1": "minimum", "1001": "maximum", 5000 * "9": "maximum"}
    rules |= {"1_0": "type", "": "type"}
    for limit, rule in rules.items():
        (error,) = node.get(f"/switch-ports?limit={limit}", 422)["errors"]
        assert error["rule"] == rule, limit
