"""Tunnels and their pool: who shares one, who waits for one, and how one ends."""

import dataclasses
import socket
from collections.abc import Iterator

import msgspec
import pytest

from tests.worlds import CLIENT, LOCAL, SERVER, Mesh, certificate, listener, records, turn, without_listeners, world
from ztunnel.dataplane import pool as pool_module
from ztunnel.dataplane import proxy as proxy_module
from ztunnel.dataplane import tunnel as tunnel_module
from ztunnel.dataplane.errors import DialError
from ztunnel.dataplane.outbound import ANSWER_TIMEOUT, ClientTunnel, OutboundConn
from ztunnel.dataplane.plans import RefusePlan, SpreadPlan, plan_outbound
from ztunnel.dataplane.tunnel import HANDSHAKE_TIMEOUT, MAX_BACKLOG, PING_INTERVAL, PING_TIMEOUT
from ztunnel.hbone.errors import TlsError
from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Refuse, Spread


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    without_listeners(monkeypatch)
    with world() as client, world() as server:
        made = Mesh(client, server)
        yield made
        made.close()


def the_tunnel(mesh: Mesh) -> ClientTunnel:
    (tunnel,) = mesh.client_pod.pool.tunnels()
    return tunnel


def reason(mesh: Mesh) -> CloseReason:
    mesh.until(lambda: mesh.client.idle)
    (record,) = records(mesh.client)
    return CloseReason(record.reason)


def test_connections_that_come_at_once_share_one_tunnel(mesh: Mesh) -> None:
    conns = [mesh.open()[1] for _ in range(10)]
    assert len(the_tunnel(mesh).waiting) == 10
    mesh.until(lambda: all(conn.connected for conn in conns))
    assert mesh.client_pod.pool.count == 1
    assert len(mesh.server_pod.server_tunnels) == 1


def test_more_than_a_tunnel_has_room_for_open_another(mesh: Mesh) -> None:
    limit = mesh.client.session_limits.assumed_peer_streams
    conns = [mesh.open()[1] for _ in range(limit + 5)]
    assert sorted(len(t.waiting) for t in mesh.client_pod.pool.tunnels()) == [5, limit]
    for conn in conns:
        conn.kill(CloseReason.DRAINED)


def test_waiters_are_told_of_a_failure_and_only_they(mesh: Mesh) -> None:
    """The server's certificate is for someone else."""
    mesh.server.identities.arrived(msgspec.structs.replace(certificate(CLIENT.identity), identity=SERVER.identity))
    for _ in range(3):
        mesh.open()
    mesh.until(lambda: mesh.client.idle)
    assert {record.reason for record in records(mesh.client)} == {CloseReason.IDENTITY_MISMATCH}
    assert mesh.client_pod.pool.count == 0
    mesh.server.identities.arrived(certificate(SERVER.identity))
    mesh.connect()


def test_a_node_without_a_proxy_is_unreachable(mesh: Mesh) -> None:
    plan = mesh.plan()
    with listener() as gone:
        dead = (plan.key[0], LOCAL, int(gone.getsockname()[1]), plan.key[3])
    with pytest.raises(DialError) as caught:
        mesh.client_pod.pool.checkout(dataclasses.replace(plan, key=dead))
    assert caught.value.reason is CloseReason.PEER_UNREACHABLE
    assert mesh.client_pod.pool.count == 0


def test_too_many_tunnels_are_refused(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_TUNNELS", 0)
    mesh.open()
    assert reason(mesh) is CloseReason.OVERLOADED


def test_without_a_certificate_the_pool_says_so_and_connections_wait(mesh: Mesh) -> None:
    plan = mesh.plan()
    mesh.client.identities = type(mesh.client.identities)(mesh.client)
    with pytest.raises(TlsError) as caught:
        mesh.client_pod.pool.checkout(plan)
    assert caught.value.reason is CloseReason.CERTIFICATE_UNAVAILABLE
    _, conn = mesh.open()
    mesh.client.identities.arrived(certificate(CLIENT.identity))
    mesh.until(lambda: conn.connected)
    mesh.client.identities = type(mesh.client.identities)(mesh.client)
    conn.kill(CloseReason.DRAINED)
    records(mesh.client)
    mesh.open()
    mesh.client.identities.unavailable(CLIENT.identity, "no CA")
    assert reason(mesh) is CloseReason.CERTIFICATE_UNAVAILABLE


def test_a_discarded_tunnel_takes_nothing_new_and_ends_with_its_last_connection(mesh: Mesh) -> None:
    mesh.connect()
    old = the_tunnel(mesh)
    (server,) = mesh.server_pod.server_tunnels
    server.session.goaway()
    server.flush()
    mesh.until(lambda: not mesh.client_pod.pool.tunnels())
    assert old.alive
    mesh.client_pod.pool.discard(old)
    mesh.connect()
    assert the_tunnel(mesh) is not old
    next(iter(mesh.client.registry.conns)).kill(CloseReason.DRAINED)
    old.tick(mesh.client.loop.now)
    assert not old.alive


def test_an_unused_tunnel_is_released(mesh: Mesh) -> None:
    _, conn = mesh.open()
    mesh.until(lambda: conn.connected)
    conn.kill(CloseReason.DRAINED)
    tunnel, now = the_tunnel(mesh), mesh.client.loop.now
    tunnel.tick(now)
    tunnel.tick(now + mesh.client.config.pool_unused_timeout + 1)
    assert not tunnel.alive
    mesh.until(lambda: not mesh.server.tunnels)


def test_a_peer_that_does_not_answer_ping_is_lost(mesh: Mesh) -> None:
    mesh.connect()
    tunnel, now = the_tunnel(mesh), mesh.client.loop.now
    tunnel.tick(now + PING_INTERVAL + 1)
    assert tunnel._pinged
    mesh.until(lambda: not tunnel._pinged)  # the PONG
    tunnel.tick(now + PING_INTERVAL + 50)
    tunnel.tick(now + PING_INTERVAL + 50 + PING_TIMEOUT)
    assert tunnel.alive
    tunnel.tick(now + PING_INTERVAL + 51 + PING_TIMEOUT)
    assert not tunnel.alive
    assert reason(mesh) is CloseReason.TUNNEL_LOST


def test_a_handshake_that_does_not_come_is_a_timeout(mesh: Mesh) -> None:
    mesh.open()
    tunnel = the_tunnel(mesh)
    tunnel.tick(tunnel.opened_at + HANDSHAKE_TIMEOUT + 1)
    assert reason(mesh) is CloseReason.PEER_TIMEOUT


def test_no_answer_is_a_timeout(mesh: Mesh) -> None:
    mesh.open()
    mesh.client.loop.now += ANSWER_TIMEOUT + 1
    mesh.client._tick()
    assert reason(mesh) in {CloseReason.PEER_TIMEOUT}


def test_a_killed_connection_expects_nothing_more(mesh: Mesh) -> None:
    _, conn = mesh.open()
    conn.kill(CloseReason.DRAINED)
    assert not mesh.client._where


def test_a_blocked_tunnel_keeps_few_control_frames_and_then_ends(mesh: Mesh) -> None:
    mesh.connect()
    tunnel = the_tunnel(mesh)
    tunnel._cipher = bytearray(b"x")  # the socket takes nothing
    frame = bytes(17)
    for _ in range(MAX_BACKLOG // 17):
        tunnel.put(frame)
    turn(mesh.client)
    assert tunnel.alive
    tunnel.put(frame)
    turn(mesh.client)
    assert not tunnel.alive
    mesh.until(lambda: mesh.client.idle)
    ended = records(mesh.client)
    assert {record.reason for record in ended} == {CloseReason.TUNNEL_FLOOD}


def test_control_frames_of_a_blocked_tunnel_follow_when_it_gives_way(mesh: Mesh) -> None:
    app, there = mesh.connect()
    tunnel = the_tunnel(mesh)
    tunnel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sent = 0
    while not tunnel.blocked:  # only the client runs
        try:
            sent += app.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        turn(mesh.client)
    app.shutdown(socket.SHUT_WR)
    tunnel.session.ping(b"12345678")
    assert tunnel._backlog
    got = 0

    def more() -> bool:
        nonlocal got
        try:
            part = there.recv(1 << 20)
        except BlockingIOError:
            return False
        got += len(part)
        return not part

    mesh.until(more)
    assert got == sent
    assert not tunnel.blocked
    assert not tunnel._backlog


def test_outboxes_come_back(mesh: Mesh) -> None:
    mesh.connect()
    the_tunnel(mesh).lost(CloseReason.TUNNEL_LOST, "pulled")
    mesh.until(lambda: mesh.server.idle)
    mesh.turn()
    assert mesh.client.outboxes.lent == mesh.server.outboxes.lent == 0
    assert tunnel_module.OUTBOX


def test_a_request_behind_the_tunnels_end_is_not_taken(mesh: Mesh) -> None:
    mesh.connect()
    (tunnel,) = mesh.server_pod.server_tunnels
    stream = tunnel.session.streams[1]
    tunnel.lost(CloseReason.TUNNEL_LOST, "pulled")
    records(mesh.server)
    tunnel._other(3, stream, [(b":method", b"CONNECT"), (b":authority", f"{LOCAL}:{mesh.port}".encode())])
    assert mesh.server.idle
    assert not records(mesh.server)


def test_plans_are_picked_by_weight(mesh: Mesh) -> None:
    spread = Spread(
        (Refuse(CloseReason.NO_ROUTE, "a"), Refuse(CloseReason.NO_ROUTE, "b"), Refuse(CloseReason.NO_ROUTE, "c")), (1, 1, 4)
    )
    plan = plan_outbound(mesh.client_pod, CLIENT, spread)
    assert isinstance(plan, SpreadPlan)
    picked = [plan.pick() for _ in range(2_000)]
    count = {name: sum(isinstance(p, RefusePlan) and p.detail == name for p in picked) for name in "abc"}
    assert count["b"] == 0
    assert 300 < count["a"] < 700
    assert count["a"] + count["c"] == 2_000


def test_a_plan_is_kept_until_something_changes(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def route(*args: object) -> Refuse:
        asked.append(args)
        return Refuse(CloseReason.NO_ROUTE)

    monkeypatch.setattr("ztunnel.dataplane.proxy.route_outbound", route)
    pod = mesh.client_pod
    pod.workload()

    def capture() -> None:
        with socket.create_connection(mesh.app.getsockname()) as app:
            there, peer = mesh.app.accept()
            there.setblocking(False)
            pod.accept_outbound(there, socket.AF_INET, peer)
            del app

    capture()
    capture()
    assert len(asked) == 1
    mesh.client.bump()
    capture()
    assert len(asked) == 2
    assert OutboundConn.direction == "outbound"


def test_an_idle_tunnel_makes_room_for_another_peer(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "MAX_SERVER_TUNNELS", 1)
    app, there = mesh.connect()
    (first,) = mesh.server_pod.server_tunnels
    mesh.client_pod.pool.discard(the_tunnel(mesh))

    refused, _ = mesh.open()  # the one tunnel is busy
    mesh.until(lambda: len(records(mesh.client)) == 1)
    assert list(mesh.server_pod.server_tunnels) == [first]

    app.close()
    there.close()
    mesh.until(lambda: not first.session.streams)
    mesh.connect()
    assert first not in mesh.server_pod.server_tunnels
    refused.close()


def test_a_fault_with_one_stream_leaves_the_tunnel_alone(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = mesh.connect()
    other, here = mesh.connect()
    conn = next(iter(mesh.client.registry.conns))
    honest = OutboundConn.from_tunnel

    def faulty(self: OutboundConn, view: memoryview) -> None:
        if self is conn:
            raise RuntimeError("a bug")
        honest(self, view)

    monkeypatch.setattr(OutboundConn, "from_tunnel", faulty)
    there.send(b"x")
    mesh.until(lambda: mesh.client.faults == 1)
    mesh.until(lambda: conn.closed)
    assert the_tunnel(mesh).alive
    here.send(b"still here")
    other.setblocking(False)
    got = bytearray()

    def arrived() -> bool:
        try:
            got.extend(other.recv(100))
        except BlockingIOError:
            pass
        return bytes(got) == b"still here"

    mesh.until(arrived)


def test_a_workload_cannot_use_up_what_is_for_all(mesh: Mesh) -> None:
    kept = [mesh.connect() for _ in range(2)]
    assert mesh.client_pod.open == mesh.server_pod.open == 2
    mesh.server.max_connections = 2
    refused, conn = mesh.open()
    mesh.until(lambda: conn.closed)
    (record,) = [r for r in records(mesh.server) if r.reason == CloseReason.OVERLOADED]
    assert "has 3 connections" in record.detail
    for end in kept.pop():
        end.close()
    mesh.until(lambda: mesh.server_pod.open == 1)
    mesh.connect()
    refused.close()
