"""The record of a lab: what stands in ``/run/ambient/lab/<lab>.json``, and who owns it. Pure.

The record is written before the first namespace exists and removed after the last is gone, so whatever a killed
run leaves is named by it. It is also the lab's plan: :mod:`ambient.lab.plan` makes it, all else reads it.
"""

import re
from typing import Literal

import msgspec

from ambient.lab.errors import LabBroken, LabError
from ambient.lab.spec import check_lab_name

__all__ = ["NETNS_PREFIX", "LabState", "NodeState", "Owner", "PodState", "decode_state", "encode_state"]

NETNS_PREFIX = "amb-"
_NETNS_NAME = re.compile(r"[a-z0-9.-]{1,200}")


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process, told from a later one with the same id. ``start_ticks`` is field 22 of /proc/<pid>/stat (clock ticks
    since boot); ``pid_namespace`` the inode of /proc/<pid>/ns/pid, as ids of another pid namespace mean nothing here."""

    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: int


class PodState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pod: its names, addresses, and ``veth``, the node's end of its link."""

    name: str
    namespace: str
    service_account: str
    uid: str
    index: int
    netns: str
    veth: str
    ipv4: str
    ipv6: str | None


class NodeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node. ``last_index`` is the highest pod number ever used, so that addresses are not taken again by chance."""

    name: str
    index: int
    netns: str
    uplink: str
    underlay_ipv4: str
    underlay_ipv6: str | None
    last_index: int
    pods: tuple[PodState, ...]


class LabState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One lab. ``token`` tells it from a later lab of the same name; ``persistent`` ones outlive their owner."""

    version: Literal[1]
    name: str
    token: str
    persistent: bool
    owner: Owner
    ipv6: bool
    switch_netns: str
    nodes: tuple[NodeState, ...]

    @property
    def marker(self) -> str:
        """Value of the environment variable that every process started in the lab carries."""
        return f"{self.name}/{self.token}"

    def netns_names(self) -> tuple[str, ...]:
        """Every namespace of the lab, pods last."""
        nodes = tuple(node.netns for node in self.nodes)
        return (self.switch_netns, *nodes, *(pod.netns for node in self.nodes for pod in node.pods))


def encode_state(state: LabState) -> bytes:
    return msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n"


def decode_state(data: bytes, expected_name: str) -> LabState:
    """Read a record strictly. Raises :class:`LabBroken` for anything that could make us touch what is not this lab's."""
    remedy = "remove the file by hand after `ip netns list` shows what is left of the lab"
    try:
        state = msgspec.json.decode(data, type=LabState)
        check_lab_name(state.name)
    except (msgspec.DecodeError, UnicodeDecodeError, LabError) as error:
        raise LabBroken(f"the state file of lab {expected_name!r} is not readable: {error}", remedy) from error
    if state.name != expected_name:
        raise LabBroken(f"the state file of lab {expected_name!r} describes lab {state.name!r}", remedy)
    prefix = f"{NETNS_PREFIX}{state.name}"
    for name in state.netns_names():
        if not _NETNS_NAME.fullmatch(name) or not name.startswith((f"{prefix}-", f"{prefix}.")):
            raise LabBroken(f"the state file of lab {expected_name!r} names a foreign namespace {name!r}", remedy)
    return state
