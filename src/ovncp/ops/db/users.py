"""Who uses a log on an engine: its servers, each of which shows a notice there while it runs."""

import orjson

from ovncp.log.engine import EngineLog
from ovncp.log.registry import open_log
from ovncp.ops.db.place import Place
from ovncp.ops.refusal import Refusal


async def check_unused(place: Place) -> None:
    """Raise Refusal if a server uses the log at `place`, as far as its engine tells.

    Raises LogError, as when there is no log.
    """
    log = await open_log(place.location)
    try:
        notices = await log.notices() if isinstance(log, EngineLog) else {}
    finally:
        await log.close()
    if notices:
        servers = "; ".join(map(_words, notices.values()))
        raise Refusal(
            f"{place.name}: in use: {servers}. Stop that first; "
            "one that was killed is gone from here half a minute later"
        )


def _words(notice: bytes) -> str:
    try:
        shown = orjson.loads(notice)
        return f"a server on {shown['host']}, process {shown['pid']}"
    except (ValueError, KeyError, TypeError):
        return "a server of another version"
