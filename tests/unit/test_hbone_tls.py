"""TLS of tunnels as bytes, both ends in memory: the handshake, data in all sizes, faults, and what is left of it in memory."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL._util import lib

from tests.tls_ends import (
    CLIENT,
    CLIENT_CERT,
    SERVER,
    SERVER_CERT,
    TO_CLIENT,
    TO_SERVER,
    client_end,
    context,
    established,
    server_end,
    shake,
)
from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.tls import pointer
from ztunnel.reasons import CloseReason

# --- the handshake ----------------------------------------------------------------------------------------------------


def test_both_sides_know_each_other() -> None:
    client, server = established()
    assert client.tls.established
    assert server.tls.established
    assert client.tls.peer_identity == SERVER
    assert server.tls.peer_identity == CLIENT
    connection = client.tls._connection
    assert connection.get_protocol_version_name() == "TLSv1.3"
    assert connection.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    assert connection.get_alpn_proto_negotiated() == b"h2"
    assert connection.get_group_name() == "X25519MLKEM768"
    assert connection.get_servername() is None
    assert server.take(client.send(b"ping")) == b""
    assert client.take(server.send(b"pong")) == b""
    assert (server.plain, client.plain) == (b"ping", b"pong")


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_handshake_in_pieces(size: int) -> None:
    client = client_end()
    server = server_end()
    wire, ends = client.take(b""), (server, client)
    for turn in range(3):
        end, out = ends[turn % 2], b""
        for i in range(0, len(wire), size):
            out += end.take(wire[i : i + size])
        wire = out
    assert client.tls.established
    assert server.tls.established


def test_data_behind_the_handshake_is_not_lost() -> None:
    client = client_end()
    server = server_end()
    finished = client.take(server.take(client.take(b"")))
    early = bytes(range(256)) * 800  # 200 KiB, more than is fed to OpenSSL at a time
    server.take(finished + client.send(early))
    assert server.tls.established
    assert server.plain == early


def test_decrypt_zero_must_follow_the_handshake() -> None:
    client = client_end()
    server = server_end()
    wire = client.take(server.take(client.take(b"")))
    wire += client.send(bytes(150_000))
    TO_SERVER.cipher_in[: len(wire)] = wire
    server.tls.handshake(len(wire))
    with pytest.raises(TlsError, match="must follow"):
        server.tls.decrypt(10)


def test_no_session_is_resumed() -> None:
    ctx = context(CLIENT_CERT, server=False)
    server_ctx = context(SERVER_CERT, server=True)
    sessions = []
    for _ in range(2):
        client = client_end(ctx)
        if sessions:
            client.tls._connection.set_session(sessions[0])
        server = server_end(server_ctx)
        shake(client, server)
        assert client.tls.peer_identity == SERVER, "verified each time"
        assert server.tls.peer_identity == CLIENT, "verified each time"
        assert not lib.SSL_session_reused(client.tls._ssl)
        sessions.append(client.tls._connection.get_session())


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_close_notify() -> None:
    client, server = established()
    last = client.send(b"last")
    n = client.tls.shutdown()
    server.take(last + bytes(TO_CLIENT.cipher_out[:n]))
    assert server.error is None
    assert server.plain == b"last"
    assert server.tls.ended
    assert client.take(server.send(b"still yours")) == b"", "the other direction goes on"
    assert client.plain == b"still yours"


def test_shutdown_before_the_handshake_says_nothing() -> None:
    client = client_end()
    assert client.tls.shutdown() == 0
    assert lib.ERR_peek_error() == 0


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_a_record_with_a_flipped_bit(at: int) -> None:
    client, server = established()
    cipher = bytearray(client.send(b"hello"))
    cipher[at] ^= 1
    server.take(bytes(cipher))
    assert server.reason is CloseReason.TLS_FAILURE
    assert server.plain == b""
    assert server.alert
    assert lib.ERR_peek_error() == 0


def test_a_truncated_record_waits() -> None:
    client, server = established()
    cipher = client.send(b"hello")
    server.take(cipher[:-1])
    assert (server.plain, server.error) == (b"", None)
    server.take(cipher[-1:])
    assert server.plain == b"hello"


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", bytes(300), b"\x16\x03\x01\xff\xff" + bytes(400), b"\xff" * 70_000])
def test_garbage_instead_of_a_handshake(junk: bytes) -> None:
    server = server_end()
    server.take(junk)
    assert server.reason is CloseReason.TLS_FAILURE
    assert not server.tls.established
    assert lib.ERR_peek_error() == 0


@given(st.binary(max_size=2000), st.booleans())
@settings(max_examples=60)
def test_random_bytes_raise_nothing_but_tls_error(junk: bytes, after_handshake: bool) -> None:
    if after_handshake:
        _, server = established()
    else:
        server = server_end()
    server.take(junk)
    assert server.plain == b""


def test_an_error_left_in_the_queue_by_another_is_not_ours() -> None:
    client, server = established()
    cipher = client.send(b"hello")
    lib.X509_new()
    lib.BIO_new_file(b"/nonexistent", b"r")  # leaves an error behind
    assert lib.ERR_peek_error() != 0
    server.take(cipher)
    assert server.plain == b"hello"
    assert server.error is None


@pytest.mark.parametrize("chunk", [1, 5, 6, 1000, 16_384, 16_407, 65_536, 262_144])
def test_bytes_in_any_chunks(chunk: int) -> None:
    client, server = established()
    payload = bytes(range(251)) * (40 if chunk < 10 else 4000)
    cipher = client.send(payload)
    for i in range(0, len(cipher), chunk):
        server.take(cipher[i : i + chunk])
    assert server.error is None
    assert server.plain == payload


def test_a_partial_record_then_a_full_buffer() -> None:
    """The worst case for ``plain_in``: a record that lacks one byte, then as much as ``cipher_in`` holds."""
    client, server = established()
    cipher = client.send(bytes(1 << 19))
    first = cipher[: 16_405 - 1]
    server.take(first)
    server.take(cipher[len(first) : len(first) + (1 << 18)])
    server.take(cipher[len(first) + (1 << 18) :])
    assert server.plain == bytes(1 << 19)


def test_encrypt_is_bounded() -> None:
    client, _ = established()
    with pytest.raises(ValueError, match="at most 1048576"):
        client.tls.encrypt(pointer(bytearray(10)), (1 << 20) + 1)


def test_one_byte_at_a_time() -> None:
    client, server = established()
    for i in range(300):
        server.take(client.send(bytes((i % 256,))))
    assert server.plain == bytes(i % 256 for i in range(300))


def resident() -> int:
    """Bytes of memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


def test_bulk_leaves_no_memory_behind() -> None:
    """64 MiB through one session: neither BIO keeps more than some steps' worth."""
    client, server = established()
    source = bytearray(1 << 20)
    before = 0
    for i in range(64):
        n = client.tls.encrypt(pointer(source), len(source))
        cipher = client.buffers.cipher_out[:n]
        for at in range(0, n, 1 << 18):
            part = cipher[at : at + (1 << 18)]
            server.buffers.cipher_in[: len(part)] = part
            server.tls.decrypt(len(part))
        if i == 7:
            before = resident()
    assert resident() - before < 1 << 20


def test_closed_sessions_are_freed_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        client, server = established()
        watched = weakref.ref(server.tls._connection)
        server.tls.close()
        del client, server
        assert watched() is None
    finally:
        gc.enable()
