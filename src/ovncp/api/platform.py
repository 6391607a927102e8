"""What a node of the platform is made of, as its routes see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ovncp.api.access import Access, OpenAccess
from ovncp.api.audience import Audience
from ovncp.api.audit import Audit, LoggedAudit
from ovncp.api.idempotency import IdempotencyStore, SharedKeys
from ovncp.api.identification import AccountAccess
from ovncp.api.quotas import QuotaKeeper
from ovncp.api.refusals import Refusals
from ovncp.api.requests import Requests
from ovncp.api.sight import Sight
from ovncp.api.stored import StoredAudit, StoredKeys
from ovncp.api.tracing import Spans
from ovncp.auth.principal import Principal
from ovncp.cluster.metrics import Histogram
from ovncp.cluster.node import Node
from ovncp.ovn.barrier import Barrier
from ovncp.ovn.live_graph import LiveGraph
from ovncp.ovn.replica import Replica
from ovncp.ovn.resources import NORTHBOUND, SOUTHBOUND
from ovncp.ovn.tenancy import View
from ovncp.ovn.tracer import Tracer
from ovncp.ovn.writer import Grouping, Writer

if TYPE_CHECKING:
    from ovncp.auth.accounts import Accounts

_BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass
class Platform:
    """One node: the databases as they are now, the other nodes, and who may do what.

    `keys`, `access` and `audit` are asked anew with each request. `batch_sizes` has how many writes
    were in each transaction.
    """

    replicas: Mapping[str, Replica]
    node: Node
    keys: IdempotencyStore
    writer: Writer
    barrier: Barrier
    quotas: QuotaKeeper
    sight: Sight
    graph: LiveGraph
    audience: Audience
    batch_sizes: Histogram
    access: Access = field(default_factory=OpenAccess)
    audit: Audit = field(default_factory=LoggedAudit)
    refusals: Refusals = field(default_factory=Refusals)
    accounts: Accounts | None = None
    tracer: Tracer | None = None
    requests: Requests = field(default_factory=Requests)
    spans: Spans = field(default_factory=Spans)

    @classmethod
    def of(cls, replicas: Mapping[str, Replica], node: Node, grouping: Grouping) -> Platform:
        """A platform whose state is kept by what the nodes share."""
        nb = replicas[NORTHBOUND]
        barrier = Barrier(nb)
        batch_sizes = Histogram(_BATCH_SIZES)
        node.breakers += [replica.breaker for replica in replicas.values()]
        return cls(
            replicas,
            node,
            SharedKeys(node.store),
            Writer(nb, grouping, batch_sizes.observe),
            barrier,
            QuotaKeeper(node.locks, barrier),
            Sight(nb, barrier, node.store),
            LiveGraph(nb, replicas[SOUTHBOUND]),
            Audience(nb, replicas[SOUTHBOUND], node),
            batch_sizes,
        )

    @property
    def nb(self) -> Replica:
        """The Northbound."""
        return self.replicas[NORTHBOUND]

    @property
    def sb(self) -> Replica:
        """The Southbound."""
        return self.replicas[SOUTHBOUND]

    def view(self, principal: Principal) -> View:
        """What `principal` sees."""
        return View(self.nb, self.sb, principal.tenant)

    def admit(self, accounts: Accounts) -> None:
        """Be for those who have an account; before `start`."""
        self.accounts = accounts
        self.access = AccountAccess(accounts, self.node.rates)
        self.audit = StoredAudit(accounts)
        self.keys = StoredKeys(accounts)

    async def start(self) -> None:
        """Take part in the cluster."""
        if self.accounts is not None:
            await self.accounts.start()
        await self.node.start()
        self.audience.start()

    async def close(self) -> None:
        """Follow the databases no more, and leave the cluster."""
        self.audience.close()
        await self.refusals.close()
        await self.node.close()
        if self.accounts is not None:
            await self.accounts.close()
        for replica in self.replicas.values():
            await replica.close()
        await self.spans.close()
