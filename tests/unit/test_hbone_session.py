"""The session as a dialogue, in the bytes of RFC 9113. ``hear`` is what the peer sends, ``said`` what we put."""

import pytest

from tests import frames as f
from tests.sessions import Talk, client, server
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.hbone.limits import SessionLimits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SMALL = SessionLimits(stream_window=100_000, connection_window=200_000)


# --- the beginning ----------------------------------------------------------------------------------------------------


def test_what_a_client_says_first() -> None:
    talk = Talk(client=True)
    talk.session.start()
    assert talk.said() == (
        PREFACE
        + b"\x00\x00\x18\x04\x00\x00\x00\x00\x00"  # SETTINGS, 24 bytes
        + b"\x00\x02\x00\x00\x00\x00"  # ENABLE_PUSH 0
        + b"\x00\x04\x00\x40\x00\x00"  # INITIAL_WINDOW_SIZE 4 194 304
        + b"\x00\x05\x00\x10\x00\x00"  # MAX_FRAME_SIZE 1 048 576
        + b"\x00\x06\x00\x00\x40\x00"  # MAX_HEADER_LIST_SIZE 16 384
        + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\xff\x00\x01"  # WINDOW_UPDATE to 16 777 216
    )


def test_what_a_server_says_first() -> None:
    talk = Talk(client=False)
    talk.session.start()
    assert talk.said() == (
        b"\x00\x00\x18\x04\x00\x00\x00\x00\x00"
        b"\x00\x03\x00\x00\x00\xc8"  # MAX_CONCURRENT_STREAMS 200
        b"\x00\x04\x00\x40\x00\x00"
        b"\x00\x05\x00\x10\x00\x00"
        b"\x00\x06\x00\x01\x00\x00"  # MAX_HEADER_LIST_SIZE 65 536
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\xff\x00\x01"
    )


def test_a_preface_in_pieces() -> None:
    talk = Talk(client=False)
    for i in range(len(PREFACE)):
        assert talk.hear(PREFACE[i : i + 1]) == []
    assert talk.hear(f.settings()) == [("ready", 0)]


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t",
        b"Q",
        b"\x16\x03\x01",
        PREFACE[:10] + b"X",
    ],
)
def test_a_bad_preface(first: bytes) -> None:
    talk = Talk(client=False)
    error = talk.refuses(first)
    assert error.code is E.PROTOCOL_ERROR
    assert talk.said() == f.goaway(0, 1, b"no HTTP/2 connection preface")


# --- one stream -------------------------------------------------------------------------------------------------------


def test_a_stream_from_the_client() -> None:
    talk = client()
    stream = talk.session.open(b"\x12\x07CONNECT\x11\x0b10.0.0.1:80")
    assert talk.said() == b"\x00\x00\x16\x01\x04\x00\x00\x00\x01" + b"\x12\x07CONNECT\x11\x0b10.0.0.1:80"
    assert talk.hear(b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88") == [("answer", 1, 200)]
    assert talk.hear(b"\x00\x00\x05\x00\x00\x00\x00\x00\x01hello") == [("data", 1, b"hello")]
    talk.session.end(stream)
    assert talk.said() == b"\x00\x00\x00\x00\x01\x00\x00\x00\x01"
    assert talk.hear(b"\x00\x00\x05\x00\x01\x00\x00\x00\x01world") == [("data", 1, b"world"), ("end", 1)]
    assert talk.session.streams == {}
    assert talk.session.open(b"\x82").id == 3


def test_a_stream_at_the_server() -> None:
    talk = server()
    assert talk.hear(f.headers(1, f.REQUEST)) == [("request", 1)]
    stream = talk.stream(1)
    assert talk.hear(f.data(1, b"early")) == [("data", 1, b"early")], "data may come before the answer"
    talk.session.answer(stream, 200, b"\x10\x01a\x01b")
    assert talk.said() == b"\x00\x00\x06\x01\x04\x00\x00\x00\x01\x88\x10\x01a\x01b"
    assert talk.hear(f.data(1, end=True)) == [("end", 1)]
    assert talk.session.streams == {1: stream}, "half-closed"
    talk.session.end(stream)
    assert talk.said() == f.data(1, end=True)
    assert talk.session.streams == {}


@pytest.mark.parametrize(("ended", "more"), [(False, f.rst(1, 0)), (True, b"")])
def test_a_refusal_ends_the_stream(ended: bool, more: bytes) -> None:
    talk = server()
    talk.hear(f.headers(1, f.REQUEST, end=ended))
    talk.session.answer(talk.stream(1), 401)
    assert talk.said() == b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\x18\x03401" + more
    assert talk.session.streams == {}


def test_resets_both_ways() -> None:
    talk = server(streams=2)
    one, three = talk.stream(1), talk.stream(3)
    talk.session.reset(one, E.CANCEL)
    assert talk.said() == b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08"
    assert talk.hear(b"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x08") == [("reset", 3, 8)]
    assert talk.session.streams == {}
    for stream in (one, three):
        talk.session.end(stream)
        talk.session.reset(stream, E.CANCEL)
        talk.session.answer(stream, 200)
    assert talk.said() == b"", "nothing is sent on a stream that is gone"


def test_what_was_under_way_when_we_reset_is_ignored() -> None:
    talk = server(streams=1)
    talk.session.reset(talk.stream(1), E.CANCEL)
    talk.said()
    trailers = f.headers(1, b"\x10\x01a\x01b", end=True)
    assert talk.hear(f.data(1, b"late"), f.data(1, end=True), trailers, f.window(1, 5), f.rst(1, 8)) == []
    assert talk.said() == b""
    assert talk.session._unacked == 4, "the connection's window does not leak"


# --- flow control -----------------------------------------------------------------------------------------------------


def test_credit_comes_only_after_consumed_and_at_half_a_window() -> None:
    talk = server(SMALL, streams=2)
    one = talk.stream(1)
    talk.hear(f.settings(ack=True), f.data(1, bytes(60_000)))
    assert talk.said() == b""
    assert (one.recv_window, talk.session.recv_window) == (40_000, 140_000)
    talk.session.consumed(one, 49_999)
    assert talk.said() == b""
    talk.session.consumed(one, 1)
    assert talk.said() == f.window(1, 50_000)
    talk.session.consumed(one, 10_000)
    talk.hear(f.data(3, bytes(40_000)))
    talk.session.consumed(talk.stream(3), 40_000)
    assert talk.said() == f.window(0, 100_000)
    assert (one.recv_window, talk.session.recv_window) == (90_000, 200_000)


def test_no_stream_credit_after_the_peers_end() -> None:
    talk = server(SMALL, streams=1)
    stream = talk.stream(1)
    talk.hear(f.data(1, bytes(90_000), end=True))
    talk.session.consumed(stream, 90_000)
    assert talk.said() == b""


def test_consumed_after_the_stream_is_gone_credits_the_connection() -> None:
    talk = server(SMALL, streams=1)
    stream = talk.stream(1)
    talk.hear(f.data(1, bytes(100_000)), f.rst(1, 8))
    talk.session.consumed(stream, 100_000)
    assert talk.said() == f.window(0, 100_000)


def test_deferred_credit_for_the_connection() -> None:
    talk = server(SMALL, streams=1)
    stream = talk.stream(1)
    talk.hear(f.data(1, bytes(100_000)))
    talk.session.credit(60_000)  # within the shell's budget
    stream.deferred = 40_000  # above it
    assert talk.said() == b""
    talk.session.consumed_late(stream, 30_000)
    assert talk.said() == b""
    assert (stream.deferred, talk.session._unacked) == (10_000, 90_000)
    talk.session.consumed_late(stream, 70_000)
    assert talk.said() == f.window(1, 100_000) + f.window(0, 100_000)
    assert stream.deferred == 0
    assert (stream.recv_window, talk.session.recv_window) == (100_000, 200_000)


# --- limits on streams ------------------------------------------------------------------------------------------------


def test_streams_above_the_limit_are_refused() -> None:
    talk = server(SessionLimits(max_streams=2), streams=2)
    assert talk.hear(f.headers(5, f.REQUEST)) == []
    assert talk.said() == b"\x00\x00\x04\x03\x00\x00\x00\x00\x05\x00\x00\x00\x07"
    assert talk.hear(f.data(5, b"under way"), f.data(5, end=True)) == []
    talk.hear(f.rst(1, 8))
    assert talk.hear(f.headers(7, f.REQUEST)) == [("request", 7)]
