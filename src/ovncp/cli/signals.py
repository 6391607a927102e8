"""Signals that end a command in good order."""

import asyncio
import signal


def ended_by_signal() -> asyncio.Event:
    """What SIGINT and SIGTERM set from now on, instead of ending the process."""
    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    return ending
