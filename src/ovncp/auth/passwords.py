"""Passwords: how they are kept (argon2id), and which are good enough.

Each check takes a good part of a second of a processor and 64 MB, by design; so they are done off
the event loop, and not more than a few at a time.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST = 12
LONGEST = 256

_N_AT_ONCE = 2


class WeakPassword(ValueError):
    """Such a password is not taken; the text says why."""


class Passwords:
    """Hashes and checks passwords; belongs to one event loop."""

    def __init__(self, hasher: PasswordHasher | None = None):
        self._hasher = hasher or PasswordHasher()
        self._turns = asyncio.Semaphore(_N_AT_ONCE)
        self._nobodys = _nobodys(self._hasher)

    async def hash(self, password: str) -> str:
        """What is kept of a password.  Raises WeakPassword."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise WeakPassword(f"a password has from {SHORTEST} to {LONGEST} characters")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def is_right(self, kept: str | None, password: str) -> bool:
        """Whether a password is the one that is kept; None is kept of nobody."""
        if len(password) > LONGEST:
            return False
        async with self._turns:
            matches = await asyncio.to_thread(self._matches, kept or self._nobodys, password)
        return matches and kept is not None

    def _matches(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False


def _nobodys(hasher: PasswordHasher) -> str:
    """What is compared with if there is no user, so that it takes as long: no password's hash."""
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    salt, hash = (
        b64encode(secrets.token_bytes(n)).decode().rstrip("=")
        for n in (hasher.salt_len, hasher.hash_len)
    )
    return f"$argon2id$v=19${costs}${salt}${hash}"


def new_password() -> str:
    """A password that nobody guesses."""
    return secrets.token_urlsafe(18)
