"""The graph that follows what changes is the one that is made of what is there."""

from typing import Any

from ovncp.ovn.graph import Graph
from platform_network import Network, Walk

SEEDS = range(6)


def state(graph: Graph) -> dict[str, Any]:
    """All that a graph holds."""
    hidden = ("nb", "sb", "_notes", "_index")
    return {name: value for name, value in vars(graph).items() if name not in hidden}


def test_the_graph_is_kept_up_to_date() -> None:
    seen: set[str] = set()
    for seed in SEEDS:
        walk = Walk(seed)
        for _ in range(150):
            step = walk.step()
            held = state(walk.network.graph)
            assert held == state(walk.network.anew()), (seed, step)
            seen |= {name for name, value in held.items() if value}
    assert seen == state(Network().graph).keys()  # nothing was empty all the time
