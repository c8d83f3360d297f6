"""Workloads that call the proxy's own ports: refused with a reason, no loop, and nothing worse afterwards."""

import socket

import pytest

from tests.system.apps import PORT, Server, Town, connect, cpu, ending, until

PORTS = (15001, 15006, 15008)


def targets(town: Town, client: str) -> dict[str, tuple[str, str]]:
    own = town.lab.pods[client]
    return {
        "localhost": ("127.0.0.1", "::1"),
        "own": (own.ipv4, own.ipv6 or ""),
        "same node": (town.near.ipv4, town.near.ipv6 or ""),
        "other node": (town.far.ipv4, town.far.ipv6 or ""),
        "plain pod": (town.plain_2.ipv4, town.plain_2.ipv6 or ""),
        "vip": ("10.96.0.9", "fd00:96::9"),
    }


@pytest.mark.parametrize("client", ["client", "plain-1"])
def test_calls_to_the_proxys_own_ports_go_nowhere(town: Town, client: str) -> None:
    town.mesh.services.append(
        {
            "name": "trap",
            "namespace": "shop",
            "hostname": "trap.shop.svc.cluster.local",
            "vips": ["/10.96.0.9", "/fd00:96::9"],
            "ports": {p: p for p in PORTS},
        }
    )
    town.mesh.overrides["far"] = {"services": {"shop/trap.shop.svc.cluster.local": {p: p for p in PORTS}}}
    town.apply()
    pids = [town.proxy(n) for n in (town.node_1, town.node_2)]
    seen: dict[tuple[str, str, int], str] = {}
    for name, addresses in targets(town, client).items():
        if name == "vip" and client == "plain-1":
            continue  # no such address outside the mesh
        for ip in addresses:
            for port in PORTS:
                seen[name, ip, port] = call(town, client, ip, port)
    bad = {k: v for k, v in seen.items() if v not in ("reset", "refused", "unreachable", "fin")}
    assert not bad
    until(lambda: not town.open_connections())
    # All that could loop would do so now: the proxies must be idle.
    before = [cpu(pid) for pid in pids]
    town.works()
    town.works(town.client, town.near)
    assert [cpu(pid) - was < 0.2 for pid, was in zip(pids, before, strict=True)] == [True, True]
    if client == "client":
        town.logged(town.node_1, "recursive_call")
    town.logged(town.node_2, "complete")
    reasons = {line["reason"] for node in (town.node_1, town.node_2) for line in town.lines(node)} - {"complete"}
    assert reasons <= {
        "recursive_call",
        "tls_failure",
        "app_refused",
        "peer_refused",
        "app_unreachable",
        "no_healthy_upstream",
        "certificate_untrusted",
        "wrong_destination",
        "client_reset",
    }, reasons


def call(town: Town, client: str, ip: str, port: int) -> str:
    try:
        sock = connect(town.lab.pods[client], ip, port, seconds=2)
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except OSError as error:
        return "unreachable" if not isinstance(error, TimeoutError) else "silence"
    with sock:
        try:
            sock.sendall(b"CONNECT 10.0.0.1:80 HTTP/1.1\r\n\r\n" * 3)
        except OSError:
            return "reset"
        while (end := ending(sock)) == "data":
            pass
        return end


@pytest.mark.parametrize("port", PORTS)
def test_a_call_of_ones_own_pod_is_told_as_recursive(town: Town, port: int) -> None:
    """Captured on the way out where capture sees it; otherwise met by the listener itself."""
    with town.counted((town.node_1, "recursive_call" if port != 15008 else "tls_failure")):
        assert call(town, "client", "127.0.0.1", port) in ("reset", "fin", "refused")
    town.works()


@pytest.mark.parametrize("port", PORTS)
def test_a_call_of_another_pods_port_is_refused_before_it_leaves(town: Town, port: int) -> None:
    for server in (town.near, town.far):
        with town.counted((town.node_1, "recursive_call")):
            assert call(town, "client", server.ipv4, port) == "reset"
            assert town.logged(town.node_1, "recursive_call")["dst.addr"] == f"{server.ipv4}:{port}"
    town.works()


def test_a_call_to_an_address_that_the_state_does_not_list_ends_too(town: Town) -> None:
    """A second address of the pod: nothing redirects the call, and passing it on would be to call ourselves without end."""
    town.client.run(["ip", "address", "add", "10.99.0.1/32", "dev", "lo"])
    try:
        for port in (15001, 15006):
            assert call(town, "client", "10.99.0.1", port) in ("reset", "refused")
        town.logged(town.node_1, "recursive_call")
        assert not town.open_connections()
    finally:
        town.client.run(["ip", "address", "del", "10.99.0.1/32", "dev", "lo"])
    town.works()


def test_a_pod_cannot_reach_its_neighbour_as_loopback(town: Town) -> None:
    """Bound to ::1 its connection is redirected all the same; the neighbour must not see ::1, nor policy judge it."""
    assert town.near.ipv6
    with Server(town.near), town.client.socket(socket.AF_INET6) as sock:
        sock.settimeout(5)
        sock.bind(("::1", 0))
        try:
            sock.connect((town.near.ipv6, PORT))
            assert ending(sock) == "reset"
        except ConnectionError:
            pass  # the reset was quicker than connect()
        town.logged(town.node_1, "source_spoofed")
    town.works()
