"""From a spec to addresses, names and ``ip -batch`` lines. Pure: what the kernel is told is decided here, line by line.

Theory of operation. The wiring is that of a routed CNI (Calico's way): a pod's eth0 has a /32 and a /128, its
default route goes to 169.254.1.1 and fe80::1, which exist on no pod subnet and are answered by a permanent neighbour
entry; the node has one host route a pod. Nodes meet in a namespace that holds nothing but a bridge, and have
routes to each other's pod prefixes by their underlay addresses. No link is ever made in the root namespace.

Addresses are a function of node and pod number alone, the same in every lab: labs are isolated, and a reader knows them by heart.
"""

import msgspec

from ambient.lab.errors import LabBusy, LabSpecError, LabUnknown
from ambient.lab.spec import MAX_PODS, LabSpec, PodSpec
from ambient.lab.state import NETNS_PREFIX, LabState, NodeState, Owner, PodState

__all__ = [
    "UPLINK",
    "lay_out",
    "marker_alias",
    "node_batch",
    "node_port_batch",
    "pod_link_batch",
    "pod_batch",
    "sysctls",
    "switch_batch",
    "with_pod",
    "without_pod",
]


UPLINK = "eth0"
"""The node's interface to the other nodes."""
GATEWAY_IPV4 = "169.254.1.1"
GATEWAY_IPV6 = "fe80::1"
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
"""The node's end of every pod link, as Calico has it: one address suits all, the links are point to point."""


def _pod_state(lab: str, node_name: str, node: int, spec: PodSpec, index: int, ipv6: bool) -> PodState:
    return PodState(
        name=spec.name,
        namespace=spec.namespace,
        service_account=spec.service_account,
        uid=f"Kubernetes//Pod/{spec.namespace}/{spec.name}",
        index=index,
        netns=f"{NETNS_PREFIX}{lab}-{node_name}-{spec.name}",
        veth=f"veth{index}",
        ipv4=f"10.{10 + node}.{index >> 8}.{index & 255}",
        ipv6=f"fd00:10:{node:x}::{index:x}" if ipv6 else None,
    )


def _indexes(specs: tuple[PodSpec, ...]) -> list[int]:
    """A number for each pod: the asked ones first, the rest from 1 up around them."""
    taken = {spec.index for spec in specs}
    free = (n for n in range(1, MAX_PODS + 1) if n not in taken)
    return [spec.index if spec.index is not None else next(free) for spec in specs]


def lay_out(spec: LabSpec, name: str, token: str, owner: Owner) -> LabState:
    """The lab's record for ``spec``. Raises :class:`LabSpecError` when two places would share one namespace name."""
    nodes = []
    for n, node in enumerate(spec.nodes, 1):
        indexes = _indexes(node.pods)
        nodes.append(
            NodeState(
                name=node.name,
                index=n,
                netns=f"{NETNS_PREFIX}{name}-{node.name}",
                uplink=UPLINK,
                underlay_ipv4=f"172.30.0.{n}",
                underlay_ipv6=f"fd00:30::{n:x}" if spec.ipv6 else None,
                last_index=max(indexes, default=0),
                pods=tuple(_pod_state(name, node.name, n, p, i, spec.ipv6) for p, i in zip(node.pods, indexes, strict=True)),
            )
        )
    state = LabState(
        version=1,
        name=name,
        token=token,
        persistent=False,
        owner=owner,
        ipv6=spec.ipv6,
        switch_netns=f"{NETNS_PREFIX}{name}.switch",
        nodes=tuple(nodes),
    )
    _check_distinct(state)
    return state


def _check_distinct(state: LabState) -> None:
    seen: set[str] = set()
    for name in state.netns_names():
        if name in seen:
            raise LabSpecError(
                f"two places of the lab would be the namespace {name!r}", "rename one: a '-' joins node and pod name there"
            )
        seen.add(name)


def with_pod(state: LabState, node_name: str, spec: PodSpec) -> tuple[LabState, NodeState, PodState]:
    """The record with one more pod. Raises :class:`LabUnknown` or :class:`LabBusy`."""
    node = next((n for n in state.nodes if n.name == node_name), None)
    if node is None:
        raise LabUnknown(f"lab {state.name} has no node {node_name!r}", f"it has {', '.join(n.name for n in state.nodes)}")
    index = spec.index if spec.index is not None else node.last_index + 1
    if index > MAX_PODS:
        raise LabBusy(f"node {node_name} has used all its {MAX_PODS} pod numbers", "give PodSpec an index that is free again")
    if any(spec.name in (n.name, *(p.name for p in n.pods)) for n in state.nodes):
        raise LabBusy(f"lab {state.name} has a node or pod named {spec.name!r} already", "take another name")
    if any(pod.index == index for pod in node.pods):
        raise LabBusy(f"pod number {index} of node {node_name} is in use", "take another index, or none")
    pod = _pod_state(state.name, node.name, node.index, spec, index, state.ipv6)
    new_node = msgspec.structs.replace(node, pods=(*node.pods, pod), last_index=max(index, node.last_index))
    new = _with_node(state, new_node)
    _check_distinct(new)
    return new, new_node, pod


def without_pod(state: LabState, pod_name: str) -> tuple[LabState, NodeState, PodState]:
    """The record with one pod less, the node as it now is and the pod as it was. Raises :class:`LabUnknown`."""
    for node in state.nodes:
        for pod in node.pods:
            if pod.name == pod_name:
                new_node = msgspec.structs.replace(node, pods=tuple(p for p in node.pods if p.name != pod_name))
                return _with_node(state, new_node), new_node, pod
    raise LabUnknown(f"lab {state.name} has no pod {pod_name!r}", f"`ambient lab list` shows what {state.name} holds")


def _with_node(state: LabState, node: NodeState) -> LabState:
    return msgspec.structs.replace(state, nodes=tuple(node if n.name == node.name else n for n in state.nodes))


def sysctls(*, ipv6: bool, forward: bool) -> tuple[tuple[str, str], ...]:
    """What every namespace is given before its first link exists, as links inherit ``default``.

    Reverse-path filtering is off because the proxy dials pods from the client's address (a transparent socket), and the
    answer of such a connection arrives where no route leads back. Duplicate address detection is off: addresses work at once.
    """
    scopes = ("all", "default")
    v4 = [(f"net/ipv4/conf/{scope}/rp_filter", "0") for scope in scopes]
    if forward:
        v4.append(("net/ipv4/ip_forward", "1"))
    if not ipv6:
        return (*v4, *((f"net/ipv6/conf/{scope}/disable_ipv6", "1") for scope in scopes))
    v6 = [
        (f"net/ipv6/conf/{scope}/{key}", value)
        for scope in scopes
        for key, value in (("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0"))
    ]
    if forward:
        v6.append(("net/ipv6/conf/all/forwarding", "1"))
    return (*v4, *v6)


def marker_alias(state: LabState) -> str:
    """Alias of ``lo`` in each namespace: says whose it is when the state file is lost."""
    owner = state.owner
    return f"ambient-lab:{state.name}:{state.token}:{owner.pid}:{owner.start_ticks}:{owner.boot_id}:{owner.pid_namespace}"


def _common(state: LabState) -> list[str]:
    return ["link set lo up", f"link set lo alias {marker_alias(state)}"]


def switch_batch(state: LabState) -> list[str]:
    """Run in the switch's namespace, first of all."""
    return [*_common(state), "link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up"]


def node_batch(state: LabState, node: NodeState) -> list[str]:
    """Run in the node's namespace after the switch's: uplink, addresses, and routes to the other nodes' pods."""
    lines = [
        *_common(state),
        f"link add {UPLINK} address {_node_mac(node)} type veth peer name port{node.index} netns {state.switch_netns}",
        f"link set {UPLINK} up",
        f"address add {node.underlay_ipv4}/16 dev {UPLINK}",
    ]
    if node.underlay_ipv6:
        lines.append(f"address add {node.underlay_ipv6}/64 dev {UPLINK} nodad")
    for other in state.nodes:
        if other.name != node.name:
            lines.append(f"route add 10.{10 + other.index}.0.0/16 via {other.underlay_ipv4} dev {UPLINK}")
            if other.underlay_ipv6:
                lines.append(f"route add fd00:10:{other.index:x}::/64 via {other.underlay_ipv6} dev {UPLINK}")
    for pod in node.pods:
        lines += pod_link_batch(node, pod)
    return lines


def node_port_batch(node: NodeState) -> list[str]:
    """Run in the switch's namespace once the node's link is there."""
    return [f"link set port{node.index} master br0 addrgenmode none up"]


def _node_mac(node: NodeState) -> str:
    return f"02:30:00:00:00:{node.index:02x}"


def _pod_mac(node: NodeState, pod: PodState) -> str:
    return f"02:10:00:{node.index:02x}:{pod.index >> 8:02x}:{pod.index & 255:02x}"


def pod_link_batch(node: NodeState, pod: PodState) -> list[str]:
    """Run in the node's namespace: the pod's link, made at once in its two places, and the route to the pod.

    ``src`` makes the node speak to its pods from its own address, as a kubelet's probes do.
    """
    mac = _pod_mac(node, pod)
    lines = [
        f"link add {pod.veth} address {GATEWAY_MAC} type veth peer name eth0 address {mac} netns {pod.netns}",
        f"link set {pod.veth} addrgenmode none up",
        f"neighbour replace {pod.ipv4} lladdr {mac} dev {pod.veth} nud permanent",
        f"route add {pod.ipv4}/32 dev {pod.veth} src {node.underlay_ipv4}",
    ]
    if pod.ipv6:
        lines += [
            f"address add {GATEWAY_IPV6}/64 dev {pod.veth} nodad",
            f"neighbour replace {pod.ipv6} lladdr {mac} dev {pod.veth} nud permanent",
            f"route add {pod.ipv6}/128 dev {pod.veth} src {node.underlay_ipv6}",
        ]
    return lines


def pod_batch(state: LabState, pod: PodState) -> list[str]:
    """Run in the pod's namespace, after the node's."""
    lines = [
        *_common(state),
        "link set eth0 up",
        f"address add {pod.ipv4}/32 dev eth0",
        f"neighbour replace {GATEWAY_IPV4} lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        f"route add {GATEWAY_IPV4}/32 dev eth0 scope link",
        f"route add default via {GATEWAY_IPV4} dev eth0",
    ]
    if pod.ipv6:
        lines += [
            f"address add {pod.ipv6}/128 dev eth0 nodad",
            f"neighbour replace {GATEWAY_IPV6} lladdr {GATEWAY_MAC} dev eth0 nud permanent",
            f"route add default via {GATEWAY_IPV6} dev eth0",
        ]
    return lines
