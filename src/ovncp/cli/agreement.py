"""A question to the person at the terminal, before something that cannot be taken back."""

import sys

from ovncp.ops.refusal import Refusal


def is_agreed(question: str, *answers: str) -> bool:
    """Whether one of `answers` is given. Raises Refusal where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise Refusal("nothing was done yet: --yes says to do it, where there is no terminal")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() in answers
