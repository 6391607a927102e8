"""The examples of properties are the same in each run, unless others are asked for."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROGRAM = """
import conftest, sys
from importlib import import_module
from hypothesis import given, strategies as st

for name in sys.argv[1:]:
    import_module(name)

@given(st.integers(), st.text())
def show(number, text):
    print(number, ascii(text))

show()
"""


def drawn(place: Path, hash_seed: int, *modules: str, **environment: str) -> str:
    """What a property is tried with by a process that has imported `modules`."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules],
        cwd=place,
        env={
            **{name: text for name, text in os.environ.items() if name != "EXAMPLES"},
            "PYTHONPATH": str(TESTS),
            "PYTHONHASHSEED": str(hash_seed),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def test_they_are_the_same_whatever_was_imported(tmp_path: Path) -> None:
    """In the compiled copy or in none, which alone has constants that hypothesis finds."""
    few = drawn(tmp_path, 1)
    many = drawn(tmp_path, 2, "ovncp.server.runner", "ovncp.cli.up", OVNCP_SOURCE="1")
    assert few.count("\n") >= 100
    assert few == many


def test_others_can_be_asked_for(tmp_path: Path) -> None:
    assert drawn(tmp_path, 1, EXAMPLES="1") != drawn(tmp_path, 1, EXAMPLES="1")
