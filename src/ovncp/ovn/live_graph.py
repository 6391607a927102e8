"""The graph of two databases that are followed, up to date whenever it is asked for."""

from collections.abc import Sequence

from ovncp.ovn.graph import Graph
from ovncp.ovn.replica import Replica
from ovncp.ovsdb.row import Change


class LiveGraph:
    """The graph of what `nb` and `sb` have."""

    def __init__(self, nb: Replica, sb: Replica) -> None:
        self._nb = nb
        self._sb = sb
        self._graph: Graph | None = None
        for replica in (nb, sb):
            replica.replaced.append(self._replace)
            replica.listeners.append(self._change)

    @property
    def graph(self) -> Graph:
        """The graph as of now."""
        if self._graph is None:
            self._graph = Graph(self._nb.rows, self._sb.rows)
        return self._graph

    def _replace(self) -> None:
        self._graph = None
        if self._nb.is_filled and self._sb.is_filled:
            # It takes a moment, which is better spent before somebody asks.
            self._graph = self.graph

    def _change(self, changes: Sequence[Change]) -> None:
        if self._graph is not None:
            self._graph.change(changes)
