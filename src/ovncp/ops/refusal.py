"""What an operator's verb refuses to do, in one line that is ready to print."""


class Refusal(Exception):
    """A request that cannot be met; the text says why, with no tag as an OvsdbError has."""
