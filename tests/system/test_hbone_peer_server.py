"""A server made of the h2 library where our real proxy expects a peer's port 15008."""

import contextlib
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests import frames as f
from tests.system.peers.apps import in_thread
from tests.system.peers.bench import Bench, bench, identity, receive_exactly
from tests.system.peers.dialled import Port15008, client_hello
from tests.system.peers.h2peer import H2Peer, S
from tests.system.peers.wire import Wire, hard_close
from ztunnel.hbone import frames as fr

REFUSED_STREAM = 7
CANCEL = 8
VIP = "10.96.0.10"
BAGGAGE = (
    b"k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=app,service.name=app,service.version=v1,"
    b"cloud.region=here,cloud.availability_zone=there"
)


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("hbone"), vip=VIP) as it:
        yield it


@pytest.fixture
def port(b: Bench) -> Iterator[Port15008]:
    """Closing it ends all tunnels to it, so that each test begins without any."""
    with Port15008(b) as it:
        yield it


@contextlib.contextmanager
def called(b: Bench, port: int = 80, to: str | None = None) -> Iterator[socket.socket]:
    """A connection of ``app``'s application to ``peer``."""
    with contextlib.closing(b.app.socket()) as sock:
        sock.settimeout(8)
        sock.connect((to or b.peer.ipv4, port))
        yield sock


@contextlib.contextmanager
def many(b: Bench, n: int, port: int = 80) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(called(b, port)) for _ in range(n)]


def assert_reset(sock: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def settle(server: H2Peer) -> None:
    """Until all that was sent has been taken."""
    before = len(server.pongs)
    server.h2.ping(b"settled?")
    server.flush()
    server.until(lambda: len(server.pongs) > before)


def first(server: H2Peer) -> int:
    """The number of the first request."""
    server.until(lambda: server.heard)
    return min(server.heard)


def test_client_hello(b: Bench, port: Port15008):
    with called(b):
        hello = client_hello(port.accept_tcp())
    assert sorted(hello.suites) == [0x1301, 0x1302]  # AES-256-GCM, AES-128-GCM
    assert hello.extensions[43] == b"\x02\x03\x04"  # TLS 1.3 only
    assert hello.extensions[16] == b"\x00\x03\x02h2"
    assert 0 not in hello.extensions  # no SNI
    assert not {35, 41, 42} & set(hello.extensions)  # nothing to resume with, no early data


def test_settings_and_header_set(b: Bench, port: Port15008):
    mark = b.mark()
    with called(b, 8443) as app, port.accept() as server:
        source = f"{b.app.ipv4}:{app.getsockname()[1]}"
        sid = first(server)
        assert server.settings == {2: 0, 4: 4_194_304, 5: 1_048_576, 6: 16_384}
        server.until(lambda: server.connection_window == 16_777_216)
        headers = server.heard[sid].headers
        assert headers[:4] == [
            (b":method", b"CONNECT"),
            (b":authority", f"{b.peer.ipv4}:8443".encode()),
            (b"baggage", BAGGAGE),
            (b"forwarded", f'for="{source}"'.encode()),
        ]
        name, value = headers[4]
        assert name == b"traceparent"
        trace = re.fullmatch(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-00", value)
        assert len(headers) == 5
        assert server.sock.version() == "TLSv1.3"
        server.answer(sid)
        app.sendall(b"ping")
        server.until(lambda: server.heard[sid].data == b"ping")
        server.send(sid, b"pong", end=True)
        assert receive_exactly(app, 5) == b"pong"
        app.shutdown(socket.SHUT_WR)
        server.until(lambda: server.heard[sid].ended)
    assert trace is not None
    line = b.logged(mark, f"trace={trace[1].decode()}")
    for part in (
        f'src.identity="{identity("app")}"',
        f'dst.identity="{identity("peer")}"',
        f"dst.addr={b.peer.ipv4}:",
        f"dst.hbone_addr={b.peer.ipv4}:8443",
        'direction="outbound"',
        "bytes_sent=4 bytes_recv=4",
        "reason=complete",
    ):
        assert part in line


def test_ipv6(b: Bench):
    with contextlib.closing(b.peer.socket(socket.AF_INET6)) as listening, contextlib.closing(b.app.socket(socket.AF_INET6)) as app:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("::", 15008))
        listening.listen()
        listening.settimeout(8)
        app.settimeout(8)
        app.connect((b.peer.ipv6, 80))
        raw, _ = listening.accept()
        raw.settimeout(8)
        with H2Peer(b.context(b.peer_leaf, server=True).wrap_socket(raw, server_side=True), client=False) as server:
            heard = server.heard[first(server)]
            assert heard.value(b":authority") == f"[{b.peer.ipv6}]:80".encode()
            assert heard.value(b"forwarded") == f'for="[{b.app.ipv6}]:{app.getsockname()[1]}"'.encode()


def test_a_service_is_named_in_forwarded(b: Bench, port: Port15008):
    with called(b, 80, VIP), port.accept() as server:
        heard = server.heard[first(server)]
        assert heard.value(b":authority") == f"{b.peer.ipv4}:8081".encode()
        assert heard.value(b"forwarded").endswith(b";host=web.default.svc.cluster.local")


def test_bytes_are_exact_both_ways(b: Bench, port: Port15008):
    payload = bytes(range(256)) * (24 << 10)
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        sending = in_thread(lambda: (app.sendall(payload), app.shutdown(socket.SHUT_WR)))
        server.until(lambda: server.heard[sid].ended)
        sending()
        assert bytes(server.heard[sid].data) == payload
        receiving = in_thread(lambda: receive_exactly(app, len(payload) + 1))
        server.send(sid, payload, end=True)
        assert receiving() == payload


def test_a_peer_with_default_settings_gets_frames_of_16_kib(b: Bench, port: Port15008):
    payload = bytes(range(256)) * (4 << 10)
    with called(b) as app, port.accept({}, window=65_535) as server:
        sid = first(server)
        server.answer(sid)
        sending = in_thread(lambda: app.sendall(payload))
        server.until(lambda: len(server.heard[sid].data) == len(payload))
        sending()
        assert max(server.heard[sid].frames) <= 16_384
        assert server.heard[sid].data == payload


def test_tiny_windows(b: Bench, port: Port15008):
    payload = bytes(range(256)) * 32
    with called(b) as app, port.accept({S.INITIAL_WINDOW_SIZE: 1}) as server:
        sid = first(server)
        server.answer(sid)
        app.sendall(payload)
        server.until(lambda: server.heard[sid].data == payload)
        # Requests are opened before the peer's SETTINGS arrive, but data waits for the answer.
        assert max(server.heard[sid].frames) == 1


def test_a_window_of_zero_then_settings_in_mid_stream(b: Bench, port: Port15008):
    payload = bytes(300_000)
    with called(b) as app, port.accept({S.INITIAL_WINDOW_SIZE: 0, S.MAX_FRAME_SIZE: 1 << 20}) as server:
        sid = first(server)
        server.answer(sid)
        sending = in_thread(lambda: app.sendall(payload))
        assert not server.pump(0.2) or not server.heard[sid].data
        server.credit = False
        server.h2.update_settings({S.INITIAL_WINDOW_SIZE: 100_000})
        server.flush()
        server.until(lambda: len(server.heard[sid].data) == 100_000)
        server.h2.update_settings({S.INITIAL_WINDOW_SIZE: 50_000, S.MAX_FRAME_SIZE: 16_384})  # the window is now negative
        server.flush()
        server.h2.increment_flow_control_window(50_000, sid)
        server.flush()
        while server.pump(0.2):
            pass
        assert len(server.heard[sid].data) == 100_000
        at = len(server.heard[sid].frames)
        server.credit = True
        server.give_credit(sid)
        server.flush()
        server.until(lambda: len(server.heard[sid].data) == len(payload))
        sending()
        assert max(server.heard[sid].frames[at:]) <= 16_384


def test_connections_share_a_tunnel_and_the_101st_opens_another(b: Bench, port: Port15008):
    with many(b, 100), port.accept() as server:
        server.until(lambda: len(server.heard) == 100)
        assert not port.dialled(0.1)
        with called(b), port.accept() as second:
            second.until(lambda: second.heard)
            for sid in server.heard:
                server.answer(sid)
            # One ends: its place is used again.
            server.reset(min(server.heard))
            settle(server)
            with called(b):
                server.until(lambda: len(server.heard) == 101)
                assert not port.dialled(0.1)


def test_a_tunnel_is_used_again_one_after_the_other(b: Bench, port: Port15008):
    with called(b), port.accept() as server:
        first(server)
        for n in range(2, 6):
            with called(b):
                server.until(lambda n=n: len(server.heard) == n)
        assert not port.dialled(0.1)


def test_a_peer_that_takes_fewer_streams(b: Bench, port: Port15008):
    with called(b), port.accept({S.MAX_CONCURRENT_STREAMS: 3}) as server:
        server.answer(first(server))
        settle(server)
        with many(b, 3), port.accept({S.MAX_CONCURRENT_STREAMS: 3}) as second:
            server.until(lambda: len(server.heard) == 3)
            second.until(lambda: second.heard)


def test_a_burst_to_a_peer_that_takes_fewer_streams(b: Bench, port: Port15008):
    """Streams are opened before the peer's SETTINGS arrive; those it refuses find a place all the same."""
    wanted, limit = 50, 10
    deadline = time.monotonic() + 10
    with many(b, wanted) as apps, contextlib.ExitStack() as stack:
        servers: dict[H2Peer, set[int]] = {}
        while sum(map(len, servers.values())) < wanted:
            assert time.monotonic() < deadline, [len(sids) for sids in servers.values()]
            if port.dialled(0.01):
                servers[stack.enter_context(port.accept(streams=limit))] = set()
            for server, served in servers.items():
                server.pump(0.01)
                for sid in [sid for sid, heard in server.heard.items() if sid not in served and heard.reset is None]:
                    if len(served) < limit:
                        server.answer(sid)
                        served.add(sid)
                    else:
                        server.reset(sid, REFUSED_STREAM)
                        server.heard[sid].reset = -1
        for n, app in enumerate(apps):
            app.sendall(n.to_bytes(4, "big"))
        got = set()
        for server, served in servers.items():
            server.until(lambda server=server, served=served: all(len(server.heard[sid].data) == 4 for sid in served))
            got |= {int.from_bytes(server.heard[sid].data, "big") for sid in served}
        assert got == set(range(wanted))


def test_a_peer_that_takes_no_streams_at_all(b: Bench, port: Port15008):
    mark = b.mark()
    with called(b) as app, contextlib.ExitStack() as stack:
        while not any("reason=peer_refused" in line for line in b.lines(mark)):
            with Wire(port.accept_tls(), f.settings((3, 0))) as wire:
                with contextlib.suppress(AssertionError):
                    wire.send(f.rst(wire.until(fr.HEADERS, 0.5).stream, REFUSED_STREAM))
                stack.callback(wire.close)
                with contextlib.suppress(AssertionError):
                    b.logged(mark, "reason=peer_refused", seconds=0.3)
        assert_reset(app)
    b.logged(mark, "reason=peer_refused", "takes no streams")


def test_goaway_opens_a_new_tunnel_and_open_streams_go_on(b: Bench, port: Port15008):
    with called(b) as old, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        server.send(sid, b"hello")
        assert receive_exactly(old, 5) == b"hello"
        server.sock.sendall(f.goaway(sid))
        with called(b), port.accept() as second:
            second.until(lambda: second.heard)
            assert len(server.heard) == 1
            old.sendall(b"still")
            server.until(lambda: server.heard[sid].data == b"still")
            server.send(sid, b"here", end=True)
            assert receive_exactly(old, 5) == b"here"
            old.shutdown(socket.SHUT_WR)
            server.until_closed()  # nothing is left in it


@pytest.mark.parametrize("how", ["goaway", "refused_stream"])
def test_a_request_that_was_not_looked_at_is_tried_again(b: Bench, port: Port15008, how: str):
    with called(b) as app, port.accept() as server:
        sid = first(server)
        if how == "goaway":
            server.sock.sendall(f.goaway(0))
            taker = port.accept()
        else:
            server.reset(sid, REFUSED_STREAM)
            taker = server
        taker.until(lambda: len(taker.heard) == (1 if taker is not server else 2))
        again = max(taker.heard)
        taker.answer(again)
        taker.send(again, b"second try")
        assert receive_exactly(app, 10) == b"second try"
        taker.close()


def test_a_peer_that_refuses_for_ever_is_given_up(b: Bench, port: Port15008):
    mark = b.mark()
    with called(b) as app, port.accept() as server:
        tries = 0
        while not any("reason=peer_refused" in line for line in b.lines(mark)) and tries < 20:
            server.pump(0.1)
            for sid, heard in server.heard.items():
                if heard.reset is None:
                    server.reset(sid, REFUSED_STREAM)
                    heard.reset = -1
                    tries += 1
        assert 1 < tries < 10
        assert_reset(app)
    b.logged(mark, "reason=peer_refused", "reset the request")


@pytest.mark.parametrize(
    ("status", "reason", "flag"),
    [
        (401, "peer_denied", "DENY"),
        (400, "peer_refused", "CONNECT"),
        (503, "peer_refused", "CONNECT"),
        (204, "peer_refused", "CONNECT"),
    ],
)
@pytest.mark.parametrize("end", [True, False], ids=["ended", "open"])
def test_another_answer_than_200(b: Bench, port: Port15008, status: int, reason: str, flag: str, end: bool):
    mark = b.mark()
    with called(b) as app, port.accept() as server:
        server.answer(first(server), status, ("x-ambient-reason", "app_refused"), end=end)
        assert_reset(app)
        b.logged(mark, f"reason={reason}", f"http status: {status}", "app_refused")
        with called(b):  # the tunnel is still good
            server.until(lambda: len(server.heard) == 2)


def test_a_body_after_a_refusal_is_harmless(b: Bench, port: Port15008):
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid, 503, end=False)
        with contextlib.suppress(Exception):
            server.h2.send_data(sid, b"sorry", end_stream=True)
        server.flush()
        assert_reset(app)
        with called(b):
            server.until(lambda: len(server.heard) == 2)


def test_half_close_by_the_peer(b: Bench, port: Port15008):
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        server.send(sid, b"done", end=True)
        assert receive_exactly(app, 5) == b"done"
        app.sendall(b"still here")
        server.until(lambda: server.heard[sid].data == b"still here")
        app.shutdown(socket.SHUT_WR)
        server.until(lambda: server.heard[sid].ended)


def test_half_close_by_the_application(b: Bench, port: Port15008):
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        app.sendall(b"question")
        app.shutdown(socket.SHUT_WR)
        server.until(lambda: server.heard[sid].ended)
        assert server.heard[sid].data == b"question"
        server.send(sid, b"answer", end=True)
        assert receive_exactly(app, 7) == b"answer"


def test_an_application_that_is_done_before_the_answer(b: Bench, port: Port15008):
    with called(b) as app, port.accept() as server:
        app.sendall(b"question")
        app.shutdown(socket.SHUT_WR)
        sid = first(server)
        server.answer(sid)
        server.until(lambda: server.heard[sid].ended)
        assert server.heard[sid].data == b"question"


def test_reset_by_the_peer_is_a_reset(b: Bench, port: Port15008):
    mark = b.mark()
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        server.send(sid, b"part")
        assert receive_exactly(app, 4) == b"part"
        server.reset(sid, CANCEL)
        assert_reset(app)
    b.logged(mark, "reason=server_reset")


def test_reset_by_the_application_is_a_reset(b: Bench, port: Port15008):
    mark = b.mark()
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        server.send(sid, b"part")
        assert receive_exactly(app, 4) == b"part"
        hard_close(app)
        server.until(lambda: server.heard[sid].reset is not None)
        assert server.heard[sid].reset == CANCEL
    b.logged(mark, "reason=client_reset")


def test_an_answer_cut_off_by_no_error_arrives_whole(b: Bench, port: Port15008):
    """RFC 9113 §8.1: a server that is done may say so by RST_STREAM NO_ERROR. What it sent before is not to be lost."""
    payload = bytes(range(256)) * (8 << 10)  # 2 MiB: more than the application's socket takes at once
    with called(b) as app, port.accept() as server:
        sid = first(server)
        server.answer(sid)
        server.send(sid, payload, end=True)
        server.reset(sid, 0)
        settle(server)
        assert receive_exactly(app, len(payload) + 1) == payload


def test_tcp_closed_in_mid_stream_is_a_reset(b: Bench, port: Port15008):
    mark = b.mark()
    with called(b) as app:
        with port.accept() as server:
            sid = first(server)
            server.answer(sid)
            server.send(sid, b"part")
            assert receive_exactly(app, 4) == b"part"
        assert_reset(app)
    b.logged(mark, "reason=tunnel_lost")


def test_nothing_listens(b: Bench):
    mark = b.mark()
    with pytest.raises(ConnectionResetError), called(b) as app:  # already connect() may see it
        app.recv(1)
    b.logged(mark, "reason=peer_unreachable", "15008")


def test_a_peer_that_never_answers(b: Bench, port: Port15008):
    """One that speaks TLS and not a word more, and one that does not even do that."""
    mark = b.mark()
    with called(b) as app, port.accept() as server:
        first(server)
        with contextlib.closing(b.call(b.peer, 80, by=b.other)) as other, port.accept_tcp():
            app.settimeout(17)
            other.settimeout(17)
            assert_reset(other)
            b.logged(mark, f"src.addr={b.other.ipv4}", "reason=peer_timeout", "no HBONE handshake", "within 10 s")
            assert_reset(app)
            b.logged(mark, f"src.addr={b.app.ipv4}", "reason=peer_timeout", "did not answer within 15 s")


def test_a_slow_application_holds_back_its_stream_alone(b: Bench, port: Port15008):
    """It takes its window; the bytes of another on the same tunnel pass."""
    with called(b) as slow, called(b) as quick, port.accept() as server:
        server.until(lambda: len(server.heard) == 2)
        sids = sorted(server.heard)
        for sid in sids:
            server.answer(sid)
        server.send(sids[0], b"1")
        server.send(sids[1], b"2")
        if quick.recv(1) == b"1":
            slow, quick = quick, slow
        else:
            assert slow.recv(1) == b"1"
        held = 0
        while (n := min(server.h2.local_flow_control_window(sids[0]), 65_536)) > 0 or server.pump(0.3):
            if n:
                server.h2.send_data(sids[0], bytes(n))
                server.flush()
                held += n
            server.pump(0)
        assert 4_000_000 < held < 16_000_000
        before = b.rss()
        payload = bytes(20 << 20)  # more than the connection's window
        receiving = in_thread(lambda: len(receive_exactly(quick, len(payload))))
        server.send(sids[1], payload, seconds=20)
        assert receiving() == len(payload)
        assert b.rss() < before + (8 << 20)
        assert len(receive_exactly(slow, held)) == held


def test_an_unsolicited_stream_reset_of_an_answered_request_leaves_the_tunnel(b: Bench, port: Port15008):
    with called(b) as app, Wire(port.accept_tls(), f.SERVER_HELLO) as wire:
        sid = wire.until(fr.HEADERS).stream
        wire.send(f.headers(sid, b"\x88"))
        wire.send(f.rst(sid, 2) + f.rst(sid, 2) + f.data(sid, b"late"))
        assert_reset(app)
        with called(b):
            wire.until(fr.HEADERS, stream=sid + 2)


def test_metrics_agree_with_the_log(b: Bench):
    b.assert_counted()
