"""`ovncp up` has a node of the platform beside its databases, which needs nothing else."""

from __future__ import annotations

import httpx

from engines import free_port
from interop.programs import wait_for
from interop.test_up import Up
from platform_figures import Figures


def test_it_has_probes_figures_pages_and_lines_for_people(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Up(tmp_path, "--no-northd", f"--api-port={port}") as up:
        assert f"API         {url}/docs" in up.output
        wait_for(lambda: httpx.get(f"{url}/health/ready").status_code == 200, "the node")
        # There is no further port, on which two of them would clash.
        assert Figures.at(f"{url}/metrics").sum("ovncp_cluster_node_info") == 1
        assert "metrics at" not in up.output
        page = httpx.get(url, follow_redirects=True)
        assert page.url == f"{url}/docs" and page.status_code == 200
        answer = httpx.post(f"{url}/api/v1/switches", json={"name": "s"})
        assert answer.status_code == 201
        logged = f"api     POST /api/v1/switches: 201 [{answer.headers['x-request-id']}]"
        wait_for(lambda: logged in up.output, logged)
        assert up.stop() == 0
