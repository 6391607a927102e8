"""`trace`: a packet's way through the logical network, by the real `ovn-trace`."""

from dataclasses import asdict
from typing import Annotated, Any, Self

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.responses import Response

from ovncp.api.access import may_read
from ovncp.api.location import PREFIX
from ovncp.api.platform import Platform
from ovncp.api.problem import Problem
from ovncp.auth.principal import Principal
from ovncp.ovn.tenancy import View
from ovncp.ovn.trace_output import Section, Trace, Untraceable
from ovncp.ovn.tracer import NotTraced, Packet, TooLate, microflow
from ovncp.ovn.values import refuse

_DATAPATHS = ("Logical_Switch", "Logical_Router")

Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f]+$")]
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]*$")]
FieldValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f]+$")]
States = Annotated[str, StringConstraints(pattern=r"^[a-z]+(,[a-z]+)*$")]


class PacketToTrace(BaseModel):
    """A packet, as an expression or as fields, and what the stateful parts of the way tell it."""

    model_config = ConfigDict(extra="forbid")

    microflow: Text | None = Field(
        None,
        description="The packet, in OVN's language of expressions.",
        examples=['inport == "web-1" && eth.dst == ff:ff:ff:ff:ff:ff'],
    )
    packet: dict[FieldName, bool | int | FieldValue] | None = Field(
        None,
        description="The packet, field by field; true stands for a protocol.",
        examples=[{"inport": "web-1", "ip4.dst": "10.0.0.7", "tcp": True, "tcp.dst": 80}],
    )
    datapath: Text | None = Field(
        None, description="The switch or router where it begins; where `inport` is, if not given."
    )
    ct: list[States] = Field(
        [],
        max_length=64,
        description="What connection tracking tells, each time that it is asked: `trk,new`.",
    )
    lb_dst: FieldValue | None = Field(
        None, description="The backend, IP or IP:PORT, that a load balancer is to choose."
    )
    select_id: int | None = Field(None, ge=0, description="What a `select` is to choose.")

    @model_validator(mode="after")
    def _one_packet(self) -> Self:
        if (self.microflow is None) == (not self.packet):
            raise ValueError("either `microflow` or `packet` is wanted")
        return self


class Step(BaseModel):
    """A table that the packet met: the logical flow that it matched, and its actions."""

    table: int | None
    name: str | None
    source: str | None
    match: str | None
    priority: int | None
    flow: str | None = Field(description="How the logical flow's uuid begins.")
    actions: list[str]


class Part(BaseModel):
    """A pipeline, or what an action leads to; `depth` counts the forks that led there."""

    kind: str
    title: str
    depth: int
    datapath: str | None = Field(description="The uuid of the switch or router.")
    datapath_name: str | None
    inport: str | None
    outport: str | None
    group: str | None
    steps: list[Step]


class Traced(BaseModel):
    """The way of a packet. To a tenant's members what is others' is shown as `hidden` alone."""

    flow: str | None = Field(description="The packet, as OpenFlow has it.")
    sections: list[Part | dict[str, Any]]
    outputs: list[str] = Field(description="The ports where it comes out.")
    effect: str | None = Field(description="What modifies or puts out the packet.")
    text: str | None = Field(description="What ovn-trace printed.")


router = APIRouter(prefix=PREFIX, tags=["topology"])


@router.post("/trace", summary="Trace a packet", response_model=Traced)
async def trace(
    request: Request,
    asked: PacketToTrace,
    principal: Annotated[Principal, Depends(may_read("trace"))],
) -> Response:
    """Find out what becomes of a packet, by the logical flows that are in the Southbound now."""
    platform: Platform = request.app.state.platform
    if platform.tracer is None:
        raise Problem("unavailable", "this node does not trace packets")
    await platform.nb.filled()
    try:
        with platform.spans.step("ovn-trace"):
            found, text = await platform.tracer.trace(_packet(asked))
    except Untraceable as error:
        raise refuse(
            "microflow" if asked.packet is None else "packet", "trace", str(error)
        ) from error
    except TooLate as error:
        raise Problem("timeout", str(error)) from error
    except NotTraced as error:
        raise Problem("unavailable", str(error)) from error
    told = _Telling(platform, platform.view(principal)).told(found, text)
    return Response(orjson.dumps(told), media_type="application/json")


def _packet(asked: PacketToTrace) -> Packet:
    flow = asked.microflow or microflow(asked.packet or {})
    return Packet(flow, asked.datapath or "", asked.ct, asked.lb_dst, asked.select_id)


class _Telling:
    """A trace as somebody may see it."""

    def __init__(self, platform: Platform, view: View) -> None:
        self._rows = platform.nb.rows
        self._view = view

    def told(self, found: Trace, text: str) -> dict[str, Any]:
        """The answer. Raises Invalid if the packet begins where the tenant sees nothing."""
        if self._view.tenant is None:
            sections = [self._section(section) for section in found.sections]
            return {**asdict(found), "sections": sections, "text": text}
        if not found.sections or not self._sees(found.sections[0]):
            raise refuse("inport", "trace", "the packet does not begin at a port of yours")
        return {
            "flow": None,
            "sections": [
                self._section(each) if self._sees(each) else {"hidden": True, "depth": each.depth}
                for each in found.sections
            ],
            "outputs": [name for name in found.outputs if self._sees_port(name)],
            "effect": None,
            "text": None,
        }

    def _section(self, section: Section) -> dict[str, Any]:
        table, row = self._datapath(section)
        name = None if row is None else row.values[self._rows[table].table.columns["name"].index]
        return {**asdict(section), "datapath_name": name}

    def _datapath(self, section: Section) -> tuple[str, Any]:
        for table in _DATAPATHS:
            row = self._rows[table].get(section.datapath or "") if table in self._rows else None
            if row is not None:
                return table, row
        return "", None

    def _sees(self, section: Section) -> bool:
        table, row = self._datapath(section)
        return row is not None and self._view.sees(self._rows[table], row)

    def _sees_port(self, name: str) -> bool:
        rows = self._rows["Logical_Switch_Port"]
        found = rows.where(rows.table.columns["name"], "==", name)
        return any(self._view.sees(rows, row) for row in found)
