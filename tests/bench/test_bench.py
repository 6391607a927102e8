"""The benchmark runs: a tenth of its load, once, for what it prints rather than how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_clusters_are_measured() -> None:
    command = [sys.executable, "-m", "tests.bench.cluster", "--quick", "--kills", "2", "etcd"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("| etcd |") == 6


def test_the_benchmark_measures_both_servers() -> None:
    names = ["insert", "dump", "resume", "fleet-lost"]
    only = [f"--only={name}" for name in names]
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1", "--json", *only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == names
    assert all(row["c"] > 0 and row["ovncp"] > 0 for row in rows[:2])
    assert rows[2]["ovncp"] > 0
    assert rows[3]["ovncp"] == 0
