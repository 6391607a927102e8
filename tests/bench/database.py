"""Database files of a wanted size, written as ovsdb(5) has them without any server's help."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

NB_SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
SB_SCHEMA = Path("/usr/share/ovn/ovn-sb.ovsschema")
DATAPATHS = 200

PORT_BINDING_COLUMNS = [
    *("logical_port", "type", "gateway_chassis", "ha_chassis_group", "options", "datapath"),
    *("tunnel_key", "parent_port", "tag", "virtual_parent", "chassis", "additional_chassis"),
    *("encap", "additional_encap", "mac", "port_security", "nat_addresses", "external_ids"),
    *("requested_chassis", "requested_additional_chassis", "mirror_rules", "up"),
]


def name(kind: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {number}"))


def port_binding(number: int) -> dict[str, Any]:
    """A row of the size that a cloud's are: some 700 bytes with what the server adds."""
    mac = f"0a:58:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}"
    mac += f":{number & 255:02x}"
    address = f"{mac} 10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {
        "logical_port": f"namespace-{number % 50}_deployment-web-frontend-{number:06}",
        "datapath": ["uuid", name("datapath", number % DATAPATHS)],
        "tunnel_key": number // DATAPATHS + 1,
        "mac": address,
        "port_security": address,
        "options": [
            "map",
            [
                ["requested-chassis", f"hypervisor-{number % 1000}.region-one.example.net"],
                ["iface-id-ver", name("interface", number)],
                ["mcast_flood_reports", "true"],
            ],
        ],
        "external_ids": [
            "map",
            [
                ["namespace", f"namespace-{number % 50}"],
                ["pod", "true"],
                ["neutron:device_owner", "compute:availability-zone-one"],
                ["neutron:network_name", f"neutron-{name('network', number % DATAPATHS)}"],
                ["neutron:revision_number", "4"],
            ],
        ],
        "up": True,
    }


def records(rows: int) -> bytes:
    """One record that inserts `rows` rows into Port_Binding, and the rows they refer to."""
    datapaths = {
        name("datapath", number): {"tunnel_key": number + 1} for number in range(DATAPATHS)
    }
    ports = {name("port", number): port_binding(number) for number in range(rows)}
    change = {"Datapath_Binding": datapaths, "Port_Binding": ports, "_date": 1700000000000}
    text = json.dumps(change, separators=(",", ":")).encode() + b"\n"
    return b"OVSDB JSON %d %s\n" % (len(text), hashlib.sha1(text).hexdigest().encode()) + text


def southbound(rows: int) -> bytes:
    """A whole Southbound database file with `rows` port bindings."""
    schema = json.dumps(json.loads(SB_SCHEMA.read_text())).encode() + b"\n"
    header = b"OVSDB JSON %d %s\n" % (len(schema), hashlib.sha1(schema).hexdigest().encode())
    return header + schema + records(rows)
