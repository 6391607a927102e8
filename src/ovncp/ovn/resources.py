"""What operators work with daily, as a table: which rows are called what, and where they belong.

A resource is the rows of one OVN table. Rows of a table that is no root live only as long as
another row refers to them: these are made within a parent, and are listed there too. All else about
a resource, its fields, what they may hold, what they refer to, is in the schema of the server.
"""

from dataclasses import dataclass
from typing import NamedTuple

NORTHBOUND = "OVN_Northbound"
SOUTHBOUND = "OVN_Southbound"


class Parent(NamedTuple):
    """Where rows belong: a column of another resource's rows, and what it is called in paths."""

    resource: str
    column: str
    path: str


@dataclass(frozen=True)
class Resource:
    """The rows of `table`, as `name` in paths, and `singular` in words."""

    name: str
    singular: str
    table: str
    database: str = NORTHBOUND
    parents: tuple[Parent, ...] = ()
    order: str = "name"
    has_own_name: bool = False  # no two rows may have one name, though the schema allows it

    @property
    def is_read_only(self) -> bool:
        """Whether operators only look at it."""
        return self.database == SOUTHBOUND


def _sb(name: str, singular: str, table: str, order: str) -> Resource:
    return Resource(name, singular, table, SOUTHBOUND, order=order)


RESOURCES = (
    Resource("switches", "switch", "Logical_Switch", has_own_name=True),
    Resource(
        "switch-ports",
        "switch port",
        "Logical_Switch_Port",
        parents=(Parent("switches", "ports", "ports"),),
    ),
    Resource(
        "forwarding-groups",
        "forwarding group",
        "Forwarding_Group",
        parents=(Parent("switches", "forwarding_groups", "forwarding-groups"),),
    ),
    Resource(
        "qos",
        "QoS rule",
        "QoS",
        parents=(Parent("switches", "qos_rules", "qos"),),
        order="priority",
    ),
    Resource("routers", "router", "Logical_Router", has_own_name=True),
    Resource(
        "router-ports",
        "router port",
        "Logical_Router_Port",
        parents=(Parent("routers", "ports", "ports"),),
    ),
    Resource(
        "static-routes",
        "static route",
        "Logical_Router_Static_Route",
        parents=(Parent("routers", "static_routes", "static-routes"),),
        order="ip_prefix",
    ),
    Resource(
        "policies",
        "router policy",
        "Logical_Router_Policy",
        parents=(Parent("routers", "policies", "policies"),),
        order="priority",
    ),
    Resource(
        "nat", "NAT rule", "NAT", parents=(Parent("routers", "nat", "nat"),), order="external_ip"
    ),
    Resource(
        "gateway-chassis",
        "gateway chassis",
        "Gateway_Chassis",
        parents=(Parent("router-ports", "gateway_chassis", "gateway-chassis"),),
    ),
    Resource(
        "acls",
        "ACL",
        "ACL",
        parents=(Parent("switches", "acls", "acls"), Parent("port-groups", "acls", "acls")),
        order="priority",
    ),
    Resource("port-groups", "port group", "Port_Group"),
    Resource("address-sets", "address set", "Address_Set"),
    Resource("load-balancers", "load balancer", "Load_Balancer", has_own_name=True),
    Resource(
        "health-checks",
        "load balancer health check",
        "Load_Balancer_Health_Check",
        parents=(Parent("load-balancers", "health_check", "health-checks"),),
        order="vip",
    ),
    Resource("load-balancer-groups", "load balancer group", "Load_Balancer_Group"),
    Resource("dhcp-options", "set of DHCP options", "DHCP_Options", order="cidr"),
    Resource("dns", "set of DNS records", "DNS", order="_uuid"),
    Resource("meters", "meter", "Meter"),
    Resource(
        "meter-bands",
        "meter band",
        "Meter_Band",
        parents=(Parent("meters", "bands", "bands"),),
        order="rate",
    ),
    Resource("ha-chassis-groups", "HA chassis group", "HA_Chassis_Group"),
    Resource(
        "ha-chassis",
        "HA chassis",
        "HA_Chassis",
        parents=(Parent("ha-chassis-groups", "ha_chassis", "ha-chassis"),),
        order="chassis_name",
    ),
    Resource("bfd", "BFD session", "BFD", order="logical_port"),
    Resource("static-mac-bindings", "static MAC binding", "Static_MAC_Binding", order="ip"),
    Resource("mirrors", "mirror", "Mirror"),
    Resource("copp", "control plane protection", "Copp"),
    Resource(
        "chassis-template-vars",
        "set of template variables",
        "Chassis_Template_Var",
        order="chassis",
    ),
    _sb("chassis", "chassis", "Chassis", "name"),
    _sb("port-bindings", "port binding", "Port_Binding", "logical_port"),
    _sb("datapaths", "datapath", "Datapath_Binding", "tunnel_key"),
    _sb("logical-flows", "logical flow", "Logical_Flow", "_uuid"),
    _sb("mac-bindings", "MAC binding", "MAC_Binding", "ip"),
    _sb("service-monitors", "service monitor", "Service_Monitor", "logical_port"),
    _sb("igmp-groups", "IGMP group", "IGMP_Group", "address"),
)

BY_NAME = {resource.name: resource for resource in RESOURCES}
BY_TABLE = {(resource.database, resource.table): resource for resource in RESOURCES}
