"""ztunnel is killed, drained and replaced: what its pods' traffic does meanwhile."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ambient.lab import Node
from tests.system.apps import Server, Town, attempt, connect, ending, lone_proxy, read_exactly, until

SECRET = b"this is not for the wire " * 40


@contextmanager
def restarted(town: Town, node: Node, **env: str) -> Iterator[None]:
    """The node's proxy runs with other variables within the block."""
    before = dict(town.mesh.env)
    town.mesh.env.update(env)
    try:
        town.mesh.stop_proxy(node)
        town.mesh.start_proxy(node)
        town.mesh.wait_ready(node)
        town.mark()
        yield
    finally:
        town.mesh.env.clear()
        town.mesh.env.update(before)
        if node.name in town.mesh.proxies:
            town.mesh.stop_proxy(node)
        town.mesh.start_proxy(node)
        town.mesh.wait_ready(node)


def back(town: Town, node: Node) -> None:
    town.mesh.start_proxy(node)
    town.mesh.wait_ready(node)


def test_killed_at_the_source_nothing_leaves_in_clear(town: Town) -> None:
    with Server(town.far).echo(), Server(town.plain_2).echo(), town.lab.sniff(town.node_1, town.node_1.uplink) as wire:
        sock = connect(town.client, town.far.ipv4)
        sock.sendall(SECRET)
        assert read_exactly(sock, len(SECRET)) == SECRET
        town.mesh.stop_proxy(town.node_1, kill=True)
        assert ending(sock) in ("reset", "fin")  # the kernel closes a dead process's sockets
        sock.close()
        for target in (town.far, town.plain_2):
            for ip in (target.ipv4, target.ipv6 or ""):
                assert attempt(town.client, ip) == "refused"
        assert attempt(town.client, town.near.ipv4) == "refused"
        assert attempt(town.plain_2, town.client.ipv4) == "refused"
        assert attempt(town.plain_2, town.client.ipv4, 15008) == "refused"
        back(town, town.node_1)
        town.works()
    assert wire.dropped == 0
    assert wire.frames
    assert SECRET[:25] not in wire.payload
    town.works(town.far_2, town.client)


def test_killed_at_the_destination_the_client_is_reset_and_told(town: Town) -> None:
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        with town.counted((town.node_1, "tunnel_lost"), (town.node_1, "peer_unreachable")):
            town.mesh.stop_proxy(town.node_2, kill=True)
            assert ending(sock) == "reset"
            assert attempt(town.client, town.far.ipv4) == "reset"
            assert attempt(town.plain_1, town.far.ipv4) == "refused"
        back(town, town.node_2)
        town.works()


def test_drain_lets_open_connections_end(town: Town) -> None:
    """Either way through the draining node; nothing new is taken; when the last has ended it ends with status 0."""
    with Server(town.far).echo(), Server(town.client).echo():
        socks = [connect(town.client, town.far.ipv4), connect(town.far, town.client.ipv4), connect(town.plain_1, town.far.ipv4)]
        for sock in socks:
            sock.sendall(b"1")
            assert read_exactly(sock, 1) == b"1"
        proxy = town.mesh.proxies.pop("node-2")
        proxy.terminate()
        until(lambda: "draining" in town.since(town.node_2))
        with town.counted((town.node_1, "peer_unreachable")):
            assert attempt(town.client, town.far.ipv4) == "reset"
        assert attempt(town.plain_1, town.far.ipv4) == "refused"
        assert attempt(town.far, town.client.ipv4) == "refused"
        for sock in socks:
            sock.sendall(b"2")
            assert read_exactly(sock, 1) == b"2"
        assert proxy.poll() is None
        for sock in socks:
            sock.close()
        began = time.monotonic()
        assert proxy.wait(3) == 0
        assert time.monotonic() - began < 2
    for direction in ("inbound", "outbound"):
        town.logged(town.node_2, "complete", direction=direction, path="tunnel")
    town.logged(town.node_2, "complete", path="plaintext")
    back(town, town.node_2)
    town.works()


def test_drain_ends_at_its_deadline(town: Town) -> None:
    with restarted(town, town.node_2, CONNECTION_TERMINATION_DEADLINE="1s"), Server(town.far).echo():
        with connect(town.client, town.far.ipv4) as sock, connect(town.plain_1, town.far.ipv4) as plain:
            for each in (sock, plain):
                each.sendall(b"1")
                assert read_exactly(each, 1) == b"1"
            proxy = town.mesh.proxies.pop("node-2")
            began = time.monotonic()
            proxy.terminate()
            assert ending(sock) == "reset"
            assert ending(plain) == "reset"
            assert 0.9 < time.monotonic() - began < 2.5
            assert proxy.wait(5) == 0
        town.logged(town.node_2, "drained", path="tunnel")
        town.logged(town.node_2, "drained", path="plaintext")
    town.works()


def test_an_idle_proxy_stops_at_once(town: Town) -> None:
    began = time.monotonic()
    proxy = town.mesh.proxies.pop("node-2")
    proxy.terminate()
    assert proxy.wait(3) == 0
    assert time.monotonic() - began < 1.5
    back(town, town.node_2)
    town.works()


def test_quitquitquit_answers_and_drains(town: Town) -> None:
    proxy = town.mesh.proxies.pop("node-2")
    assert town.mesh.get(town.node_2, 15000, "/quitquitquit", method="GET")[0] == 405
    assert proxy.poll() is None
    status, body = town.mesh.get(town.node_2, 15000, "/quitquitquit", method="POST")
    assert (status, "shutdown now" in body) == (200, True)
    assert proxy.wait(5) == 0
    back(town, town.node_2)
    town.works()


def test_a_replacement_takes_over_while_the_old_one_drains(town: Town) -> None:
    """Two proxies of one node overlap as in a rolling upgrade; no new connection fails, no open one is cut."""
    env = {"ADMIN_PORT": "16000", "STATS_PORT": "16020", "READINESS_PORT": "16021"}
    with Server(town.far).echo(), Server(town.client).echo():
        old = [connect(town.client, town.far.ipv4), connect(town.far, town.client.ipv4), connect(town.plain_1, town.far.ipv4)]
        for sock in old:
            sock.sendall(b"1")
            assert read_exactly(sock, 1) == b"1"
        first = town.mesh.proxies.pop("node-2")
        town.mesh.env.update(env)
        try:
            town.mesh.start_proxy(town.node_2)
        finally:
            for name in env:
                del town.mesh.env[name]
        second = town.mesh.proxies["node-2"]

        def ready() -> bool:
            try:
                return town.mesh.get(town.node_2, 16021, "/healthz/ready")[0] == 200
            except OSError:
                return False

        until(ready, 10)
        pairs = [(town.client, town.far), (town.far, town.client), (town.plain_1, town.far)]
        failed = []
        first.terminate()
        for i in range(90):
            client, server = pairs[i % 3]
            try:
                with connect(client, server.ipv4) as sock:
                    sock.sendall(b"n")
                    if read_exactly(sock, 1) != b"n":
                        failed.append(f"{i}: fin")
            except OSError as error:
                failed.append(f"{i}: {client.name}: {error}")
        assert not failed
        for sock in old:
            sock.sendall(b"2")
            assert read_exactly(sock, 1) == b"2"
            sock.close()
        assert first.wait(5) == 0
        assert second.poll() is None
    town.mesh.stop_proxy(town.node_2)
    back(town, town.node_2)
    town.works()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_proxy_that_was_never_ready_still_stops(town: Town, number: int) -> None:
    with lone_proxy(town, LOCAL_XDS_PATH="/nonexistent/state") as (proxy, said):
        until(lambda: "No such file" in said(), 10, "it does not say what is missing")
        proxy.send_signal(number)
        assert proxy.wait(5) == 0
