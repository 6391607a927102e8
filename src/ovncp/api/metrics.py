"""`/metrics`: the node's figures in Prometheus' text format.

Each is counted where it happens, as a `Family`, and gathered when somebody asks. docs/platform.md
has the list. Here they are for those who may see the cluster; the port that is for Prometheus alone
(`server.metrics_port`) asks nobody who they are.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ovncp import __version__
from ovncp.api.access import may_read
from ovncp.api.platform import Platform
from ovncp.auth.principal import Principal
from ovncp.cluster.metrics import Family, distribution, family, labels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Show the node's figures", response_class=Response)
async def metrics(
    request: Request, principal: Annotated[Principal, Depends(may_read("cluster"))]
) -> Response:
    """The figures, in Prometheus' text format."""
    return Response(await text(request.app.state.platform), media_type=CONTENT_TYPE)


async def text(platform: Platform) -> str:
    """All figures of a node."""
    shown = [*families(platform)]
    if platform.accounts is not None:
        shown.append(await platform.accounts.lags())
    return generate_latest(_registry(shown)).decode()


def families(platform: Platform) -> Iterator[Family]:
    """The figures that are this platform's own."""
    yield family(
        "ovncp_build_info",
        "gauge",
        "Always 1; the label says what runs.",
        {labels(version=__version__): 1},
    )
    yield from platform.requests.families()
    yield from platform.node.families()
    yield from platform.audience.families()
    yield from _of_databases(platform)
    if platform.accounts is not None:
        yield from platform.accounts.families()


def _of_databases(platform: Platform) -> Iterator[Family]:
    replicas = platform.replicas
    yield family(
        "ovncp_replica_connected",
        "gauge",
        "Whether the copy of a database follows a server: 1 if it does.",
        {labels(database=name): int(replica.is_live) for name, replica in replicas.items()},
    )
    yield family(
        "ovncp_replica_lag_seconds",
        "gauge",
        "For how long at most the copy of a database may have been out of date.",
        {labels(database=name): replica.age for name, replica in replicas.items()},
    )
    yield family(
        "ovncp_replica_rows",
        "gauge",
        "Rows of the copy of a database.",
        {
            labels(database=name): sum(map(len, replica.rows.values()))
            for name, replica in replicas.items()
        },
    )
    yield distribution(
        "ovncp_batch_size", "Writes in a transaction of the Northbound.", platform.batch_sizes
    )


def _registry(families: Iterable[Family]) -> CollectorRegistry:
    registry = CollectorRegistry()
    for kind in (ProcessCollector, PlatformCollector, GCCollector):
        kind(registry=registry)
    registry.register(_Families(families))
    return registry


class _Families(Collector):
    """Families, as the library wants them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        for each in self._families:
            metric = Metric(each.name.removesuffix(_suffix(each)), each.help, each.kind)
            for names, value in each.samples:
                metric.add_sample(each.name, dict(names), value)
            for names, histogram in each.histograms:
                for bound, count in histogram.buckets():
                    metric.add_sample(f"{each.name}_bucket", {**dict(names), "le": bound}, count)
                metric.add_sample(f"{each.name}_count", dict(names), count)
                metric.add_sample(f"{each.name}_sum", dict(names), histogram.sum)
            yield metric


def _suffix(family: Family) -> str:
    return "_total" if family.kind == "counter" else ""
