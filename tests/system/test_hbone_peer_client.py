"""A client made of the h2 library against our real proxy's port 15008."""

import contextlib
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.system.peers.apps import Listening, in_thread, reset, sink
from tests.system.peers.bench import DENIED_PORT, ECHO_PORT, Bench, bench, identity, receive_exactly
from tests.system.peers.h2peer import H2Peer
from tests.system.peers.wire import hard_close

REFUSED_STREAM = 7
CANCEL = 8


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("hbone")) as it:
        yield it


@pytest.fixture
def client(b: Bench) -> Iterator[H2Peer]:
    with H2Peer(b.dial_tls(), client=True) as it:
        yield it


def at(b: Bench, port: int = ECHO_PORT) -> str:
    return f"{b.app.ipv4}:{port}"


@contextlib.contextmanager
def listener(b: Bench, port: int = 0) -> Iterator[socket.socket]:
    """An application of ``app`` driven by the test."""
    with contextlib.closing(b.app.socket()) as sock:
        sock.bind(("", port))
        sock.listen()
        sock.settimeout(8)
        yield sock


def accepted(sock: socket.socket) -> socket.socket:
    it, _ = sock.accept()
    it.settimeout(8)
    return it


def test_settings_are_those_of_ztunnel(client: H2Peer):
    client.until(lambda: client.settings and client.connection_window > 65_535)
    # MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE and no other.
    assert client.settings == {3: 200, 4: 4_194_304, 5: 1_048_576, 6: 65_536}
    assert client.connection_window == 16_777_216


def test_tls_and_certificate(b: Bench):
    with b.dial_tls() as sock:
        assert sock.version() == "TLSv1.3"
        assert sock.selected_alpn_protocol() == "h2"
        assert sock.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        leaf = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [identity("app")]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_bytes_are_exact_both_ways_and_the_application_sees_the_client(b: Bench, family: int):
    address, source = (b.app.ipv4, b.peer.ipv4) if family == socket.AF_INET else (f"[{b.app.ipv6}]", b.peer.ipv6)
    payload = bytes(range(256)) * (24 << 10)  # 6 MiB: more than a stream's window
    with (
        Listening(b.app, 8090, _count_then_send(payload), family=family) as app,
        H2Peer(b.dial_tls(family=family), client=True) as client,
    ):
        sid = client.connect(f"{address}:8090")
        client.send(sid, payload, end=True)
        client.until(lambda: client.heard[sid].ended)
        assert app.results == [len(payload)]
        assert bytes(client.heard[sid].data) == payload
        assert app.peers[0][0] == source


def _count_then_send(payload: bytes):
    def serve(sock: socket.socket) -> int:
        n = sink(sock)
        sock.sendall(payload)
        return n

    return serve


def test_a_client_that_gives_no_credit_gets_its_window_and_no_more(b: Bench):
    payload = bytes(1 << 20)
    with Listening(b.app, 8091, lambda s: s.sendall(payload)), H2Peer(b.dial_tls(), client=True, settings={4: 1000}) as client:
        client.credit = False
        sid = client.connect(at(b, 8091))
        client.until(lambda: len(client.heard[sid].data) == 1000)
        assert not client.pump(0.2)
        assert client.heard[sid].frames == [1000]
        client.credit = True
        client.give_credit(sid)
        client.flush()
        client.until(lambda: len(client.heard[sid].data) > 100_000)
        client.h2.update_settings({4: 1 << 20})
        client.flush()
        client.until(lambda: client.heard[sid].ended)
        assert len(client.heard[sid].data) == len(payload)


def test_our_credit_follows_the_application(b: Bench):
    """An application that does not read holds its client at the announced window; then every byte arrives."""
    payload = bytes(range(256)) * (48 << 10)  # 12 MiB
    with listener(b, 8092) as app, H2Peer(b.dial_tls(), client=True) as client:
        sid = client.connect(at(b, 8092))
        with accepted(app) as sock:
            sent = 0
            quiet = 0
            while quiet < 5 and sent < len(payload):
                n = min(client.h2.local_flow_control_window(sid), 1 << 20, len(payload) - sent)
                if n:
                    client.h2.send_data(sid, payload[sent : sent + n])
                    client.flush()
                    sent += n
                quiet = 0 if client.pump(0.1) or n else quiet + 1
            assert 4_194_304 <= sent < len(payload)
            got = in_thread(lambda: receive_exactly(sock, len(payload)))
            client.send(sid, payload[sent:])
            assert got() == payload


def test_the_answer_has_the_workloads_baggage(client: H2Peer, b: Bench):
    sid = client.connect(at(b))
    assert client.heard[sid].headers == [
        (b":status", b"200"),
        (
            b"baggage",
            b"k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=app,service.name=app,service.version=v1,"
            b"cloud.region=here,cloud.availability_zone=there",
        ),
    ]


def test_the_log_has_what_the_client_said(client: H2Peer, b: Bench):
    mark = b.mark()
    trace = "0af7651916cd43dd8448eb211c80319c"
    sid = client.connect(
        at(b),
        ("baggage", "k8s.namespace.name=default,service.name=peer"),
        ("forwarded", 'for="10.9.9.9:1234"'),
        ("traceparent", f"00-{trace}-b7ad6b7169203331-01"),
    )
    client.send(sid, b"hello", end=True)
    client.until(lambda: client.heard[sid].ended)
    line = b.logged(mark, f"trace={trace}")
    assert re.search(rf"src.addr={b.peer.ipv4}:\d+ ", line)  # the TCP peer, not what `forwarded` claims
    for part in (
        f'src.identity="{identity("peer")}"',
        'direction="inbound"',
        "bytes_sent=5 bytes_recv=5",
        "reason=complete",
        "path=tunnel",
    ):
        assert part in line


REFUSALS = [
    # request, status, reason
    (lambda b: {"authority": "app", "method": "GET"}, 400, "bad_request"),
    (lambda b: {"authority": f"{b.app.ipv4}:{ECHO_PORT}", "method": "GET"}, 400, "bad_request"),
    (lambda b: {"authority": "nonsense"}, 400, "bad_request"),
    (lambda b: {"authority": f"{b.app.ipv4}"}, 400, "bad_request"),
    (lambda b: {"authority": f"{b.app.ipv4}:0"}, 400, "bad_request"),
    (lambda b: {"authority": f"{b.app.ipv4}:65536"}, 400, "bad_request"),
    (lambda b: {"authority": f"{b.app.ipv4}:80:80"}, 400, "bad_request"),
    (lambda b: {"authority": f"user@{b.app.ipv4}:80"}, 400, "bad_request"),
    (lambda b: {"authority": f"{b.other.ipv4}:{ECHO_PORT}"}, 400, "wrong_destination"),
    (lambda b: {"authority": f"127.0.0.1:{ECHO_PORT}"}, 400, "wrong_destination"),
    (lambda b: {"authority": f"[::ffff:{b.other.ipv4}]:{ECHO_PORT}"}, 400, "wrong_destination"),
    (lambda b: {"authority": f"[{b.app.ipv6}]:{ECHO_PORT}"}, 400, "wrong_destination"),
    (lambda b: {"authority": f"{b.app.ipv4}:15001"}, 503, "recursive_call"),
    (lambda b: {"authority": f"{b.app.ipv4}:15006"}, 503, "recursive_call"),
    (lambda b: {"authority": f"{b.app.ipv4}:15008"}, 503, "recursive_call"),
    (lambda b: {"authority": "no-such.default.svc.cluster.local:80"}, 503, "no_service_port"),
    (lambda b: {"authority": f"{b.app.ipv4}:{DENIED_PORT}"}, 401, "policy_denied"),
    (lambda b: {"authority": f"{b.app.ipv4}:9"}, 503, "app_refused"),
]


@pytest.mark.parametrize(("request_", "status", "reason"), REFUSALS)
def test_refusals(client: H2Peer, b: Bench, request_, status: int, reason: str):
    mark = b.mark()
    asked = request_(b)
    sid = client.request(asked["authority"], method=asked.get("method", "CONNECT"))
    client.until(lambda: client.heard[sid].ended)
    heard = client.heard[sid]
    assert heard.status == status
    assert heard.value(b"x-ambient-reason") == reason.encode()
    assert heard.value(b"x-ambient-policy") == (b"default/not-7777" if reason == "policy_denied" else None)
    assert not heard.data
    b.logged(mark, 'direction="inbound"', f"reason={reason}", "error=")
    again = client.connect(at(b))  # the tunnel goes on
    client.send(again, b"x", end=True)
    client.until(lambda: client.heard[again].ended)
    assert client.heard[again].data == b"x"


def test_extended_connect_is_refused(client: H2Peer, b: Bench):
    sid = client.request(at(b), (":protocol", "websocket"), (":scheme", "https"), (":path", "/"))
    client.until(lambda: client.heard[sid].ended)
    assert client.heard[sid].status == 400


def test_200_streams_and_the_next_is_refused(client: H2Peer, b: Bench):
    client.until(lambda: client.settings)
    streams = [client.request(at(b)) for _ in range(200)]
    client.until(lambda: all(client.heard[s].status for s in streams), 20)
    assert {client.heard[s].status for s in streams} == {200}
    client.h2.remote_settings[3] = 1000
    client.h2.remote_settings.acknowledge()
    extra = client.request(at(b))
    client.until(lambda: client.heard[extra].reset is not None)
    assert client.heard[extra].reset == REFUSED_STREAM
    for s in streams:
        client.send(s, s.to_bytes(4, "big"), end=True)
    client.until(lambda: all(client.heard[s].ended for s in streams), 20)
    assert all(client.heard[s].data == s.to_bytes(4, "big") for s in streams)
    assert client.heard[client.connect(at(b))].status == 200


def test_ping_is_answered_and_we_ping_every_ten_seconds(b: Bench):
    with H2Peer(b.dial_tls(), client=True) as client:
        began = time.monotonic()
        client.h2.ping(b"01234567")
        client.flush()
        client.until(lambda: client.pongs)
        assert client.pongs == [b"01234567"]
        client.until(lambda: client.pings, 12.5)
        assert 9.0 <= time.monotonic() - began <= 12.5
        sid = client.connect(at(b))
        client.send(sid, b"alive", end=True)
        client.until(lambda: client.heard[sid].ended)


def test_half_close_by_the_client(client: H2Peer, b: Bench):
    with listener(b, 8093) as app:
        sid = client.connect(at(b, 8093))
        with accepted(app) as sock:
            client.send(sid, b"question", end=True)
            assert receive_exactly(sock, 100) == b"question"  # FIN
            assert not client.pump(0.1)
            assert not client.heard[sid].ended
            sock.sendall(b"answer")
            sock.shutdown(socket.SHUT_WR)
            client.until(lambda: client.heard[sid].ended)
            assert client.heard[sid].data == b"answer"
            assert client.heard[sid].reset is None


def test_half_close_by_the_application(client: H2Peer, b: Bench):
    with listener(b, 8094) as app:
        sid = client.connect(at(b, 8094))
        with accepted(app) as sock:
            sock.sendall(b"done")
            sock.shutdown(socket.SHUT_WR)
            client.until(lambda: client.heard[sid].ended)
            assert client.heard[sid].data == b"done"
            client.send(sid, b"still here")
            assert receive_exactly(sock, 10) == b"still here"
            client.send(sid, b"", end=True)
            assert sock.recv(1) == b""


def test_reset_by_the_client_is_a_reset(client: H2Peer, b: Bench):
    mark = b.mark()
    with listener(b, 8095) as app:
        sid = client.connect(at(b, 8095))
        with accepted(app) as sock:
            client.send(sid, b"x")
            assert sock.recv(1) == b"x"
            client.reset(sid, CANCEL)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    b.logged(mark, "reason=client_reset")


def test_reset_by_the_application_is_a_reset(client: H2Peer, b: Bench):
    mark = b.mark()
    with Listening(b.app, 8096, reset):
        sid = client.connect(at(b, 8096))
        client.send(sid, b"x")
        client.until(lambda: client.heard[sid].reset is not None)
        assert client.heard[sid].reset == CANCEL
        assert not client.heard[sid].ended
    b.logged(mark, "reason=server_reset")


def test_a_tunnel_cut_by_tcp_reset_resets_its_applications(b: Bench):
    mark = b.mark()
    with listener(b, 8097) as app:
        raw = b.dial()
        tls = b.context(b.peer_leaf).wrap_socket(raw)
        client = H2Peer(tls, client=True)
        client.connect(at(b, 8097))
        with accepted(app) as sock:
            hard_close(tls)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    b.logged(mark, "reason=tunnel_lost")


def test_an_orderly_end_without_end_stream_is_no_end_of_data(b: Bench):
    """close_notify and FIN under an open stream: the application must not take what it has for everything."""
    with listener(b, 8098) as app, H2Peer(b.dial_tls(), client=True) as client:
        sid = client.connect(at(b, 8098))
        with accepted(app) as sock:
            client.send(sid, b"part")
            assert receive_exactly(sock, 4) == b"part"
            with contextlib.suppress(OSError, ssl.SSLError):
                client.sock.unwrap()
            client.close()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_data_sent_with_the_request_reaches_the_application(client: H2Peer, b: Bench):
    """A client that does not wait for 200 (RFC 9113 §8.5 lets it not) loses nothing."""
    sid = client.request(at(b))
    client.send(sid, b"early", end=True)
    client.until(lambda: client.heard[sid].ended)
    assert client.heard[sid].data == b"early"


def test_metrics_agree_with_the_log(b: Bench):
    b.assert_counted()


def test_sigterm_says_goaway_and_lets_streams_end(b: Bench):
    """Last: it ends the proxy."""
    with H2Peer(b.dial_tls(), client=True) as client:
        sid = client.connect(at(b))
        proxy = b.mesh.proxies[b.node.name]
        proxy.send_signal(signal.SIGTERM)
        client.until(lambda: client.goaway is not None)
        assert client.goaway[:2] == (sid, 0)
        late = client.request(at(b))
        client.until(lambda: client.heard[late].reset is not None)
        assert client.heard[late].reset == REFUSED_STREAM
        client.send(sid, b"not yet", end=True)
        client.until(lambda: client.heard[sid].ended)
        assert client.heard[sid].data == b"not yet"
        proxy.wait(8)
        assert proxy.returncode == 0
        client.until_closed()
