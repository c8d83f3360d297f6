"""Who may be at the other end of a tunnel: every wrong one is refused inside the handshake, by name, and costs nobody else."""

import contextlib
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certs import Minted, authority, mint
from tests.system.peers.bench import ECHO_PORT, Bench, bench, identity
from tests.system.peers.dialled import Port15008
from tests.system.peers.h2peer import H2Peer

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("hbone")) as it:
        yield it


def assert_served(b: Bench) -> None:
    """The next client, with a proper certificate, is served."""
    with H2Peer(b.dial_tls(), client=True) as client:
        sid = client.connect(f"{b.app.ipv4}:{ECHO_PORT}")
        client.send(sid, b"next", end=True)
        client.until(lambda: client.heard[sid].ended)
        assert client.heard[sid].data == b"next"


Make = Callable[[Bench, str], Minted | None]
WRONG: dict[str, tuple[Make, str, str]] = {
    "expired": (
        lambda b, who: mint(b.ca, identity(who), not_before=NOW - 2 * HOUR, not_after=NOW - HOUR),
        "certificate_expired",
        "is expired",
    ),
    "not yet valid": (lambda b, who: mint(b.ca, identity(who), not_before=NOW + HOUR), "certificate_expired", "not yet valid"),
    "other trust domain": (lambda b, who: mint(b.ca, identity(who, "other.example")), "identity_mismatch", "other.example"),
    "trust domain as prefix": (
        lambda b, who: mint(b.ca, identity(who, "cluster.local.evil")),
        "identity_mismatch",
        "cluster.local.evil",
    ),
    "other root": (lambda b, who: mint(authority("evil root"), identity(who)), "certificate_untrusted", "peer's certificate"),
    "root of the same name": (lambda b, who: mint(authority("lab root"), identity(who)), "certificate_untrusted", ""),
    "self-signed": (lambda b, who: _self_signed(who), "certificate_untrusted", ""),
    "no names": (lambda b, who: mint(b.ca), "identity_mismatch", "got none"),
    "DNS name": (lambda b, who: mint(b.ca, x509.DNSName("cluster.local")), "identity_mismatch", "got none"),
    "no SPIFFE id of the mesh's form": (
        lambda b, who: mint(b.ca, f"spiffe://cluster.local/sa/{who}"),
        "identity_mismatch",
        "spiffe://cluster.local/sa/",
    ),
    "https URI": (lambda b, who: mint(b.ca, f"https://cluster.local/ns/default/sa/{who}"), "identity_mismatch", "https://"),
}


def _self_signed(who: str) -> Minted:
    ca = authority("self")
    leaf = mint(ca, identity(who), key=ca.key)
    return Minted(leaf.chain, leaf.key, leaf.roots, leaf.leaf)


CLIENTS = WRONG | {
    "no certificate": (lambda b, who: None, "certificate_untrusted", "presented no certificate"),
    "for servers only": (
        lambda b, who: mint(b.ca, identity(who), eku=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "certificate_untrusted",
        "purpose",
    ),
}
SERVERS = WRONG | {
    "other workload": (lambda b, who: mint(b.ca, identity("friend")), "identity_mismatch", identity("friend")),
    "other namespace": (
        lambda b, who: mint(b.ca, f"spiffe://cluster.local/ns/other/sa/{who}"),
        "identity_mismatch",
        "ns/other",
    ),
    "for clients only": (
        lambda b, who: mint(b.ca, identity(who), eku=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        "certificate_untrusted",
        "purpose",
    ),
}


# --- clients of ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIENTS)
def test_client_with_a_wrong_certificate(b: Bench, name: str):
    make, reason, detail = CLIENTS[name]
    mark = b.mark()
    with contextlib.closing(b.dial()) as raw, b.context(make(b, "peer")).wrap_socket(raw) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with pytest.raises(ssl.SSLError, match="alert"):  # in TLS 1.3 the client is done first; the refusal is what it reads
            sock.recv(1)
    b.logged(mark, f"src.addr={b.peer.ipv4}", f"dst.addr={b.app.ipv4}:15008", f"reason={reason}", detail, "error=")
    assert_served(b)


def test_client_of_tls_1_2(b: Bench):
    mark = b.mark()
    context = b.context(b.peer_leaf)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with contextlib.closing(b.dial()) as raw, pytest.raises(ssl.SSLError, match="alert"):
        context.wrap_socket(raw)
    b.logged(mark, "reason=tls_failure", "unsupported protocol")
    assert_served(b)


@pytest.mark.parametrize("offered", [None, ["http/1.1"]], ids=["none", "http/1.1"])
def test_client_without_h2(b: Bench, offered: list[str] | None):
    mark = b.mark()
    context = b.context(b.peer_leaf)
    context.set_alpn_protocols(offered or [])
    with contextlib.closing(b.dial()) as raw, pytest.raises(ssl.SSLError, match="alert"), context.wrap_socket(raw) as sock:
        sock.recv(1)
    b.logged(mark, "reason=tls_failure")
    assert_served(b)


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x00" * 1000,
        b"\x16\x03\x01\xff\xff" + os.urandom(65_535),
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + os.urandom(16_378),
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x20" + os.urandom(32),
    ],
    ids=["http1", "h2 prior knowledge", "zeros", "overlong record", "random hello", "alert", "early data"],
)
def test_what_is_no_tls(b: Bench, text: bytes):
    mark = b.mark()
    with contextlib.closing(b.dial()) as raw:
        raw.sendall(text)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(4096):  # an alert, and the end
                pass
    b.logged(mark, f"src.addr={b.peer.ipv4}", "reason=tls_failure")
    assert_served(b)


def test_garbage_after_the_handshake(b: Bench):
    mark = b.mark()
    with contextlib.closing(b.dial()) as raw:
        spare = os.dup(raw.fileno())
        with b.context(b.peer_leaf).wrap_socket(raw) as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            os.write(spare, b"\x17\x03\x03\x00\x20" + os.urandom(32))
            with contextlib.suppress(OSError):
                while sock.recv(4096):
                    pass
        os.close(spare)
    b.logged(mark, f"src.addr={b.peer.ipv4}", "reason=tls_failure")
    assert_served(b)


def test_half_a_handshake_ends_after_ten_seconds(b: Bench):
    """Nothing at all, half a ClientHello, and TLS without HTTP/2; others are served meanwhile."""
    mark = b.mark()
    before = b.descriptors()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(contextlib.closing(b.dial())) for _ in range(30)]
        half = [stack.enter_context(contextlib.closing(b.dial())) for _ in range(30)]
        for sock in half:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        mute = [stack.enter_context(contextlib.closing(b.dial_tls())) for _ in range(10)]
        assert_served(b)
        for sock in [*silent, *half, *mute]:
            sock.settimeout(12)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):  # our SETTINGS, in some
                    pass
        assert 9 < time.monotonic() - began < 13
    line = b.logged(mark, "no HBONE handshake", "within 10 s")
    assert "reason=peer_timeout" in line
    assert sum("no HBONE handshake" in line for line in b.lines(mark)) == 70
    assert b.descriptors() <= before + 4
    assert_served(b)


def test_strangers_cannot_keep_others_out(b: Bench):
    """More connections than may be in a handshake at once: the oldest of them give way, not those who come with an identity."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 5_000
    if hard < wanted + 1_000:
        pytest.skip(f"the limit of open files is {hard}, this test needs {wanted + 1_000}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 1_000), hard))
    mark = b.mark()
    before = b.rss()
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(wanted):
                stack.enter_context(contextlib.closing(b.dial()))
            assert_served(b)
            b.assert_friend_served()
            assert b.descriptors() < 2_000
            assert b.rss() < before + (200 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    b.logged(mark, "reason=overloaded", "handshake")


# --- servers we dial ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def calling(b: Bench) -> Iterator[socket.socket]:
    with contextlib.closing(b.call(b.peer, 80)) as app:
        yield app
        with pytest.raises(ConnectionResetError):
            app.recv(1)


def assert_dialled(b: Bench) -> None:
    """The next connection, to a proper peer, works."""
    with Port15008(b) as port, contextlib.closing(b.call(b.peer, 80)) as app, port.accept() as server:
        server.until(lambda: server.heard)
        server.answer(1)
        server.send(1, b"next")
        assert app.recv(4) == b"next"


@pytest.mark.parametrize("name", SERVERS)
def test_server_with_a_wrong_certificate(b: Bench, name: str):
    make, reason, detail = SERVERS[name]
    mark = b.mark()
    leaf = make(b, "peer")
    assert leaf is not None
    with Port15008(b, leaf) as port, calling(b), pytest.raises(ssl.SSLError, match="alert"):
        port.accept_tls()
    b.logged(mark, 'direction="outbound"', f"dst.hbone_addr={b.peer.ipv4}:80", f"reason={reason}", detail, "error=")
    assert_dialled(b)


def test_server_that_refuses_our_certificate(b: Bench):
    mark = b.mark()
    with Port15008(b) as port, calling(b):
        port.context = b.context(b.peer_leaf, server=True, roots=mint(authority("another")).roots)
        with pytest.raises(ssl.SSLError):
            port.accept_tls()
    b.logged(mark, 'direction="outbound"', "reason=tls_failure", "refused our certificate")
    assert_dialled(b)


def test_server_of_tls_1_2(b: Bench):
    mark = b.mark()
    with Port15008(b) as port, calling(b):
        port.context.minimum_version = port.context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            port.accept_tls()
    b.logged(mark, 'direction="outbound"', "reason=tls_failure")
    assert_dialled(b)


def test_server_without_h2(b: Bench):
    mark = b.mark()
    with Port15008(b) as port, calling(b):
        port.context.set_alpn_protocols([])
        with pytest.raises(ssl.SSLError, match="alert"):
            port.accept_tls()
    b.logged(mark, 'direction="outbound"', "reason=tls_failure", "h2")
    assert_dialled(b)


def test_server_that_speaks_plain_text(b: Bench):
    mark = b.mark()
    with Port15008(b) as port, calling(b):
        port.accept_tcp().sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    b.logged(mark, 'direction="outbound"', "reason=tls_failure")
    assert_dialled(b)


def test_server_that_hangs_up_in_the_handshake(b: Bench):
    mark = b.mark()
    with Port15008(b) as port, calling(b):
        port.accept_tcp().close()
    b.logged(mark, 'direction="outbound"', "reason=tunnel_lost")
    assert_dialled(b)


def test_metrics_agree_with_the_log(b: Bench):
    b.assert_counted()
