"""Advisory locks with waiting and stealing (RFC 7047 sections 4.1.8 to 4.1.10)."""

from collections.abc import Hashable


class Locks:
    """Who holds and who waits for each lock: a queue per name, its owner in front.

    Sessions are told apart by identity and known only as hashable things.
    """

    def __init__(self) -> None:
        self._queues: dict[str, list[Hashable]] = {}

    def owner(self, name: str) -> Hashable | None:
        """Who holds the lock `name`."""
        queue = self._queues.get(name)
        return queue[0] if queue else None

    def lock(self, session: Hashable, name: str) -> bool:
        """Queue `session` for the lock; true when it has it at once."""
        queue = self._queues.setdefault(name, [])
        queue.append(session)
        return queue[0] is session

    def steal(self, session: Hashable, name: str) -> Hashable | None:
        """Give `session` the lock; the former owner, which keeps its place behind it."""
        queue = self._queues.setdefault(name, [])
        queue.insert(0, session)
        return queue[1] if len(queue) > 1 else None

    def unlock(self, session: Hashable, name: str) -> Hashable | None:
        """Take `session` out of the queue; the new owner if the lock changed hands."""
        queue = self._queues[name]
        was_owner = queue[0] is session
        queue.remove(session)
        if not queue:
            del self._queues[name]
            return None
        return queue[0] if was_owner else None
