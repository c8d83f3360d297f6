"""What a lab is asked to be: nodes and their pods, by name. Pure; written by tests, ``perf/`` and the demo.

``LabSpec`` refuses what cannot be built when it is made, so that nothing is half built for a spelling mistake.
"""

import re
from dataclasses import dataclass

from ambient.lab.errors import LabSpecError

__all__ = ["MAX_NODES", "MAX_PODS", "LabSpec", "NodeSpec", "PodSpec", "check_lab_name"]

MAX_NODES = 245
"""A node's pods live in 10.<10+node>.0.0/16, so the node number ends at 245."""
MAX_PODS = 65_000
"""Pods of one node, of the 65 534 host addresses of its /16."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise LabSpecError(f"{what} name {name!r} is not a DNS label", "use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")


def check_lab_name(name: str) -> str:
    """Return ``name`` if a lab may have it, else raise :class:`LabSpecError`. It becomes part of file names."""
    if not _LAB_NAME.fullmatch(name):
        raise LabSpecError(f"lab name {name!r} is not usable", "use 1 to 32 of a-z, 0-9 and '-', with no '-' at either end")
    return name


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod. ``name`` is unique in the lab. ``index`` (1 up) fixes the pod's number on its node and by it the addresses;
    None takes the next that was never used."""

    name: str
    namespace: str = "default"
    service_account: str = "default"
    index: int | None = None

    def __post_init__(self) -> None:
        _check_name("pod", self.name)
        _check_name("namespace", self.namespace)
        _check_name("service account", self.service_account)
        if self.index is not None and not 1 <= self.index <= MAX_PODS:
            raise LabSpecError(f"pod {self.name}: index {self.index} is out of range", f"use 1 to {MAX_PODS}")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node and the pods it starts with."""

    name: str
    pods: tuple[PodSpec, ...] = ()

    def __post_init__(self) -> None:
        _check_name("node", self.name)
        if len(self.pods) > MAX_PODS:
            raise LabSpecError(f"node {self.name} has {len(self.pods)} pods", f"a node holds at most {MAX_PODS}")
        indexes = [pod.index for pod in self.pods if pod.index is not None]
        if len(indexes) != len(set(indexes)):
            raise LabSpecError(f"node {self.name} gives two pods the same index", "give each its own, or none")


@dataclass(frozen=True, slots=True)
class LabSpec:
    """The whole lab. ``name`` None takes a random one. Node n (1 up, in order) has pods 10.<10+n>.x.x, fd00:10:<n>::x."""

    nodes: tuple[NodeSpec, ...]
    name: str | None = None
    ipv6: bool = True

    def __post_init__(self) -> None:
        if self.name is not None:
            check_lab_name(self.name)
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise LabSpecError(f"a lab of {len(self.nodes)} nodes cannot be built", f"ask for 1 to {MAX_NODES}")
        seen: set[str] = set()
        for name in [node.name for node in self.nodes] + [pod.name for node in self.nodes for pod in node.pods]:
            if name in seen:
                raise LabSpecError(f"the name {name!r} is used twice", "give every node and pod of a lab its own name")
            seen.add(name)

    @classmethod
    def simple(cls, nodes: int = 2, pods: int = 2, *, name: str | None = None, ipv6: bool = True) -> "LabSpec":
        """``nodes`` nodes named node-1.. with ``pods`` pods each, named pod-<node>-<n>, service account of the same name."""
        if not 1 <= nodes <= MAX_NODES or not 0 <= pods <= MAX_PODS:
            raise LabSpecError(
                f"a lab of {nodes} nodes with {pods} pods each cannot be built",
                f"ask for 1 to {MAX_NODES} nodes and 0 to {MAX_PODS} pods",
            )
        return cls(
            nodes=tuple(
                NodeSpec(
                    f"node-{n}",
                    tuple(PodSpec(f"pod-{n}-{p}", service_account=f"pod-{n}-{p}") for p in range(1, pods + 1)),
                )
                for n in range(1, nodes + 1)
            ),
            name=name,
            ipv6=ipv6,
        )
