"""Two data planes joined by a real tunnel: what one application sends, the other gets, and nothing else."""

import hashlib
import socket
from collections.abc import Iterator

import pytest

from tests.worlds import LOCAL, Mesh, accept, listener, records, tcp_pair, without_listeners, world
from ztunnel.dataplane import proxy as proxy_module
from ztunnel.dataplane.inbound import InboundConn, InboundPlan
from ztunnel.dataplane.outbound import OutboundConn
from ztunnel.dataplane.relay import StreamConn
from ztunnel.dataplane.sockets import reset_on_close
from ztunnel.hbone.errors import ErrorCode
from ztunnel.link.messages import Party
from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Deliver

MEBIBYTE = 1 << 20


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    without_listeners(monkeypatch)
    with world() as client, world() as server:
        made = Mesh(client, server)
        yield made
        made.close()


def conn_of(mesh: Mesh, *, client: bool) -> StreamConn:
    """The one connection of a side."""
    (conn,) = (mesh.client if client else mesh.server).conns()
    assert isinstance(conn, OutboundConn if client else InboundConn)
    return conn


def reads(mesh: Mesh, sock: socket.socket, size: int = 1 << 62) -> bytes:
    """``size`` bytes, or all until FIN."""
    data = bytearray()
    done = False

    def more() -> bool:
        nonlocal done
        try:
            part = sock.recv(MEBIBYTE)
        except BlockingIOError:
            return False
        data.extend(part)
        done = not part
        return done or len(data) >= size

    mesh.until(more)
    return bytes(data)


def is_reset(mesh: Mesh, sock: socket.socket) -> bool:
    """Whether RST is what comes next, whatever bytes come before."""
    found = False

    def more() -> bool:
        nonlocal found
        try:
            return not sock.recv(MEBIBYTE)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            found = True
            return True

    mesh.until(more)
    return found


def fill(mesh: Mesh, sock: socket.socket, idle: int = 30) -> int:
    """Send until nothing moves any more."""
    total = quiet = 0
    while quiet < idle:
        try:
            total += sock.send(bytes(1 << 16))
            quiet = 0
        except BlockingIOError:
            quiet += 1
            mesh.turn()
    return total


def ended(mesh: Mesh) -> tuple[CloseReason, CloseReason]:
    """Both sides' reasons, once both are there."""
    mesh.until(lambda: mesh.client.idle and mesh.server.idle)
    (ours,), (theirs,) = records(mesh.client), records(mesh.server)
    return CloseReason(ours.reason), CloseReason(theirs.reason)


def test_data_is_exact_both_ways_at_once(mesh: Mesh) -> None:
    app, there = mesh.connect()
    size = 12 * MEBIBYTE
    up, down = bytes(range(256)) * (size // 256), bytes(reversed(range(256))) * (size // 256)
    got = {app: hashlib.sha256(), there: hashlib.sha256()}
    left, count = {app: memoryview(up), there: memoryview(down)}, {app: 0, there: 0}

    def step() -> bool:
        for sock in (app, there):
            try:
                left[sock] = left[sock][sock.send(left[sock]) :]
            except BlockingIOError:
                pass
            try:
                part = sock.recv(MEBIBYTE)
                got[sock].update(part)
                count[sock] += len(part)
            except BlockingIOError:
                pass
        return count[app] == count[there] == size

    mesh.until(step, seconds=60)
    assert got[there].digest() == hashlib.sha256(up).digest()
    assert got[app].digest() == hashlib.sha256(down).digest()
    assert conn_of(mesh, client=True).from_app == conn_of(mesh, client=False).to_app == size
    assert conn_of(mesh, client=True).to_app == conn_of(mesh, client=False).from_app == size


def test_fin_is_fin_each_way(mesh: Mesh) -> None:
    app, there = mesh.connect()
    app.send(b"all I have")
    app.shutdown(socket.SHUT_WR)
    assert reads(mesh, there) == b"all I have"
    there.send(b"and so do I")
    there.close()
    assert reads(mesh, app) == b"and so do I"
    assert ended(mesh) == (CloseReason.COMPLETE, CloseReason.COMPLETE)
    assert not mesh.client_pod.pool.tunnels()[0].session.streams


def test_the_server_may_end_first(mesh: Mesh) -> None:
    app, there = mesh.connect()
    there.shutdown(socket.SHUT_WR)
    assert reads(mesh, app) == b""
    app.send(b"late")
    assert reads(mesh, there, 4) == b"late"
    app.close()
    assert reads(mesh, there) == b""
    assert ended(mesh) == (CloseReason.COMPLETE, CloseReason.COMPLETE)


def test_rst_of_the_client_is_rst_at_the_server(mesh: Mesh) -> None:
    app, there = mesh.connect()
    reset_on_close(app)
    app.close()
    assert is_reset(mesh, there)
    assert ended(mesh) == (CloseReason.CLIENT_RESET, CloseReason.CLIENT_RESET)


def test_rst_of_the_server_is_rst_at_the_client(mesh: Mesh) -> None:
    app, there = mesh.connect()
    reset_on_close(there)
    there.close()
    assert is_reset(mesh, app)
    assert ended(mesh) == (CloseReason.SERVER_RESET, CloseReason.SERVER_RESET)


def test_an_early_fin_reaches_an_application_that_accepts_late(mesh: Mesh) -> None:
    """END_STREAM while the application is still being connected to must not be forgotten."""
    app, there = mesh.connect()
    tunnel = next(iter(mesh.server_pod.server_tunnels))
    stream = tunnel.session.streams[1]
    slow = InboundConn(tunnel, stream, "late")
    near, far = tcp_pair()
    slow._attach(near)
    slow.opened(mesh.server.registry.series("destination", Party(), Party(), "", "mutual_tls", "tunnel"))
    slow.tunnel_end()
    slow._start()
    assert reads(mesh, far) == b""
    far.close()
    del app, there


def test_what_came_before_no_error_is_delivered(mesh: Mesh) -> None:
    """A server that has said everything and wants no more says END_STREAM, then RST_STREAM NO_ERROR (RFC 9113 §8.1)."""
    app, there = mesh.connect()
    sent = fill(mesh, there)
    conn = conn_of(mesh, client=True)
    assert conn.pending
    there_conn = conn_of(mesh, client=False)
    # The peer's bytes that are on their way arrive first.
    stream = conn.stream
    assert stream is not None
    held = conn.to_app + len(conn.pending)
    conn.tunnel_end()
    conn.tunnel_reset(int(ErrorCode.NO_ERROR))
    assert len(reads(mesh, app)) == held
    assert conn.closed
    assert mesh.client_pod.held == 0
    assert sent >= held
    there_conn.kill(CloseReason.DRAINED)


def test_an_orderly_reset_with_nothing_left_ends_at_once(mesh: Mesh) -> None:
    app, _ = mesh.connect()
    conn = conn_of(mesh, client=True)
    conn.tunnel_reset(int(ErrorCode.NO_ERROR))
    assert reads(mesh, app) == b""
    (record,) = records(mesh.client)
    assert record.reason == CloseReason.COMPLETE
    conn_of(mesh, client=False).kill(CloseReason.DRAINED)


def test_a_full_outbox_on_a_lost_tunnel_ends_the_connection_without_a_fault(mesh: Mesh) -> None:
    app, there = mesh.connect()
    conn = conn_of(mesh, client=True)
    tunnel = conn.tunnel
    out = tunnel.take_out()
    out.length = len(out.data) - 100
    app.send(bytes(1_000))
    tunnel.sock.shutdown(socket.SHUT_RDWR)  # the flush in the middle of the handler finds the tunnel broken
    conn.on_event(1)
    mesh.until(lambda: conn.closed)
    (record,) = records(mesh.client)
    assert record.reason == CloseReason.TUNNEL_LOST
    del there


def test_credit_is_given_only_for_what_the_application_took(mesh: Mesh) -> None:
    app, there = mesh.connect()
    sent = fill(mesh, app)
    here, far = conn_of(mesh, client=True), conn_of(mesh, client=False)
    assert far.pending is not None
    limit = mesh.server.session_limits.stream_window
    assert len(far.pending) <= limit
    assert here.from_app - far.to_app <= limit
    assert here.stream is not None
    assert here.stream.send_window <= limit - len(far.pending)
    assert here._pausing
    app.shutdown(socket.SHUT_WR)
    assert len(reads(mesh, there)) == sent


def test_a_stalled_stream_leaves_its_neighbours_alone(mesh: Mesh) -> None:
    stalled, _ = mesh.connect()
    fill(mesh, stalled)
    app, there = mesh.connect()
    assert len(mesh.client_pod.pool.tunnels()) == 1
    for _ in range(30):  # more than a connection window in all
        app.setblocking(False)
        total, data = 0, bytes(MEBIBYTE)
        left = memoryview(data)

        def step() -> bool:
            nonlocal left, total
            try:
                left = left[app.send(left) :]
            except BlockingIOError:
                pass
            try:
                total += len(there.recv(MEBIBYTE))
            except BlockingIOError:
                pass
            return total == MEBIBYTE

        mesh.until(step)


def test_beyond_the_budget_a_stalled_stream_costs_window_and_gives_it_back(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "HELD_BYTES", 100_000)
    app, there = mesh.connect()
    sent = fill(mesh, app)
    far = conn_of(mesh, client=False)
    assert far.pending is not None
    assert far.stream is not None
    assert mesh.server_pod.held == len(far.pending)
    assert 0 < far.stream.deferred <= len(far.pending)
    session = far.session
    app.shutdown(socket.SHUT_WR)
    assert len(reads(mesh, there)) == sent
    assert mesh.server_pod.held == 0
    assert far.stream is None or far.stream.deferred == 0
    assert session.recv_window + session._unacked == mesh.server.session_limits.connection_window


def test_killing_a_stalled_stream_gives_its_window_back(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "HELD_BYTES", 100_000)
    app, there = mesh.connect()
    fill(mesh, app)
    far = conn_of(mesh, client=False)
    session = far.session
    far.kill(CloseReason.POLICY_CHANGED, "why")
    assert is_reset(mesh, app)
    assert is_reset(mesh, there)
    mesh.until(lambda: mesh.client.idle)
    for _ in range(5):
        mesh.turn()
    assert mesh.server_pod.held == 0
    assert session.recv_window + session._unacked == mesh.server.session_limits.connection_window


def test_end_and_data_for_a_stream_that_is_gone_are_ignored(mesh: Mesh) -> None:
    app, there = mesh.connect()
    far = conn_of(mesh, client=False)
    session = far.session
    app.send(bytes(100_000))
    app.shutdown(socket.SHUT_WR)
    far.kill(CloseReason.POLICY_CHANGED)  # RST_STREAM and their DATA cross
    assert is_reset(mesh, app)
    del there
    mesh.until(lambda: mesh.client.idle)
    assert session.recv_window + session._unacked == mesh.server.session_limits.connection_window
    again, there = mesh.connect()
    again.send(b"next")
    assert reads(mesh, there, 4) == b"next"


def test_a_lost_tunnel_resets_both_applications(mesh: Mesh) -> None:
    app, there = mesh.connect()
    conn_of(mesh, client=True).tunnel.lost(CloseReason.TUNNEL_LOST, "pulled")
    assert is_reset(mesh, app)
    assert is_reset(mesh, there)
    assert ended(mesh) == (CloseReason.TUNNEL_LOST, CloseReason.TUNNEL_LOST)


def test_a_refused_application_is_told_and_looks_dead(mesh: Mesh) -> None:
    with listener() as gone:
        port = int(gone.getsockname()[1])
    app, _ = mesh.open(port)
    assert is_reset(mesh, app)
    assert ended(mesh) == (CloseReason.PEER_REFUSED, CloseReason.APP_REFUSED)


def test_a_refusal_names_our_reason_at_the_other_end(mesh: Mesh) -> None:
    app, _ = mesh.open(15008)
    assert is_reset(mesh, app)
    mesh.until(lambda: mesh.client.idle)
    (record,) = records(mesh.client)
    (theirs,) = records(mesh.server)
    assert record.trace == theirs.trace != ""
    assert f"({theirs.reason})" in record.detail


def test_hup_while_the_tunnel_takes_nothing_does_not_spin(mesh: Mesh) -> None:
    app, there = mesh.connect()
    conn = conn_of(mesh, client=True)
    sent = 0

    def stalled() -> bool:
        nonlocal sent
        if not conn._pausing:
            sent += app.send(bytes(1 << 16))
        return conn._pausing and conn_of(mesh, client=False).pending is not None

    mesh.until(stalled)
    there.shutdown(socket.SHUT_WR)
    assert reads(mesh, app) == b""
    app.close()  # FIN, and ours is sent already: a hang-up while its last bytes are not read yet
    mesh.until(lambda: conn._muted)
    for _ in range(3):
        mesh.turn()
    before = mesh.client.loop.events
    mesh.turn()
    assert mesh.client.loop.events == before
    assert len(reads(mesh, there)) == sent
    assert ended(mesh) == (CloseReason.COMPLETE, CloseReason.COMPLETE)


def test_a_fault_in_a_handler_ends_that_connection_alone(mesh: Mesh) -> None:
    app, _ = mesh.connect()
    other, there = mesh.connect()
    first = next(iter(mesh.client.registry.conns))
    assert isinstance(first, OutboundConn)
    first.series = None  # a bug
    app.send(b"x")
    assert is_reset(mesh, app)
    assert mesh.client.faults == 1
    other.send(b"y")
    assert reads(mesh, there, 1) == b"y"


def test_an_inbound_plan_is_dialled_in_the_pod(mesh: Mesh) -> None:
    app, there = mesh.connect()
    tunnel = next(iter(mesh.server_pod.server_tunnels))
    conn = InboundConn(tunnel, tunnel.session.streams[1], "x")
    with listener() as here:
        port = int(here.getsockname()[1])
        series = mesh.server.registry.series("destination", Party(), Party(), "", "mutual_tls", "tunnel")
        conn.begin(InboundPlan(Deliver(LOCAL, port), series, None, "", "default/p", "why"))
        mesh.until(lambda: conn.connected)
        accept(here).close()
    view = conn.view()
    assert (view.actual, view.policy, view.why) == (f"{LOCAL}:{port}", "default/p", "why")
    conn.kill(CloseReason.INTERNAL)
    del app, there
