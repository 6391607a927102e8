"""The benchmark runs: a tenth of its load, once, for what it prints rather than how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def said_by(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_clusters_are_measured() -> None:
    said = said_by("tests.bench.cluster", "--quick", "--kills", "2", "etcd")
    assert said.count("| etcd |") == 8


def test_the_benchmark_measures_both_servers() -> None:
    names = ["insert", "dump", "resume", "fleet-lost"]
    only = [f"--only={name}" for name in names]
    rows = json.loads(said_by("tests.bench", "--quick", "--rounds", "1", "--json", *only))
    assert [row["name"] for row in rows] == names
    assert all(row["c"] > 0 and row["ovncp"] > 0 for row in rows[:2])
    assert rows[2]["ovncp"] > 0
    assert rows[3]["ovncp"] == 0


@pytest.mark.parametrize(("picture", "most"), [("clients", 10), ("rows", 1_000)])
def test_growth_is_drawn(picture: str, most: int, tmp_path: Path) -> None:
    said = said_by(
        "tests.bench.plots", f"--only={picture}", f"--most={most}", f"--directory={tmp_path}"
    )
    points = json.loads(said)[picture]
    assert all(figure > 0 for kind in points for figure in points[kind][str(most)].values())
    assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_a_node_of_the_platform_is_measured() -> None:
    figures = json.loads(said_by("tests.bench.api", "--quick", "--json"))
    assert len(figures) >= 4
    assert all(figure["value"] > 0 for figure in figures)
