"""ambient.lab.plan: addresses and `ip` lines, literally."""

import pytest

from ambient.lab import plan
from ambient.lab.errors import LabBusy, LabSpecError, LabUnknown
from ambient.lab.spec import LabSpec, NodeSpec, PodSpec
from ambient.lab.state import LabState, Owner

OWNER = Owner(pid=7, start_ticks=99, boot_id="b-1", pid_namespace=5)
SPEC = LabSpec(
    (
        NodeSpec("node-a", (PodSpec("client", "shop", "buyer"), PodSpec("far", index=300))),
        NodeSpec("node-b", (PodSpec("server"),)),
    )
)


def laid(spec: LabSpec = SPEC, name: str = "t") -> LabState:
    return plan.lay_out(spec, name, "tok", OWNER)


def test_addresses_follow_from_node_and_pod_number() -> None:
    state = laid()
    a, b = state.nodes
    assert (a.underlay_ipv4, a.underlay_ipv6, a.netns, a.uplink) == ("172.30.0.1", "fd00:30::1", "amb-t-node-a", "eth0")
    assert (b.underlay_ipv4, b.underlay_ipv6) == ("172.30.0.2", "fd00:30::2")
    client, far = a.pods
    assert (client.ipv4, client.ipv6, client.uid) == ("10.11.0.1", "fd00:10:1::1", "Kubernetes//Pod/shop/client")
    assert (far.ipv4, far.ipv6, far.netns) == ("10.11.1.44", "fd00:10:1::12c", "amb-t-node-a-far")
    assert state.netns_names() == (
        "amb-t.switch",
        "amb-t-node-a",
        "amb-t-node-b",
        "amb-t-node-a-client",
        "amb-t-node-a-far",
        "amb-t-node-b-server",
    )


def test_highest_node_and_pod_stay_in_their_prefix() -> None:
    state = laid(LabSpec.simple(245, 0))
    _, node, pod = plan.with_pod(state, "node-245", PodSpec("last", index=65_000))
    assert (pod.ipv4, pod.ipv6, node.underlay_ipv4) == ("10.255.253.232", "fd00:10:f5::fde8", "172.30.0.245")


def test_indexes_asked_for_are_not_given_to_others() -> None:
    spec = LabSpec((NodeSpec("n", (PodSpec("a"), PodSpec("b", index=1), PodSpec("c"))),))
    assert [pod.index for pod in laid(spec).nodes[0].pods] == [2, 1, 3]


def test_names_that_meet_in_one_namespace_are_refused() -> None:
    spec = LabSpec((NodeSpec("a", (PodSpec("b-c"),)), NodeSpec("a-b", (PodSpec("c"),))))
    with pytest.raises(LabSpecError, match="amb-t-a-b-c"):
        laid(spec)


def test_node_lines() -> None:
    state = laid()
    assert plan.node_batch(state, state.nodes[1]) == [
        "link set lo up",
        "link set lo alias ambient-lab:t:tok:7:99:b-1:5",
        "link add eth0 address 02:30:00:00:00:02 type veth peer name port2 netns amb-t.switch",
        "link set eth0 up",
        "address add 172.30.0.2/16 dev eth0",
        "address add fd00:30::2/64 dev eth0 nodad",
        "route add 10.11.0.0/16 via 172.30.0.1 dev eth0",
        "route add fd00:10:1::/64 via fd00:30::1 dev eth0",
        "link add veth1 address ee:ee:ee:ee:ee:ee type veth peer name eth0 address 02:10:00:02:00:01 netns amb-t-node-b-server",
        "link set veth1 addrgenmode none up",
        "neighbour replace 10.12.0.1 lladdr 02:10:00:02:00:01 dev veth1 nud permanent",
        "route add 10.12.0.1/32 dev veth1 src 172.30.0.2",
        "address add fe80::1/64 dev veth1 nodad",
        "neighbour replace fd00:10:2::1 lladdr 02:10:00:02:00:01 dev veth1 nud permanent",
        "route add fd00:10:2::1/128 dev veth1 src fd00:30::2",
    ]


def test_pod_lines_without_ipv6_name_no_ipv6_address() -> None:
    state = laid(LabSpec(SPEC.nodes, ipv6=False))
    lines = plan.pod_batch(state, state.nodes[0].pods[0])
    assert lines[2:] == [
        "link set eth0 up",
        "address add 10.11.0.1/32 dev eth0",
        "neighbour replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent",
        "route add 169.254.1.1/32 dev eth0 scope link",
        "route add default via 169.254.1.1 dev eth0",
    ]
    every = [*plan.switch_batch(state), *(line for node in state.nodes for line in plan.node_batch(state, node))]
    assert not [line for line in every if "fd00" in line or "fe80" in line]


def test_sysctls_forward_on_nodes_only_and_never_filter_by_reverse_path() -> None:
    pod, node = dict(plan.sysctls(ipv6=True, forward=False)), dict(plan.sysctls(ipv6=True, forward=True))
    assert pod["net/ipv4/conf/all/rp_filter"] == pod["net/ipv4/conf/default/rp_filter"] == "0"
    assert pod["net/ipv6/conf/default/accept_dad"] == "0"
    assert set(node) - set(pod) == {"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"}
    assert dict(plan.sysctls(ipv6=False, forward=True))["net/ipv6/conf/all/disable_ipv6"] == "1"


def test_a_removed_pods_address_is_not_taken_again_unless_asked_for() -> None:
    state, _, gone = plan.without_pod(laid(), "far")
    state, _, next_pod = plan.with_pod(state, "node-a", PodSpec("next"))
    assert (gone.index, next_pod.index) == (300, 301)
    state, _, same = plan.with_pod(state, "node-a", PodSpec("again", index=300))
    assert same.ipv4 == gone.ipv4
    assert [pod.name for pod in state.nodes[0].pods] == ["client", "next", "again"]


def test_pods_that_cannot_be_added_or_removed() -> None:
    state = laid()
    with pytest.raises(LabUnknown, match="no node 'node-x'"):
        plan.with_pod(state, "node-x", PodSpec("p"))
    with pytest.raises(LabBusy, match="named 'server'"):
        plan.with_pod(state, "node-a", PodSpec("server"))
    with pytest.raises(LabBusy, match="number 300"):
        plan.with_pod(state, "node-a", PodSpec("p", index=300))
    with pytest.raises(LabUnknown, match="no pod 'nobody'"):
        plan.without_pod(state, "nobody")
