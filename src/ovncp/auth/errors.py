"""What users, tenants and keys refuse."""

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
