"""A peer with a good certificate and bad manners against our real proxy's port 15008.

Whatever it does, its own tunnel ends with a reason, the tunnels of others go on, memory stays bounded and the next one works.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

import hpack
import pytest

from tests import frames as f
from tests.certs import mint
from tests.system.peers.apps import Listening, sink
from tests.system.peers.bench import ECHO_PORT, Bench, bench
from tests.system.peers.h2peer import H2Peer
from tests.system.peers.wire import Wire
from ztunnel.hbone import frames as fr
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.hbone.hpack import field, request_prefix

MIB = 1 << 20


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("hbone")) as it:
        yield it


@pytest.fixture(scope="module")
def neighbour(b: Bench) -> Iterator[socket.socket]:
    """A connection of another workload through a tunnel of its own, open all the time."""
    with contextlib.closing(b.call(b.app, by=b.friend)) as sock:
        yield sock


@pytest.fixture
def others(b: Bench, neighbour: socket.socket) -> Iterator[None]:
    """Around every attack: the neighbour's connection goes on, the next client is served, memory and descriptors come back."""
    descriptors = b.descriptors()
    yield
    neighbour.sendall(b"still here")
    assert neighbour.recv(100) == b"still here"
    with H2Peer(b.dial_tls(), client=True) as client:
        sid = client.connect(f"{b.app.ipv4}:{ECHO_PORT}")
        client.send(sid, b"next", end=True)
        client.until(lambda: client.heard[sid].ended)
        assert client.heard[sid].data == b"next"
    deadline = time.monotonic() + 5
    while b.descriptors() > descriptors + 3:
        assert time.monotonic() < deadline, (descriptors, b.descriptors())
        time.sleep(0.05)
    assert b.rss() < 150 * MIB


@pytest.fixture
def wire(b: Bench, others: None) -> Iterator[Wire]:
    with Wire(b.dial_tls(), f.CLIENT_HELLO) as it:
        yield it


def block(b: Bench, port: int = ECHO_PORT) -> bytes:
    return request_prefix(f"{b.app.ipv4}:{port}".encode())


def opened(b: Bench, wire: Wire, sid: int = 1, port: int = ECHO_PORT) -> None:
    wire.send(f.headers(sid, block(b, port)))
    assert wire.until(fr.HEADERS, stream=sid).payload.startswith(b"\x88")


def assert_ended(b: Bench, wire: Wire, mark: int, code: E, reason: str, *parts: str) -> None:
    said = wire.goaway()
    assert said is not None
    assert said[0] == code, said
    b.logged(mark, f"src.addr={b.peer.ipv4}", f"reason={reason}", "error=", *parts)


BROKEN: dict[str, tuple[Callable[[Bench], bytes], E]] = {
    "no SETTINGS first": (lambda b: b"", E.PROTOCOL_ERROR),
    "frame of 1 MiB and a byte": (lambda b: f.frame(fr.DATA, stream=1, length=MIB + 1), E.FRAME_SIZE_ERROR),
    "SETTINGS of 5 bytes": (lambda b: f.frame(fr.SETTINGS, bytes(5)), E.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (lambda b: f.settings(stream=1), E.PROTOCOL_ERROR),
    "SETTINGS ACK with a payload": (lambda b: f.frame(fr.SETTINGS, bytes(6), flags=1), E.FRAME_SIZE_ERROR),
    "initial window of 2^31": (lambda b: f.settings((4, 1 << 31)), E.FLOW_CONTROL_ERROR),
    "maximum frame of 1": (lambda b: f.settings((5, 1)), E.PROTOCOL_ERROR),
    "PING of 7 bytes": (lambda b: f.ping(bytes(7)), E.FRAME_SIZE_ERROR),
    "PING on a stream": (lambda b: f.ping(stream=1), E.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (lambda b: f.frame(fr.RST_STREAM, bytes(3), stream=1), E.FRAME_SIZE_ERROR),
    "RST_STREAM of an idle stream": (lambda b: f.rst(9, 8), E.PROTOCOL_ERROR),
    "RST_STREAM of stream 0": (lambda b: f.rst(0, 8), E.PROTOCOL_ERROR),
    "GOAWAY of 7 bytes": (lambda b: f.frame(fr.GOAWAY, bytes(7)), E.FRAME_SIZE_ERROR),
    "PRIORITY of 4 bytes": (lambda b: f.priority(1, bytes(4)), E.FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (lambda b: f.frame(fr.PUSH_PROMISE, bytes(8), stream=1), E.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0": (lambda b: f.window(0, 0), E.PROTOCOL_ERROR),
    "WINDOW_UPDATE of an idle stream": (lambda b: f.window(3, 1), E.PROTOCOL_ERROR),
    "connection window overflow": (lambda b: f.window(0, (1 << 31) - 1), E.FLOW_CONTROL_ERROR),
    "stream window overflow": (lambda b: f.headers(1, block(b)) + f.window(1, (1 << 31) - 1), E.FLOW_CONTROL_ERROR),
    "DATA on an idle stream": (lambda b: f.data(1, b"x"), E.PROTOCOL_ERROR),
    "DATA on stream 0": (lambda b: f.data(0, b"x"), E.PROTOCOL_ERROR),
    "DATA after END_STREAM": (lambda b: f.headers(1, block(b)) + f.data(1, b"x", end=True) + f.data(1, b"y"), E.STREAM_CLOSED),
    "padding longer than its frame": (
        lambda b: f.headers(1, block(b)) + f.frame(fr.DATA, b"\xff" + bytes(9), flags=8, stream=1),
        E.PROTOCOL_ERROR,
    ),
    "DATA above the stream's window": (
        lambda b: f.headers(1, block(b, 9999)) + b"".join(f.data(1, bytes(MIB)) for _ in range(5)),
        E.FLOW_CONTROL_ERROR,
    ),
    "even stream": (lambda b: f.headers(2, block(b)), E.PROTOCOL_ERROR),
    "HEADERS on stream 0": (lambda b: f.headers(0, block(b)), E.PROTOCOL_ERROR),
    "stream number used again": (lambda b: f.headers(5, block(b, 15008)) + f.headers(3, block(b)), E.PROTOCOL_ERROR),
    "second HEADERS": (lambda b: f.headers(1, block(b)) * 2, E.PROTOCOL_ERROR),
    "CONTINUATION without HEADERS": (lambda b: f.continuation(1, b""), E.PROTOCOL_ERROR),
    "interleaved header block": (lambda b: f.headers(1, block(b), flags=0) + f.ping(), E.PROTOCOL_ERROR),
    "interleaved by another stream": (
        lambda b: f.headers(1, block(b), flags=0) + f.continuation(3, b"", last=True),
        E.PROTOCOL_ERROR,
    ),
    "bad HPACK index": (lambda b: f.headers(1, b"\xff\xff\xff\x7f"), E.COMPRESSION_ERROR),
    "truncated HPACK": (lambda b: f.headers(1, b"\x10\x7f"), E.COMPRESSION_ERROR),
    "table size above ours": (lambda b: f.headers(1, b"\x3f\xe2\x1f" + block(b)), E.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rules(b: Bench, others: None, name: str):
    make, code = BROKEN[name]
    mark = b.mark()
    hello = fr.PREFACE + f.ping() if name == "no SETTINGS first" else f.CLIENT_HELLO
    with Listening(b.app, 9999, lambda s: time.sleep(0.2)), Wire(b.dial_tls(), hello) as wire:
        wire.send(make(b))
        assert_ended(b, wire, mark, code, "tunnel_protocol", "http2 failed")


@pytest.mark.parametrize(
    ("name", "hello"),
    [("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), ("random", os.urandom(5_000)), ("no preface", f.settings())],
)
def test_no_http2(b: Bench, others: None, name: str, hello: bytes):
    mark = b.mark()
    with Wire(b.dial_tls(), hello) as wire:
        assert_ended(b, wire, mark, E.PROTOCOL_ERROR, "tunnel_protocol", "preface")


def test_truncated_in_mid_frame(b: Bench, wire: Wire):
    """The application must not take a cut-off frame for everything."""
    mark = b.mark()
    with Listening(b.app, 8100, sink) as app:
        opened(b, wire, port=8100)
        wire.send(f.frame(fr.DATA, b"only this", stream=1, length=1000))
        wire.close()
        b.logged(mark, "reason=tunnel_lost", "bytes_recv=9")
        deadline = time.monotonic() + 5
        while not app.results:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert isinstance(app.results[0], ConnectionResetError)


def test_bytes_one_by_one(b: Bench, wire: Wire):
    opened(b, wire)
    for byte in f.data(1, b"slowly", end=True) + f.ping(b"thebytes"):
        wire.send(bytes((byte,)))
    assert wire.until(fr.PING, flags=1).payload == b"thebytes"
    wire.until(fr.DATA, stream=1, flags=1)
    assert b"".join(x.payload for x in wire.frames if x.kind == fr.DATA) == b"slowly"


BOMBS: dict[str, Callable[[], bytes]] = {
    "a large header": lambda: f.headers(1, field(b"x", bytes(60_000).replace(b"\0", b"a")) * 2, flags=0),
    "one indexed name a hundred thousand times": lambda: _indexed_bomb(),
    "CONTINUATION flood": lambda: f.headers(1, b"", flags=0) + f.continuation(1, b"\x88") * 20_000,
    "empty CONTINUATION flood": lambda: f.headers(1, b"", flags=0) + f.continuation(1, b"") * 20_000,
    "endless header block": lambda: f.headers(1, b"", flags=0) + f.continuation(1, bytes(16_384)) * 40,
    "Huffman": lambda: f.headers(1, hpack.Encoder().encode([(b"a" * 4_000, b"0" * 90_000)], huffman=True)),
}


def _indexed_bomb() -> bytes:
    """One entry of 4 KB in the table, then references to it of a byte each."""
    entry = b"\x40" + bytes((1,)) + b"x" + b"\x7f\x81\x1e" + b"v" * 3_968
    return f.headers(1, entry + b"\xbe" * 10_000)


@pytest.mark.parametrize("name", BOMBS)
def test_header_bombs(b: Bench, wire: Wire, name: str):
    mark = b.mark()
    before = b.rss()
    wire.send(BOMBS[name]())
    assert_ended(b, wire, mark, E.ENHANCE_YOUR_CALM, "tunnel_flood", "http2 failed")
    assert b.rss() < before + 10 * MIB


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: f.ping() * 50,
    "SETTINGS": lambda _: f.settings((4, 100_000)) * 50,
    "SETTINGS, large": lambda _: f.settings(*[(4, 65_535 + n) for n in range(2_000)]),
    "PRIORITY": lambda n: f.priority(2 * n + 1) * 50,
    "empty DATA": lambda _: f.data(1) * 50,
    "unknown frames": lambda _: f.frame(99, b"x") * 50,
    "RST_STREAM of a closed stream": lambda _: f.rst(1, 8) * 50,
    "GOAWAY": lambda _: f.goaway(0) * 50,
    "PONG": lambda _: f.ping(ack=True) * 50,
}


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "deaf"])
@pytest.mark.parametrize("name", FLOODS)
def test_floods(b: Bench, wire: Wire, name: str, reads: bool):
    mark = b.mark()
    before = b.rss()
    opened(b, wire)
    if name.startswith("RST"):
        wire.send(f.rst(1, 8))
    for n in range(2_000):
        if not wire.send(FLOODS[name](n)):
            break
        if reads:
            wire.pump(0)
        if wire.closed:
            break
    else:
        raise AssertionError("the flood was never stopped")
    b.logged(mark, f"src.addr={b.peer.ipv4}", "reason=tunnel_flood", "error=")
    said = wire.goaway()
    assert said is None or said[0] == E.ENHANCE_YOUR_CALM
    assert said is not None or not reads
    assert b.rss() < before + 10 * MIB


def test_rapid_reset(b: Bench, wire: Wire):
    """Requests reset at once: bounded, and the application is not even dialled."""
    mark = b.mark()
    with Listening(b.app, 8101, sink) as app:
        sid = 1
        while sid < 20_000:
            batch = b"".join(f.headers(n, block(b, 8101)) + f.rst(n, 8) for n in range(sid, sid + 200, 2))
            if not wire.send(batch):
                break
            sid += 200
            wire.pump(0)
        assert_ended(b, wire, mark, E.ENHANCE_YOUR_CALM, "tunnel_flood", "reset before their answer")
        assert app.accepted < 200


def test_rapid_reset_of_refused_requests(b: Bench, wire: Wire):
    """Streams above the limit: refused, and not for ever."""
    mark = b.mark()
    sid = 1
    while sid < 40_000:
        if not wire.send(b"".join(f.headers(n, block(b)) for n in range(sid, sid + 200, 2))):
            break
        sid += 200
        wire.pump(0)
    assert_ended(b, wire, mark, E.ENHANCE_YOUR_CALM, "tunnel_flood")


def test_answers_nobody_reads(b: Bench, wire: Wire):
    """Requests that we refuse, whose answers pile up: bounded by the tunnel's backlog."""
    mark = b.mark()
    before = b.rss()
    sid, sent = 1, 0
    deadline = time.monotonic() + 20
    data = b""
    while not wire.broken and time.monotonic() < deadline:
        if not data:
            data = b"".join(f.headers(n, block(b, 15008), end=True) for n in range(sid, sid + 200, 2))
            sid += 200
        n = wire.send_nowait(data)
        sent += n
        data = data[n:]
        if any("reason=tunnel_flood" in line for line in b.lines(mark)):
            break
    b.logged(mark, "reason=tunnel_flood")
    assert b.rss() < before + 20 * MIB


def test_zero_window_hog(b: Bench, wire: Wire):
    """200 streams with applications that send, and a peer that never gives credit: nothing is read for it."""
    before = b.rss()
    chunk = bytes(1 << 20)
    with Listening(b.app, 8102, lambda s: s.sendall(chunk * 4)):
        wire.send(f.settings((4, 0)))
        for n in range(200):
            wire.send(f.headers(2 * n + 1, block(b, 8102)))
        for n in range(200):
            wire.until(fr.HEADERS, stream=2 * n + 1)
        assert not wire.pump(0.3)
        assert not any(x.kind == fr.DATA for x in wire.frames)
        assert b.rss() < before + 20 * MIB
        wire.send(b"".join(f.rst(2 * n + 1, 8) for n in range(200)) + f.ping(b"all over"))
        wire.until(fr.PING, flags=1)


def test_a_peer_that_fills_every_window(b: Bench, wire: Wire):
    """Its applications read nothing: what it may send is bounded, and so is what we keep of it."""
    before = b.rss()
    release = time.monotonic() + 3
    with Listening(b.app, 8103, lambda s: time.sleep(max(0, release - time.monotonic()))):
        for n in range(50):
            opened(b, wire, 2 * n + 1, port=8103)
        windows = {2 * n + 1: 4_194_304 for n in range(50)}
        total, seen = 16_777_216, 0
        limit = time.monotonic() + 2.5
        while time.monotonic() < limit:
            ready = [sid for sid, left in windows.items() if left >= 262_144]
            if not ready or total < 262_144:
                if not wire.pump(0.1):
                    break
            else:
                windows[ready[0]] -= 262_144
                total -= 262_144
                wire.send(f.data(ready[0], bytes(262_144)))
                wire.pump(0)
            for x in wire.frames[seen:]:
                if x.kind == fr.WINDOW_UPDATE:
                    if x.stream:
                        windows[x.stream] += int.from_bytes(x.payload, "big")
                    else:
                        total += int.from_bytes(x.payload, "big")
            seen = len(wire.frames)
        assert b.rss() < before + 110 * MIB  # HELD_BYTES, the connection's window, and OpenSSL's share


def test_peer_chosen_headers_do_not_pile_up(b: Bench, others: None):
    """Other baggage in every request, of someone state does not know: what is kept of answers given is bounded."""
    before = b.rss()
    mark = b.mark()
    stranger = mint(b.ca, "spiffe://cluster.local/ns/default/sa/stranger")
    with contextlib.ExitStack() as stack:
        for tunnel in range(12):
            wire = stack.enter_context(Wire(b.dial_tls(stranger), f.CLIENT_HELLO))
            for n in range(900):
                sid = 2 * n + 1
                junk = field(b"baggage", f"junk={tunnel}-{n}-".encode() + b"x" * 3_900)
                wire.send(f.headers(sid, block(b, 15008) + junk, end=True))
                if n % 100 == 99:
                    wire.until(fr.HEADERS, stream=sid)
                    wire.frames.clear()
        assert b.rss() < before + 20 * MIB
    b.logged(mark, "reason=recursive_call")


def test_metrics_agree_with_the_log(b: Bench, neighbour: socket.socket):
    b.assert_counted()
