"""The files in deploy/, as the programs that read them see them, and against what a node has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import kubernetes_validate
import pytest
import yaml

from interop.programs import wait_for
from ovncp.cli import api_node, config
from platform_figures import Figures

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
NODES = ("node1", "node2", "node3")
KUBERNETES = ("1.29", "1.32", "1.37")
"""Some of the versions whose schemas there are."""

ENVIRONMENT = {each.about["env"] for each in config.settings() if each.about["env"]}
"""The variables that a node knows."""


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents(path):
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


@pytest.fixture(scope="module")
def known(node):
    """The names of what it shows at /metrics."""
    return Figures.at(node.metrics_url).names()


def labels_of_figures():
    """The labels that each figure has, by docs/platform.md, which is held against a node."""
    text = (ROOT / "docs" / "platform.md").read_text()
    rows = re.findall(r"^\| `(ovncp_\w+)` \| \w+ \| (.*?) \|", text, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def check_expressions(expressions, known):
    """See that a node has all the figures, and these all the labels, that expressions are about."""
    figures = labels_of_figures()
    for text in expressions:
        names = re.findall(r"\bovncp_\w+", text)
        assert set(names) <= known, text
        bases = [re.sub(r"_(bucket|sum|count)$", "", name) for name in names]
        has = {"instance", "job", "le"}.union(*(figures.get(n, set()) for n in (*names, *bases)))
        grouped = re.findall(r"\bby \(([^)]*)\)", text)
        matched = re.findall(r"(\w+)\s*[!=]~?\s*\"", text)
        wanted = {label.strip() for each in grouped for label in each.split(",")} | set(matched)
        assert wanted <= has, f"{sorted(wanted - has)} in {text}"


class TestLoadBalancers:
    def test_haproxy_takes_its_file(self):
        text = run("haproxy", "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg")
        assert "Configuration file is valid" in text

    def test_nginx_takes_its_file(self, tmp_path):
        text = (DEPLOY / "nginx" / "nginx.conf").read_text()
        for node in NODES:
            text = text.replace(f"server {node}:8080", "server 127.0.0.1:1")
        (tmp_path / "nginx.conf").write_text(text.replace("/tmp/nginx", f"{tmp_path}/nginx"))
        said = run("nginx", "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf")
        assert "test is successful" in said and "[warn]" not in said


class TestPrometheus:
    def test_it_takes_its_files(self, tmp_path):
        shutil.copytree(DEPLOY / "prometheus", tmp_path, dirs_exist_ok=True)
        run("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)
        run("promtool", "check", "rules", "alerts.yml", cwd=tmp_path)
        shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
        assert "SUCCESS" in run("promtool", "test", "rules", "alerts_test.yml", cwd=tmp_path)

    def test_a_node_has_the_figures_that_alerts_are_about(self, known):
        (rules,) = [
            g["rules"] for g in documents(DEPLOY / "prometheus" / "alerts.yml")[0]["groups"]
        ]
        check_expressions([rule["expr"] for rule in rules], known)
        for rule in rules:
            assert {"summary"} <= rule["annotations"].keys()
            assert rule["labels"]["severity"] in ("warning", "critical")


class TestGrafana:
    def test_a_node_has_the_figures_of_the_dashboard(self, known):
        dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
        panels = dashboard["panels"]
        shown = [panel for panel in panels if panel["type"] != "row"]
        for panel in shown:
            assert panel["targets"] and panel["datasource"]["uid"] == "${source}"
        expressions = [target["expr"] for panel in shown for target in panel["targets"]]
        check_expressions(expressions, known)
        for subject in ("cluster", "sessions", "distributed_lock", "cache"):
            assert any(f"ovncp_{subject}" in text for text in expressions)
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [tuple(panel["gridPos"].values()) for panel in panels]
        assert all(x + w <= 24 for x, _, w, _ in places)
        assert len({(x, y) for x, y, _, _ in places}) == len(panels)

    def test_its_expressions_are_promql(self, tmp_path):
        dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
        expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
        rules = [
            {"record": f"r{number}", "expr": text.replace("$__rate_interval", "1m")}
            for number, text in enumerate(expressions)
        ]
        (tmp_path / "rules.yml").write_text(
            yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]})
        )
        run("promtool", "check", "rules", tmp_path / "rules.yml")

    def test_compose_has_it_find_its_files(self):
        provisioning = DEPLOY / "grafana" / "provisioning"
        (source,) = documents(provisioning / "datasources" / "prometheus.yml")[0]["datasources"]
        assert source["url"] == "http://prometheus:9090"
        (provider,) = documents(provisioning / "dashboards" / "ovncp.yml")[0]["providers"]
        compose = (DEPLOY / "compose" / "compose.yaml").read_text()
        assert f"dashboard.json:{provider['options']['path']}/" in compose


class TestCompose:
    @pytest.fixture
    def compose(self):
        return yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())

    def test_compose_takes_its_file(self, compose, tmp_path):
        del compose["name"]  # Debian's is older than that.
        (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
        wanted = {"OVN_NB_DB": "tcp:1:1", "OVN_SB_DB": "tcp:1:2", "POSTGRES_PASSWORD": "word"}
        command = ("docker-compose", "-f", tmp_path / "compose.yaml", "config")
        read = yaml.safe_load(run(*command, env=os.environ | wanted))
        environment = read["services"]["node2"]["environment"]
        assert environment["DATABASE_URL"] == "postgresql://ovncp:word@postgres:5432/ovncp"
        for left_out in wanted:
            given = {name: value for name, value in wanted.items() if name != left_out}
            done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True)
            assert done.returncode and "Missing mandatory value" in done.stderr

    def test_its_parts_refer_to_what_is_there(self, compose):
        services = compose["services"]
        assert {*NODES, "nginx", "redis", "postgres"} <= services.keys()
        for name, service in services.items():
            for other in service.get("depends_on", ()):
                assert other in services, name
            assert set(service["networks"]) <= compose["networks"].keys()
            for volume in service.get("volumes", ()):
                source = volume.partition(":")[0]
                if source.startswith("."):
                    assert (DEPLOY / "compose" / source).exists(), volume
                else:
                    assert source in compose["volumes"]
        assert (ROOT / compose["services"]["node1"]["build"]["dockerfile"]).exists()

    def test_nodes_are_told_what_they_know(self, compose):
        services = compose["services"]
        for name in NODES:
            environment = services[name]["environment"]
            assert environment["NODE_ID"] == environment["NODE_IP"] == name
            assert environment.keys() <= ENVIRONMENT
        assert services["redis"]["command"][1:] == [
            "--appendonly", "yes", "--maxmemory-policy", "noeviction",
        ]  # fmt: skip

    def test_load_balancers_know_the_same_nodes(self):
        for file in ("haproxy/haproxy.cfg", "nginx/nginx.conf"):
            named = set(re.findall(r"\b(node\d):8080", (DEPLOY / file).read_text()))
            assert named == set(NODES)


class TestKubernetes:
    @pytest.fixture
    def objects(self):
        folder = DEPLOY / "kubernetes"
        (kustomization,) = documents(folder / "kustomization.yaml")
        files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(kustomization["resources"]) == files
        found = [each for name in kustomization["resources"] for each in documents(folder / name)]
        return {(each["kind"], each["metadata"]["name"]): each for each in found}

    @pytest.fixture
    def pod(self, objects):
        return objects["Deployment", "ovncp"]["spec"]["template"]

    @pytest.mark.parametrize("version", KUBERNETES)
    def test_objects_are_what_kubernetes_takes(self, objects, version):
        for each in objects.values():
            assert kubernetes_validate.validate(each, version, strict=True) == version

    def test_kubectl_puts_them_together(self, objects):
        built = list(yaml.safe_load_all(run("kubectl", "kustomize", DEPLOY / "kubernetes")))
        assert {(each["kind"], each["metadata"]["name"]) for each in built} == objects.keys()
        assert {each["metadata"]["namespace"] for each in built} == {"ovncp"}

    def test_all_that_was_asked_for_is_there(self, objects, pod):
        kinds = {kind for kind, _ in objects}
        assert kinds >= {
            "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy",
        }  # fmt: skip
        assert pod["spec"]["affinity"]["podAntiAffinity"]

    def test_selectors_choose_the_pods(self, objects, pod):
        labels = pod["metadata"]["labels"]
        selectors = [
            objects["Deployment", "ovncp"]["spec"]["selector"]["matchLabels"],
            objects["Service", "ovncp"]["spec"]["selector"],
            objects["PodDisruptionBudget", "ovncp"]["spec"]["selector"]["matchLabels"],
            objects["NetworkPolicy", "ovncp"]["spec"]["podSelector"]["matchLabels"],
        ]
        for selector in selectors:
            assert selector.items() <= labels.items()
        target = objects["HorizontalPodAutoscaler", "ovncp"]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in objects

    def test_ports_are_those_of_the_pods(self, objects, pod):
        (container,) = pod["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        defaults = config.Config().server
        assert ports == {"api": defaults.port, "metrics": defaults.metrics_port}
        service = objects["Service", "ovncp"]["spec"]["ports"]
        assert {port["targetPort"] for port in service} <= ports.keys()
        names = {port["name"] for port in service}
        for kind, name in objects:
            if kind == "Ingress":
                for rule in objects[kind, name]["spec"]["rules"]:
                    for path in rule["http"]["paths"]:
                        assert path["backend"]["service"]["port"]["name"] in names
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports

    def test_nodes_are_told_what_they_know(self, objects, pod):
        (container,) = pod["spec"]["containers"]
        given = {each["name"] for each in container["env"]}
        given |= objects["ConfigMap", "ovncp"]["data"].keys()
        assert given <= ENVIRONMENT
        assert {"REDIS_URL", "DATABASE_URL"} <= ENVIRONMENT

    def test_nodes_have_the_time_that_they_take_to_drain(self, pod):
        (container,) = pod["spec"]["containers"]
        pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        needed = pause + api_node._DRAINING_SECONDS + api_node._LEAVING_SECONDS
        assert pod["spec"]["terminationGracePeriodSeconds"] >= needed


def test_what_is_probed_is_there(node):
    """The paths that probes and load balancers ask are routes of a node."""
    text = "\n".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    asked = set(re.findall(r"/health/\w+", text))
    assert asked == {"/health/live", "/health/ready", "/health/startup"}
    for path in asked:
        wait_for(lambda path=path: httpx.get(node.url + path).status_code == 200, path)
