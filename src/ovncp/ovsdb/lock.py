"""Advisory locks with waiting and stealing (RFC 7047 sections 4.1.8 to 4.1.10)."""

from collections.abc import Hashable


class Locks:
    """Who holds and who waits for each lock: a queue per name, its owner in front.

    Sessions are told apart by identity and known only as hashable things.
    """

    def __init__(self) -> None:
        self._queues: dict[str, list[Hashable]] = {}
        self._thieves: set[tuple[str, Hashable]] = set()

    def owner(self, name: str) -> Hashable | None:
        """Who holds the lock `name`."""
        queue = self._queues.get(name)
        return queue[0] if queue else None

    def position(self, session: Hashable, name: str) -> int | None:
        """How many are before `session` in the queue; None if it is not there."""
        queue = self._queues.get(name, [])
        return queue.index(session) if session in queue else None

    def lock(self, session: Hashable, name: str) -> bool:
        """Queue `session` for the lock; true when it has it at once."""
        queue = self._queues.setdefault(name, [])
        queue.append(session)
        return queue[0] is session

    def steal(self, session: Hashable, name: str) -> Hashable | None:
        """Give `session` the lock; the former owner."""
        victim = self.rob(name)
        self._queues.setdefault(name, []).insert(0, session)
        self._thieves.add((name, session))
        return victim

    def rob(self, name: str) -> Hashable | None:
        """Take the lock from its owner, who is returned.

        One that asked for the lock keeps its place in the queue; one that stole it does not.
        """
        queue = self._queues.get(name)
        if not queue:
            return None
        victim = queue[0]
        if (name, victim) in self._thieves:
            self._thieves.discard((name, victim))
            queue.pop(0)
            if not queue:
                del self._queues[name]
        return victim

    def unlock(self, session: Hashable, name: str) -> Hashable | None:
        """Take `session` out of the queue; whom to tell that it holds the lock.

        The C server tells the owner also when one that only waited leaves.
        """
        queue = self._queues.get(name, [])
        if session not in queue:
            return None
        self._thieves.discard((name, session))
        queue.remove(session)
        if not queue:
            del self._queues[name]
            return None
        return queue[0]
