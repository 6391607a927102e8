"""How often JSON that is kept was put together, and how often it was used."""


class Encoded:
    """What was `made` once and `used` so many times."""

    __slots__ = ("made", "used")

    def __init__(self) -> None:
        self.made = 0
        self.used = 0


ROWS = Encoded()
"""Rows as they are in first dumps."""

PIECES = Encoded()
"""Pieces of first dumps that have many rows."""

UPDATES = Encoded()
"""Notifications of changes, of which the uses are those that were sent."""
