"""A browser's login with an OpenID Connect provider, while it is under way."""

from __future__ import annotations

import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """A browser's login that has begun: what is to come back, and what is kept until then."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Attempt:
        """One that nobody guesses."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))
