"""Why something about users, tenants or keys is not done: refused, or out of reach."""

from __future__ import annotations


class Refused(Exception):
    """It is not done; the text is for whoever asked."""


class NoSuch(Refused):
    """There is none of this name."""


class Taken(Refused):
    """There is one already."""


class NotAllowed(Refused):
    """It would leave nobody in charge, or the like."""


class BadValue(Refused):
    """A field has a value that it cannot have."""

    def __init__(self, field: str, text: str):
        super().__init__(f"{field}: {text}")
        self.field = field
        self.text = text


class DatabaseUnavailable(Exception):
    """The database cannot be reached; what was asked for was not done."""


class OutcomeUnknown(Exception):
    """The database went away while it was told to commit: it may have."""


class DatabaseUnusable(Exception):
    """The database is not one that this version can use; the text is for whoever set it up."""


class Conflict(Exception):
    """There is such a row already, or one that it refers to is there no more; nothing was done."""


class BadData(Exception):
    """A value that the database cannot have, such as a NUL in a text of PostgreSQL's."""


class TooManyTries(Exception):
    """Too many logins have failed; `wait_s` is how long to wait."""

    def __init__(self, wait_s: float):
        super().__init__("too many logins have failed")
        self.wait_s = wait_s


class BadToken(Exception):
    """The token is not good; the text is for whoever showed it."""


class ProviderUnavailable(Exception):
    """The provider does not answer, or not as one does."""
