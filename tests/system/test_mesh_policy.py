"""L4 policy in the whole mesh: who is let in, what the refused see, and what a change does to open connections."""

import time

import pytest

from tests.system.apps import Server, Town, attempt, connect, ending, read_exactly

CLIENT = "cluster.local/ns/shop/sa/client"
OTHER = "cluster.local/ns/bank/sa/other"


def principal(name: str) -> list[list[list[dict[str, object]]]]:
    return [[[{"principals": [{"Exact": name}]}]]]


def allowed(town: Town, client: str, server: str, family: str = "ipv4", port: int = 8080) -> bool:
    pods = town.lab.pods
    with Server(pods[server], port).echo():
        try:
            with connect(pods[client], getattr(pods[server], family), port) as sock:
                sock.sendall(b"?")
                return read_exactly(sock, 1) == b"?"
        except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
            return False


@pytest.mark.parametrize("server", ["far", "near"])
def test_only_the_allowed_principal_gets_in(town: Town, server: str) -> None:
    town.policy("one", "Allow", principal(CLIENT))
    town.apply()
    assert allowed(town, "client", server)
    assert not allowed(town, "other", server)
    assert not allowed(town, "plain-1", server)
    assert allowed(town, "client", server, "ipv6")


def test_a_refusal_is_told_in_three_places_across_nodes(town: Town) -> None:
    town.policy("no-bank", "Deny", principal(OTHER))
    town.apply()
    with Server(town.far) as app, town.counted((town.node_1, "peer_denied"), (town.node_2, "policy_denied")):
        assert attempt(town.other, town.far.ipv4) == "reset"
        assert app.idle()
    assert town.logged(town.node_2, "policy_denied", direction="inbound")["policy"] == "shop/no-bank"
    told = town.logged(town.node_1, "peer_denied", direction="outbound")
    assert "401" in told["error"]
    assert told["policy"] == "shop/no-bank"
    assert town.metric(town.node_2, "istio_tcp_connections_closed_total", response_flags="DENY", source_workload="other") >= 1
    assert allowed(town, "client", "far")


def test_a_refusal_is_told_in_three_places_on_one_node(town: Town) -> None:
    town.policy("no-bank", "Deny", principal(OTHER))
    town.apply()
    with Server(town.near) as app, town.counted((town.node_1, "policy_denied")):
        assert attempt(town.other, town.near.ipv4) == "reset"
        assert app.idle()
    for direction in ("outbound", "inbound"):
        assert town.logged(town.node_1, "policy_denied", direction=direction)["policy"] == "shop/no-bank"
    assert allowed(town, "client", "near")


def test_a_refusal_is_told_in_three_places_for_plain_text(town: Town) -> None:
    town.policy("mesh-only", "Deny", [[[{"notPrincipals": [{"Presence": []}]}]]])
    town.apply()
    with Server(town.far) as app, town.counted((town.node_2, "policy_denied")):
        assert attempt(town.plain_1, town.far.ipv4) == "reset"
        assert app.idle()
    assert town.logged(town.node_2, "policy_denied", path="plaintext")["policy"] == "shop/mesh-only"
    assert allowed(town, "client", "far")


def test_an_allow_policy_without_rules_shuts_the_door(town: Town) -> None:
    town.policy("nobody", "Allow", [])
    town.apply()
    with town.counted((town.node_2, "policy_not_allowed"), (town.node_1, "peer_denied"), (town.node_1, "policy_not_allowed")):
        assert attempt(town.client, town.far.ipv4) == "reset"
        assert attempt(town.client, town.near.ipv4) == "reset"
    town.mesh.policies.clear()
    town.apply()
    town.works()


def test_by_namespace_port_and_address(town: Town) -> None:
    town.policy("bank-9000", "Deny", [[[{"namespaces": [{"Exact": "bank"}]}], [{"destinationPorts": [9000]}]]])
    town.policy("not-that-ip", "Deny", [[[{"sourceIps": [f"{town.near.ipv4}/32"]}]]])
    town.apply()
    for server in ("far", "client"):
        assert not allowed(town, "other", server, port=9000)
        assert allowed(town, "other", server, port=9001)
        assert not allowed(town, "near", server, port=9001)
    assert allowed(town, "client", "far", port=9000)
    assert allowed(town, "near", "far", "ipv6", port=9001)


@pytest.mark.parametrize(("client", "server", "node"), [("client", "far", 2), ("client", "near", 1), ("plain-1", "far", 2)])
def test_a_policy_change_cuts_what_is_no_longer_allowed_and_nothing_else(town: Town, client: str, server: str, node: int) -> None:
    pods = town.lab.pods
    cut = {"client": principal(CLIENT), "plain-1": [[[{"sourceIps": [f"{pods['plain-1'].ipv4}/32"]}]]]}[client]
    ip = pods[server].ipv4
    with Server(pods[server]).echo(), connect(pods[client], ip) as bad, connect(town.far_2, ip) as good:
        for sock in (bad, good):
            sock.sendall(b"1")
            assert read_exactly(sock, 1) == b"1"
        with town.counted((town.lab.nodes[f"node-{node}"], "policy_changed")):
            town.policy("cut", "Deny", cut)
            began = time.monotonic()
            town.apply()
            assert ending(bad) == "reset"
            assert time.monotonic() - began < 1.0
        good.sendall(b"2")
        assert read_exactly(good, 1) == b"2"
        assert town.logged(town.lab.nodes[f"node-{node}"], "policy_changed")["policy"] == "shop/cut"
        assert "no longer allowed after a policy update" in town.since(town.lab.nodes[f"node-{node}"])
        town.mesh.policies.clear()
        town.apply()
        assert allowed(town, client, "far-2")
        good.sendall(b"3")
        assert read_exactly(good, 1) == b"3"


def test_a_policy_name_given_to_a_workload_cuts_its_connections(town: Town) -> None:
    """The policy is there all along; the workload's change makes it apply."""
    town.policy("special", "Deny", principal(CLIENT), scope="WorkloadSelector")
    town.apply()
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        sock.sendall(b"1")
        assert read_exactly(sock, 1) == b"1"
        with town.counted((town.node_2, "policy_changed")):
            town.mesh.overrides["far"] = {"authorizationPolicies": ["shop/special"]}
            town.apply()
            assert ending(sock) == "reset"


@pytest.mark.parametrize(("server", "node"), [("far", 2), ("near", 1)])
def test_an_unknown_policy_name_closes_the_workload(town: Town, server: str, node: int) -> None:
    town.mesh.overrides[server] = {"authorizationPolicies": ["shop/never-heard-of"]}
    town.apply()
    expected = [(town.lab.nodes[f"node-{node}"], "policy_unusable")] + ([(town.node_1, "peer_denied")] if node == 2 else [])
    with Server(town.lab.pods[server]) as app, town.counted(*expected):
        assert attempt(town.client, town.lab.pods[server].ipv4) == "reset"
        assert attempt(town.plain_2, town.lab.pods[server].ipv4) == "reset"
        assert app.idle()
    town.mesh.overrides.clear()
    town.apply()
    assert allowed(town, "client", server)


def test_a_state_that_brings_policy_and_workload_together_refuses_nobody_meanwhile(town: Town) -> None:
    """A policy and the workload that names it arrive in one file: no connection falls between the two."""
    with Server(town.far).echo():
        for i in range(4):
            town.policy(f"fine-{i}", "Allow", principal(CLIENT), scope="WorkloadSelector")
            town.mesh.overrides["far"] = {"authorizationPolicies": [f"shop/fine-{i}"]}
            del town.mesh.policies[:-1]
            town.mesh.write_state()
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:
                with connect(town.client, town.far.ipv4) as sock:
                    sock.sendall(b"?")
                    assert read_exactly(sock, 1) == b"?"
