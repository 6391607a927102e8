"""Tokens that the platform gives out, and how they are kept: as a hash, since they are random.

An API key begins with `ovncp_key_`, so that a lost one can be found by programs that look for such.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

KEY = "ovncp_key_"
SESSION = "ovncp_ses_"

_N_BYTES = 32


class Token(NamedTuple):
    """A new one: `text` is for its owner alone, `hash` is what is kept."""

    text: str
    hash: str


def new_token(kind: str) -> Token:
    """A token of kind KEY or SESSION."""
    text = kind + secrets.token_urlsafe(_N_BYTES)
    return Token(text, hash_of(text))


def hash_of(text: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()
