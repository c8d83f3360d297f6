"""Nodes and pods made of network namespaces, for tests, ``perf/``, the demo and ``ambient lab``.

    with Lab.create(LabSpec.simple(nodes=2, pods=2)) as lab:
        lab.pods["pod-1-1"].run(["ping", "-c1", lab.pods["pod-2-1"].ipv4])

Needs root and iproute2. Everything is made inside the lab's own namespaces; the machine's network is not touched.
"""

from ambient.lab.errors import (
    LabBroken,
    LabBusy,
    LabCommandFailed,
    LabError,
    LabSpecError,
    LabUnknown,
    LabUnsupported,
)
from ambient.lab.lab import Lab
from ambient.lab.place import Node, Place, Pod
from ambient.lab.sniff import Capture
from ambient.lab.spec import LabSpec, NodeSpec, PodSpec

__all__ = [
    "Capture",
    "Lab",
    "LabBroken",
    "LabBusy",
    "LabCommandFailed",
    "LabError",
    "LabSpec",
    "LabSpecError",
    "LabUnknown",
    "LabUnsupported",
    "Node",
    "NodeSpec",
    "Place",
    "Pod",
    "PodSpec",
]
