"""`ovncp up` has a node of the platform beside its databases, which stands in nobody's way."""

from __future__ import annotations

import httpx

from engines import free_port
from interop.programs import wait_for
from interop.test_up import Up
from platform_figures import Figures


def test_two_of_them_run_on_one_machine(tmp_path):
    places = []
    for name in "ab":
        (tmp_path / name).mkdir()
        places.append((tmp_path / name, free_port()))
    (home, port), (other_home, other_port) = places
    with (
        Up(home, "--no-northd", f"--api-port={port}") as up,
        Up(other_home, "--no-northd", f"--api-port={other_port}") as other,
    ):
        for each, where in ((up, port), (other, other_port)):
            url = f"http://127.0.0.1:{where}"
            assert f"API         {url}/docs" in each.output
            wait_for(
                lambda url=url: httpx.get(f"{url}/health/ready").status_code == 200, "the node"
            )
            assert Figures.at(f"{url}/metrics").sum("ovncp_cluster_node_info") == 1
            page = httpx.get(url, follow_redirects=True)
            assert page.url == f"{url}/docs" and page.status_code == 200
            answer = httpx.post(f"{url}/api/v1/switches", json={"name": "s"})
            assert answer.status_code == 201
            logged = f"POST /api/v1/switches: 201 [{answer.headers['x-request-id']}]"
            wait_for(lambda each=each, logged=logged: logged in each.output, logged)
        assert (up.stop(), other.stop()) == (0, 0)
