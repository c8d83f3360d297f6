"""A peer with a good certificate and bad manners where our real proxy expects an HBONE server.

The connections in its tunnel end with RST and a reason; those to others go on, and the next one to it works.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests import frames as f
from tests.system.peers.bench import Bench, bench
from tests.system.peers.dialled import Port15008
from tests.system.peers.wire import Wire
from ztunnel.hbone import frames as fr
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.hbone.hpack import answer_block, field

MIB = 1 << 20
OK = answer_block(200)


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("hbone")) as it:
        yield it


@pytest.fixture(scope="module")
def neighbour(b: Bench) -> Iterator[socket.socket]:
    """A connection of the same workload to somebody else, open all the time."""
    with contextlib.closing(b.call(b.app, by=b.friend)) as sock:
        yield sock


@pytest.fixture
def port(b: Bench, neighbour: socket.socket) -> Iterator[Port15008]:
    """The peer's port. After the attack the neighbour goes on, and the next connection to the peer works."""
    with Port15008(b) as it:
        yield it
    neighbour.sendall(b"still here")
    assert neighbour.recv(100) == b"still here"
    with Port15008(b) as again, contextlib.closing(b.call(b.peer, 80)) as app, again.accept() as server:
        server.until(lambda: server.heard)
        server.answer(1)
        server.send(1, b"next")
        assert app.recv(4) == b"next"
    assert b.rss() < 150 * MIB


@contextlib.contextmanager
def called(b: Bench) -> Iterator[socket.socket]:
    with contextlib.closing(b.call(b.peer, 80)) as sock:
        yield sock


def assert_reset(sock: socket.socket) -> None:
    def read_all() -> None:
        while sock.recv(65_536):
            pass

    with pytest.raises(ConnectionResetError):
        read_all()


@contextlib.contextmanager
def tunnel(b: Bench, port: Port15008, hello: bytes = f.SERVER_HELLO) -> Iterator[tuple[Wire, int, socket.socket]]:
    """A tunnel with one request in it: the server's end, the stream, the application's socket."""
    with called(b) as app, Wire(port.accept_tls(), hello) as wire:
        yield wire, wire.until(fr.HEADERS).stream, app


def assert_ended(b: Bench, wire: Wire, app: socket.socket, mark: int, code: E, reason: str) -> None:
    said = wire.goaway()
    assert said is not None
    assert said[0] == code, said
    assert_reset(app)
    b.logged(mark, 'direction="outbound"', f"src.addr={b.app.ipv4}", f"reason={reason}", "error=")


BROKEN: dict[str, tuple[Callable[[int], bytes], E]] = {
    "no SETTINGS first": (lambda sid: b"", E.PROTOCOL_ERROR),
    "initial window of 2^31": (lambda sid: f.settings((4, 1 << 31)), E.FLOW_CONTROL_ERROR),
    "maximum frame of 2^24": (lambda sid: f.settings((5, 1 << 24)), E.PROTOCOL_ERROR),
    "ENABLE_PUSH": (lambda sid: f.settings((2, 1)), E.PROTOCOL_ERROR),
    "SETTINGS of 7 bytes": (lambda sid: f.frame(fr.SETTINGS, bytes(7)), E.FRAME_SIZE_ERROR),
    "answer on an unknown stream": (lambda sid: f.headers(sid + 2, OK), E.PROTOCOL_ERROR),
    "answer on an even stream": (lambda sid: f.headers(2, OK), E.PROTOCOL_ERROR),
    "answer on stream 0": (lambda sid: f.headers(0, OK), E.PROTOCOL_ERROR),
    "PUSH_PROMISE": (lambda sid: f.frame(fr.PUSH_PROMISE, b"\0\0\0\2" + OK, flags=4, stream=sid), E.PROTOCOL_ERROR),
    "no status": (lambda sid: f.headers(sid, field(b"server", b"x")), E.PROTOCOL_ERROR),
    "status of two digits": (lambda sid: f.headers(sid, b"\x08\x0220"), E.PROTOCOL_ERROR),
    "status 101": (lambda sid: f.headers(sid, b"\x08\x03101"), E.PROTOCOL_ERROR),
    "status 999": (lambda sid: f.headers(sid, b"\x08\x03999"), E.PROTOCOL_ERROR),
    "two statuses": (lambda sid: f.headers(sid, OK + OK), E.PROTOCOL_ERROR),
    "DATA before the answer": (lambda sid: f.data(sid, b"x"), E.PROTOCOL_ERROR),
    "END_STREAM before the answer": (lambda sid: f.data(sid, end=True), E.PROTOCOL_ERROR),
    "two answers": (lambda sid: f.headers(sid, OK) * 2, E.PROTOCOL_ERROR),
    "DATA above the window": (
        lambda sid: f.headers(sid, OK) + b"".join(f.data(sid, bytes(MIB)) for _ in range(20)),
        E.FLOW_CONTROL_ERROR,
    ),
    "frame above 1 MiB": (lambda sid: f.headers(sid, OK) + f.frame(fr.DATA, stream=sid, length=MIB + 1), E.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 0": (lambda sid: f.window(sid, 0), E.PROTOCOL_ERROR),
    "window overflow": (lambda sid: f.window(0, (1 << 31) - 1), E.FLOW_CONTROL_ERROR),
    "GOAWAY of 3 bytes": (lambda sid: f.frame(fr.GOAWAY, bytes(3)), E.FRAME_SIZE_ERROR),
    "interleaved": (lambda sid: f.headers(sid, OK, flags=0) + f.ping(), E.PROTOCOL_ERROR),
    "bad HPACK": (lambda sid: f.headers(sid, b"\xff\xff\xff\x7f"), E.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rules(b: Bench, port: Port15008, name: str):
    make, code = BROKEN[name]
    mark = b.mark()
    hello = f.ping() if name == "no SETTINGS first" else f.SERVER_HELLO
    if name == "no SETTINGS first":
        with called(b) as app, Wire(port.accept_tls(), hello) as wire:
            assert_ended(b, wire, app, mark, code, "tunnel_protocol")
        return
    with tunnel(b, port, hello) as (wire, sid, app):
        wire.send(make(sid))
        assert_ended(b, wire, app, mark, code, "tunnel_protocol")


def test_data_after_end_stream(b: Bench, port: Port15008):
    """What came before its end was whole, and the application has it; the tunnel ends all the same."""
    mark = b.mark()
    with tunnel(b, port) as (wire, sid, app):
        wire.send(f.headers(sid, OK) + f.data(sid, b"x", end=True) + f.data(sid, b"y"))
        said = wire.goaway()
        assert said is not None
        assert said[0] == E.STREAM_CLOSED
        assert app.recv(10) == b"x"
    b.logged(mark, 'direction="outbound"', "connection complete", "reason=tunnel_protocol")


FLOODS: dict[str, Callable[[int], bytes]] = {
    "informational answers": lambda sid: f.headers(sid, b"\x08\x03103") * 50,
    "GOAWAY": lambda sid: f.goaway((1 << 31) - 1) * 50,
    "PING": lambda sid: f.ping() * 50,
    "SETTINGS": lambda sid: f.settings((4, 70_000)) * 50,
    "empty DATA": lambda sid: f.headers(sid, OK) + f.data(sid) * 2_000,
    "giant header": lambda sid: f.headers(sid, OK + field(b"x", b"a" * 60_000), flags=4),
    "header above 16 KiB": lambda sid: f.headers(sid, OK + field(b"x", b"a" * 16_384)),
    "CONTINUATION": lambda sid: f.headers(sid, OK, flags=0) + f.continuation(sid, b"") * 100,
    "answers on a closed stream": lambda sid: f.rst(sid, 0) + f.headers(sid, OK) * 2_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(b: Bench, port: Port15008, name: str):
    mark = b.mark()
    before = b.rss()
    with tunnel(b, port) as (wire, sid, app):
        for _ in range(200):
            if not wire.send(FLOODS[name](sid)) or wire.closed:
                break
            wire.pump(0)
        said = wire.goaway()
        assert said is not None
        assert said[0] == E.ENHANCE_YOUR_CALM, said
        if name != "answers on a closed stream":  # its connection had ended in good order
            assert_reset(app)
    b.logged(mark, 'direction="outbound"', "reason=tunnel_flood", "error=")
    assert b.rss() < before + 10 * MIB


def test_a_tunnel_without_connections_that_breaks_is_logged_too(b: Bench, port: Port15008):
    mark = b.mark()
    with tunnel(b, port) as (wire, sid, app):
        wire.send(f.headers(sid, OK) + f.data(sid, end=True))
        assert app.recv(1) == b""
        app.shutdown(socket.SHUT_WR)
        wire.until(fr.DATA, stream=sid, flags=1)
        wire.send(f.window(0, 0))
        said = wire.goaway()
        assert said is not None
        assert said[0] == E.PROTOCOL_ERROR
    b.logged(mark, "reason=complete")
    b.logged(mark, 'direction="outbound"', f"dst.addr={b.peer.ipv4}:15008", "reason=tunnel_protocol", "WINDOW_UPDATE of 0")


def test_goaway_with_everything_refused_again_and_again(b: Bench, port: Port15008):
    """Each new tunnel is told to go away at once: a few tries, then the application is told."""
    mark = b.mark()
    with called(b) as app, contextlib.ExitStack() as stack:
        tunnels = 0
        deadline = time.monotonic() + 8
        while port.dialled(0.3):
            assert time.monotonic() < deadline
            stack.enter_context(Wire(port.accept_tls(), f.SERVER_HELLO + f.goaway(0)))
            tunnels += 1
        assert_reset(app)
        assert 1 < tunnels <= 3
    b.logged(mark, "reason=peer_refused")


def test_all_the_applications_of_a_tunnel_are_told(b: Bench, port: Port15008):
    mark = b.mark()
    with contextlib.ExitStack() as stack:
        apps = [stack.enter_context(called(b)) for _ in range(20)]
        wire = stack.enter_context(Wire(port.accept_tls(), f.SERVER_HELLO))
        for n in range(20):
            wire.until(fr.HEADERS, stream=2 * n + 1)
        wire.send(b"".join(f.headers(2 * n + 1, OK) for n in range(10)) + f.ping(bytes(7)))
        for app in apps:
            assert_reset(app)
        b.logged(mark, "reason=tunnel_protocol")
        assert sum("connection complete" in line and "reason=tunnel_protocol" in line for line in b.lines(mark)) == 20


def test_a_peer_that_reads_nothing(b: Bench, port: Port15008):
    """Huge windows and no reading: the application is held back, memory bounded."""
    before = b.rss()
    with tunnel(b, port, f.settings((4, (1 << 31) - 1)) + f.window(0, (1 << 31) - 65_536)) as (wire, sid, app):
        wire.send(f.headers(sid, OK))
        app.setblocking(False)
        sent, quiet = 0, 0
        while quiet < 10:
            try:
                sent += app.send(bytes(MIB))
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        assert sent < 64 * MIB  # kernel buffers at most
        assert b.rss() < before + 12 * MIB


def test_a_peer_that_asks_and_does_not_read(b: Bench, port: Port15008):
    """The application fills the socket; PINGs then pile up answers until the backlog's bound, slowly enough to be no flood."""
    mark = b.mark()
    with tunnel(b, port, f.settings((4, (1 << 31) - 1)) + f.window(0, (1 << 31) - 65_536)) as (wire, sid, app):
        wire.send(f.headers(sid, OK))
        app.setblocking(False)
        quiet = 0
        while quiet < 10:
            try:
                app.send(bytes(MIB))
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        for _ in range(100):
            wire.send(f.ping() * 50)
        b.logged(mark, "reason=tunnel_flood")
        app.settimeout(5)
        assert_reset(app)


def test_metrics_agree_with_the_log(b: Bench, neighbour: socket.socket):
    b.assert_counted()
