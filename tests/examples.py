"""How many examples a property is tried with.

They are the same in each run: tests/conftest.py. `EXAMPLES=20` tries twenty times as many, and
others in each run, which `make properties` does.
"""

import os

from hypothesis import settings

FACTOR = int(os.environ.get("EXAMPLES", "0"))


def examples(n: int) -> settings:
    """The settings of a property that is tried with `n` examples."""
    return settings(max_examples=n * (FACTOR or 1))
