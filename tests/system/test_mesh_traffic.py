"""Connections through the whole mesh: every path, every byte, and every way a connection ends."""

import hashlib
import random
import socket
import threading

import pytest

from ambient.lab import Pod
from tests.system.apps import (
    PORT,
    Server,
    Town,
    attempt,
    connect,
    ending,
    noise,
    read_all,
    read_exactly,
    reset,
    sent_meanwhile,
    until,
)

PATHS = ("tunnel", "same_node", "plaintext", "passthrough")


def ends_of(town: Town, path: str) -> tuple[Pod, Pod]:
    """Client and server of a path."""
    return {
        "tunnel": (town.client, town.far),
        "same_node": (town.client, town.near),
        "plaintext": (town.plain_1, town.far),
        "passthrough": (town.client, town.plain_2),
    }[path]


def log_ends(town: Town, path: str) -> list[tuple[str, str]]:
    """(node, direction) of the lines a connection of the path leaves."""
    return {
        "tunnel": [("node-1", "outbound"), ("node-2", "inbound")],
        "same_node": [("node-1", "outbound"), ("node-1", "inbound")],
        "plaintext": [("node-2", "inbound")],
        "passthrough": [("node-1", "outbound")],
    }[path]


def logged(town: Town, path: str, reason: str) -> None:
    for node, direction in log_ends(town, path):
        town.logged(town.lab.nodes[node], reason, direction=direction, path=path)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("path", PATHS)
def test_a_connection_is_carried_and_the_app_sees_the_client(town: Town, path: str, family: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app, connect(client, getattr(server, family)) as sock:
        there, source = app.accept()
        with there:
            assert source == getattr(client, family)
            sock.sendall(b"question")
            assert read_exactly(there, 8) == b"question"
            there.sendall(b"answer")
            there.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"answer"
            sock.close()
            assert ending(there) == "fin"
    logged(town, path, "complete")
    for node, direction in log_ends(town, path):
        line = town.logged(town.lab.nodes[node], "complete", direction=direction, path=path)
        assert (line["bytes_sent"], line["bytes_recv"]) == (("6", "8") if direction == "inbound" else ("8", "6"))


@pytest.mark.parametrize("path", PATHS)
def test_bytes_are_exact_both_ways_at_once(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    up, down = noise(6_000_000, 1), noise(5_000_000, 2)
    with Server(server) as app, connect(client, server.ipv4) as sock:
        there, _ = app.accept()
        with there:
            got: dict[str, bytes] = {}
            readers = [
                threading.Thread(target=lambda: got.update(up=read_exactly(there, len(up)))),
                threading.Thread(target=lambda: got.update(down=read_exactly(sock, len(down)))),
            ]
            threads = [*readers, sent_meanwhile(sock, up), sent_meanwhile(there, down)]
            for reader in readers:
                reader.start()
            for thread in threads:
                thread.join(20)
    assert hashlib.sha256(got["up"]).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(got["down"]).digest() == hashlib.sha256(down).digest()


@pytest.mark.parametrize("path", PATHS)
def test_the_client_closes_half_and_still_reads(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app, connect(client, server.ipv4) as sock:
        sock.sendall(b"all I say")
        sock.shutdown(socket.SHUT_WR)
        there, _ = app.accept()
        with there:
            assert read_all(there) == b"all I say"
            answer = noise(1_000_000)
            sender = sent_meanwhile(there, answer)
            assert read_exactly(sock, len(answer)) == answer
            sender.join()
            there.shutdown(socket.SHUT_WR)
            assert ending(sock) == "fin"
    logged(town, path, "complete")


@pytest.mark.parametrize("path", PATHS)
def test_the_server_closes_half_and_still_reads(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app, connect(client, server.ipv4) as sock:
        there, _ = app.accept()
        with there:
            there.sendall(b"welcome")
            there.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"welcome"
            body = noise(1_000_000)
            sender = sent_meanwhile(sock, body)
            assert read_exactly(there, len(body)) == body
            sender.join()
            sock.shutdown(socket.SHUT_WR)
            assert ending(there) == "fin"
    logged(town, path, "complete")


@pytest.mark.parametrize("path", PATHS)
def test_a_silent_half_close_is_carried_at_once(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app, connect(client, server.ipv4) as sock:
        sock.shutdown(socket.SHUT_WR)
        there, _ = app.accept()
        with there:
            assert ending(there) == "fin"
            there.sendall(b"late")
            there.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"late"
    logged(town, path, "complete")


@pytest.mark.parametrize("path", PATHS)
def test_a_clients_reset_reaches_the_app_as_reset(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app:
        sock = connect(client, server.ipv4)
        there, _ = app.accept()
        with there:
            sock.sendall(b"x")
            assert read_exactly(there, 1) == b"x"
            reset(sock)
            assert ending(there) == "reset"
    logged(town, path, "client_reset")
    town.works()


@pytest.mark.parametrize("path", PATHS)
def test_an_apps_reset_reaches_the_client_as_reset(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app, connect(client, server.ipv4) as sock:
        there, _ = app.accept()
        there.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        reset(there)
        assert ending(sock) == "reset"
    logged(town, path, "server_reset")
    town.works()


@pytest.mark.parametrize("path", PATHS)
def test_a_reset_after_half_a_close_is_a_reset(town: Town, path: str) -> None:
    client, server = ends_of(town, path)
    with Server(server) as app, connect(client, server.ipv4) as sock:
        sock.shutdown(socket.SHUT_WR)
        there, _ = app.accept()
        assert ending(there) == "fin"
        reset(there)
        assert ending(sock) == "reset"
    logged(town, path, "server_reset")


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_closes_with_unread_data_ends_the_connection(town: Town, path: str) -> None:
    """close() with bytes unread is RST on the wire; the app must learn of it."""
    client, server = ends_of(town, path)
    with Server(server) as app:
        sock = connect(client, server.ipv4)
        there, _ = app.accept()
        with there:
            there.sendall(noise(100_000))
            assert read_exactly(sock, 10)
            sock.close()
            assert ending(there) in ("reset", "fin")
            until(lambda: not _still_open(there))
    logged(town, path, "client_reset")


def _still_open(sock: socket.socket) -> bool:
    try:
        sock.send(b"x")
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "reasons"),
    [
        ("tunnel", [("node-1", "peer_refused"), ("node-2", "app_refused")]),
        ("same_node", [("node-1", "app_refused")]),
        ("plaintext", [("node-2", "app_refused")]),
        ("passthrough", [("node-1", "app_refused")]),
    ],
)
def test_an_app_that_refuses_looks_refused(town: Town, path: str, reasons: list[tuple[str, str]]) -> None:
    client, server = ends_of(town, path)
    with town.counted(*((town.lab.nodes[node], reason) for node, reason in reasons)):
        assert attempt(client, server.ipv4, 4444, seconds=1) in ("reset", "refused")
    if path == "tunnel":
        assert "app_refused" in town.logged(town.node_1, "peer_refused")["error"]
    town.works()


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_vanishes_before_the_answer(town: Town, path: str) -> None:
    """Its connection is given up on both nodes; nothing is left open."""
    client, server = ends_of(town, path)
    with Server(server) as app:
        for _ in range(20):
            reset(connect(client, server.ipv4))
        for _ in range(20):
            connect(client, server.ipv4).close()

        until(lambda: (app.idle() or app.accept()[0].close() is None) and not town.open_connections(), said="some are left open")
    town.works()


def test_an_app_that_speaks_first_and_a_client_that_sends_before_the_answer(town: Town) -> None:
    with Server(town.far).echo(b"220 hello\n"), connect(town.client, town.far.ipv4) as sock:
        sock.sendall(b"EHLO")
        assert read_exactly(sock, 14) == b"220 hello\nEHLO"


def test_plain_client_and_plain_server_are_left_alone(town: Town) -> None:
    with Server(town.plain_2) as app, connect(town.plain_1, town.plain_2.ipv4):
        there, source = app.accept()
        there.close()
        assert source == town.plain_1.ipv4
    assert not town.lines(town.node_1)
    assert not town.lines(town.node_2)


def service(town: Town, vip: str, *pods: Pod) -> None:
    town.mesh.services.append(
        {
            "name": "web",
            "namespace": "shop",
            "hostname": "web.shop.svc.cluster.local",
            "vips": [f"/{vip}"],
            "ports": {80: PORT},
        }
    )
    for pod in pods:
        town.mesh.overrides[pod.name] = {"services": {"shop/web.shop.svc.cluster.local": {80: PORT}}}
    town.apply()


def test_a_service_spreads_over_its_endpoints(town: Town) -> None:
    """Endpoints of both nodes, so of both paths, get traffic; log and metric name the service."""
    service(town, "10.96.0.1", town.far, town.near)
    with Server(town.far).echo(b"far "), Server(town.near).echo(b"near"):
        seen = set()
        for _ in range(60):
            with connect(town.client, "10.96.0.1", 80) as sock:
                seen.add(read_exactly(sock, 4))
            if len(seen) == 2:
                break
    assert seen == {b"far ", b"near"}
    for node, workload in ((town.node_2, "far"), (town.node_1, "near")):
        line = until(lambda node=node, workload=workload: [x for x in town.lines(node) if x.get("dst.workload") == workload])[0]
        assert line["dst.service"] == "web.shop.svc.cluster.local"


def test_a_service_port_that_does_not_exist_is_refused(town: Town) -> None:
    service(town, "10.96.0.1", town.far)
    with town.counted((town.node_1, "no_healthy_upstream")):
        assert attempt(town.client, "10.96.0.1", 81) == "reset"
    town.works()


def test_a_service_without_endpoints_is_refused(town: Town) -> None:
    service(town, "10.96.0.2")
    with town.counted((town.node_1, "no_healthy_upstream")):
        assert attempt(town.client, "10.96.0.2", 80) == "reset"
    assert town.logged(town.node_1, "no_healthy_upstream", direction="outbound")["dst.addr"] == "10.96.0.2:80"
    town.works()


@pytest.mark.parametrize("path", ["tunnel", "same_node"])
def test_five_hundred_connections_at_once(town: Town, path: str) -> None:
    """More than one tunnel's worth; each gets its own bytes."""
    client, server = ends_of(town, path)
    rng = random.Random(7)
    with Server(server).echo():
        socks = [connect(client, server.ipv4, seconds=20) for _ in range(500)]
        try:
            words = [rng.randbytes(rng.randint(1, 3000)) for _ in socks]
            for sock, word in zip(socks, words, strict=True):
                sock.sendall(word)
            for sock, word in zip(socks, words, strict=True):
                assert read_exactly(sock, len(word)) == word
            if path == "tunnel":
                assert town.metric(town.node_1, "ambient_dataplane_connections_open") >= 0
                views = town.dump(town.node_1)["workloadState"][client.uid]["connections"]["outbound"]
                assert len(views) == 500
        finally:
            for sock in socks:
                sock.close()
    until(
        lambda: sum(line["reason"] == "complete" for line in town.lines(town.node_1)) >= 500,
        said="not every connection ended well",
    )
