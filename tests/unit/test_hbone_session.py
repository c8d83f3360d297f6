"""The session as a dialogue, in the bytes of RFC 9113. ``hear`` is what the peer sends, ``said`` what we put."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_settings_are_answered_and_taken() -> None:
    talk = Talk(client=False)
    assert not talk.session.ready
    assert talk.hear(PREFACE, b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", b"\x00\x05\x00\x10\x00\x00") == [("ready", 0)]
    assert talk.said() == b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"
    assert talk.session.ready
    assert talk.session.peer_frame == 1_048_576
    assert talk.hear(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00") == [], "the ACK of ours"


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


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize(
    "first",
    [f.ping(), f.window(0, 1), f.headers(1, f.REQUEST), f.data(1, b"x"), f.frame(77), f.settings(ack=True), f.goaway(0)],
)
def test_frames_before_settings(is_client: bool, first: bytes) -> None:
    talk = Talk(client=is_client)
    assert talk.refuses(b"" if is_client else PREFACE, first).code is E.PROTOCOL_ERROR


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


def test_the_headers_of_a_request_arrive_as_bytes() -> None:
    talk = server()
    events = talk.session.receive(memoryview(f.headers(1, f.REQUEST, end=True)), 0.0)
    assert events[0][2] == [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"), (b"baggage", b"k=v")]
    assert events[1][2] is None, "END_STREAM"


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


def test_a_clients_late_answer_is_ignored() -> None:
    talk = client()
    talk.session.reset(talk.session.open(f.REQUEST), E.CANCEL)
    assert talk.hear(f.headers(1, f.ANSWER), f.data(1, b"x")) == []


def test_trailers_are_an_end() -> None:
    block = b"\x10\x01a\x01b"
    assert client(streams=1).hear(f.headers(1, block, end=True)) == [("end", 1)]
    assert server(streams=1).hear(f.headers(1, block, end=True)) == [("end", 1)]


@pytest.mark.parametrize(("block", "end"), [(b"\x88", True), (b"\x10\x01a\x01b", False), (b"\x18\x03503", True)])
def test_bad_trailers(block: bytes, end: bool) -> None:
    for talk in (client(streams=1), server(streams=1)):
        assert talk.refuses(f.headers(1, block, end=end)).code is E.PROTOCOL_ERROR


def test_an_answer_that_ends_at_once() -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    assert talk.hear(f.headers(1, b"\x18\x03401", end=True)) == [("answer", 1, 401), ("end", 1)]


def test_informational_answers_are_not_the_answer() -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    assert talk.hear(f.headers(1, b"\x18\x03103"), f.headers(1, b"\x18\x03100"), f.headers(1, b"\x88")) == [("answer", 1, 200)]


@pytest.mark.parametrize(
    ("block", "end"),
    [
        (b"\x10\x01a\x01b", False),
        (b"\x88\x88", False),
        (b"\x18\x03abc", False),
        (b"\x18\x04200 ", False),
        (b"\x18\x02-1", False),
        (b"\x18\x03099", False),
        (b"\x18\x03600", False),
        (b"\x18\x03101", False),
        (b"\x18\x03100", True),
        (b"", False),
    ],
)
def test_answers_without_a_valid_status(block: bytes, end: bool) -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    assert talk.refuses(f.headers(1, block, end=end)).code is E.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [f.data(1, b"x"), f.data(1, end=True), f.data(1, b"", pad=3), f.data(1, b"x", end=True)])
def test_data_before_the_answer(first: bytes) -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    assert talk.refuses(first).code is E.PROTOCOL_ERROR


def test_interleaved_streams() -> None:
    talk = server(streams=3)
    assert talk.hear(f.data(5, b"a"), f.data(1, b"b"), f.data(3, b"c", end=True), f.data(5, b"d"), f.rst(1, 8)) == [
        ("data", 5, b"a"),
        ("data", 1, b"b"),
        ("data", 3, b"c"),
        ("end", 3),
        ("data", 5, b"d"),
        ("reset", 1, 8),
    ]


def test_padding_is_not_data_and_is_credited_at_once() -> None:
    talk = server(streams=1)
    before = talk.session.recv_window
    assert talk.hear(f.data(1, b"abc", pad=200), f.data(1, b"", pad=0, end=True)) == [("data", 1, b"abc"), ("end", 1)]
    assert talk.session.recv_window == before - 204 - 1
    assert talk.session._unacked == 202, "all but the three bytes"


def test_padded_headers_with_priority() -> None:
    talk = server()
    payload = b"\x04" + b"\x00\x00\x00\x00\x10" + f.REQUEST + bytes(4)
    assert talk.hear(f.frame(1, payload, flags=0x2C, stream=1)) == [("request", 1)]


def test_reserved_bits_and_unknown_flags_are_ignored() -> None:
    talk = server(streams=1)
    assert talk.hear(b"\x00\x00\x01\x00\xf6\x80\x00\x00\x01x") == [("data", 1, b"x")]


# --- header blocks in parts -------------------------------------------------------------------------------------------


def test_a_block_in_continuations() -> None:
    talk = server()
    parts = [f.headers(1, f.REQUEST[:5], flags=0), f.continuation(1, f.REQUEST[5:9]), f.continuation(1, f.REQUEST[9:], last=True)]
    assert talk.hear(*parts) == [("request", 1)]


@pytest.mark.parametrize(
    "other", [f.data(1, b"x"), f.data(3, b"x"), f.ping(), f.continuation(5, b""), f.headers(3, b""), f.frame(99), f.window(0, 1)]
)
def test_nothing_may_interrupt_a_block(other: bytes) -> None:
    talk = server(streams=1)
    assert talk.refuses(f.headers(3, f.REQUEST[:5], flags=0), other).code is E.PROTOCOL_ERROR


def test_our_long_block_is_split_at_the_peers_frame_size() -> None:
    talk = client()
    talk.session.open(bytes(20_000))
    assert talk.said() == (
        b"\x00\x40\x00\x01\x00\x00\x00\x00\x01" + bytes(16_384) + b"\x00\x0e\x20\x09\x04\x00\x00\x00\x01" + bytes(3_616)
    )


def test_a_smaller_header_table_is_acknowledged_in_the_next_block() -> None:
    talk = client()
    talk.hear(f.settings((1, 4096)))
    talk.session.open(b"\x82")
    assert talk.said().endswith(b"\x04\x00\x00\x00\x01\x82"), "no smaller than before"
    talk.hear(f.settings((1, 100)))
    talk.said()
    talk.session.open(b"\x82")
    talk.session.open(b"\x82")
    assert talk.said() == f.headers(3, b"\x20\x82") + f.headers(5, b"\x82")
    talk.hear(f.settings((1, 0), (1, 4096)))
    talk.said()
    talk.session.open(b"\x82")
    assert talk.said() == f.headers(7, b"\x82"), "it is 0 already"


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


@pytest.mark.parametrize("part", [f.data(1, bytes(10_001)), f.data(1, bytes(9_800), pad=200)])
def test_more_than_the_streams_window(part: bytes) -> None:
    talk = server(SMALL, streams=1)
    talk.hear(f.settings(ack=True), f.data(1, bytes(90_000)))
    assert talk.refuses(part).code is E.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("last", [f.data(5, b"x"), f.data(5, pad=0), f.data(7, b"x")])
def test_more_than_the_connections_window(last: bytes) -> None:
    talk = server(SMALL, streams=4)
    talk.session.reset(talk.stream(7), E.CANCEL)
    talk.hear(f.data(1, bytes(100_000)), f.data(3, bytes(100_000)))
    assert talk.session.recv_window == 0
    assert talk.refuses(last).code is E.FLOW_CONTROL_ERROR


def test_a_small_window_holds_from_the_peers_ack_on() -> None:
    talk = server(SessionLimits(stream_window=1_000, connection_window=65_535), streams=2)
    talk.hear(f.data(1, bytes(60_000)))
    talk.hear(f.settings(ack=True))
    assert talk.stream(1).recv_window == 1_000 - 60_000
    talk.hear(f.data(1, end=True))  # no bytes: allowed in a negative window
    assert talk.refuses(f.data(3, bytes(1_001))).code is E.FLOW_CONTROL_ERROR


def test_a_clients_small_window() -> None:
    talk = client(SessionLimits(stream_window=1_000, connection_window=65_535))
    talk.session.open(f.REQUEST)
    talk.hear(f.settings(ack=True), f.headers(1, f.ANSWER))
    assert talk.stream(1).recv_window == 1_000


def test_send_windows_grow() -> None:
    talk = server(streams=1)
    stream, session = talk.stream(1), talk.session
    assert (stream.send_window, session.send_window) == (65_535, 65_535)
    assert talk.hear(f.window(1, 10), f.window(0, 20)) == [], "no news for a sender that is not waiting"
    assert (stream.send_window, session.send_window) == (65_545, 65_555)
    stream.send_window = session.send_window = 0
    assert talk.hear(f.window(1, 10), f.window(0, 20), f.window(1, 1)) == [("window", 1), ("windows", 0)]


def test_settings_move_every_streams_window() -> None:
    talk = server(streams=2)
    talk.stream(1).send_window = 5
    assert talk.hear(f.settings((4, 65_530))) == []
    assert (talk.stream(1).send_window, talk.stream(3).send_window) == (0, 65_530)
    assert talk.hear(f.settings((4, 0))) == []
    assert (talk.stream(1).send_window, talk.stream(3).send_window) == (-65_530, 0)
    assert talk.hear(f.window(1, 65_530)) == [], "still nothing to send with"
    assert talk.hear(f.window(1, 1)) == [("window", 1)]
    assert talk.hear(f.settings((4, 100))) == [("windows", 0)]
    assert talk.stream(1).send_window == 101
    assert talk.session.send_window == 65_535, "the connection's is not touched (RFC 9113 §6.9.2)"
    talk.hear(f.headers(5, f.REQUEST))
    assert talk.stream(5).send_window == 100


def test_the_last_of_repeated_settings_counts() -> None:
    talk = server(streams=1)
    assert talk.hear(f.settings((4, 0), (4, 2**31 - 1), (4, 70_000))) == [("windows", 0)]
    assert talk.stream(1).send_window == 70_000


# --- limits on streams ------------------------------------------------------------------------------------------------


def test_streams_above_the_limit_are_refused() -> None:
    talk = server(SessionLimits(max_streams=2), streams=2)
    assert talk.hear(f.headers(5, f.REQUEST)) == []
    assert talk.said() == b"\x00\x00\x04\x03\x00\x00\x00\x00\x05\x00\x00\x00\x07"
    assert talk.hear(f.data(5, b"under way"), f.data(5, end=True)) == []
    talk.hear(f.rst(1, 8))
    assert talk.hear(f.headers(7, f.REQUEST)) == [("request", 7)]


def test_room_of_a_client() -> None:
    talk = client()
    assert talk.session.room == 100
    talk.hear(f.settings((3, 200)))
    assert talk.session.room == 100, "never more than we assume"
    talk.hear(f.settings((3, 2)))
    talk.session.open(f.REQUEST)
    assert talk.session.room == 1
    talk.hear(f.settings((3, 0)))
    assert talk.session.room == 0
    talk.hear(f.settings((3, 50)))
    assert talk.session.room == 49
    talk.session.next_id = 2**31 + 1
    assert talk.session.room == 0, "stream numbers are used up"


# --- GOAWAY and PING --------------------------------------------------------------------------------------------------


def test_goaway_from_us_lets_open_streams_go_on() -> None:
    talk = server(streams=2)
    talk.session.goaway()
    assert talk.said() == b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x00\x00\x00\x03\x00\x00\x00\x00"
    assert talk.hear(f.data(1, b"more")) == [("data", 1, b"more")]
    assert talk.hear(f.headers(5, f.REQUEST)) == []
    assert talk.said() == f.rst(5, 7), "REFUSED_STREAM: safe to try elsewhere"
    talk.session.goaway(E.ENHANCE_YOUR_CALM, b"x" * 300)
    assert talk.said() == f.goaway(3, 11, b"x" * 256), "the last stream must not grow (RFC 9113 §6.8)"


def test_goaway_from_the_server_refuses_what_it_did_not_look_at() -> None:
    talk = client(streams=3)
    assert talk.hear(b"\x00\x00\x0b\x07\x00\x00\x00\x00\x00" + b"\x00\x00\x00\x03\x00\x00\x00\x00bye") == [
        ("goaway", 0, (3, 0)),
        ("reset", 5, 7),
    ]
    assert talk.session.goaway_received
    assert talk.session.room == 0
    assert talk.hear(f.data(3, b"x"), f.data(5, b"y")) == [("data", 3, b"x")]
    assert talk.hear(f.goaway(1, 2)) == [("goaway", 0, (1, 2)), ("reset", 3, 7)]


def test_goaway_from_the_client_leaves_its_streams_alone() -> None:
    talk = server(streams=2)
    assert talk.hear(f.goaway(0)) == [("goaway", 0, (0, 0))]
    assert list(talk.session.streams) == [1, 3]


def test_ping_both_ways() -> None:
    talk = server()
    assert talk.hear(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678") == []
    assert talk.said() == b"\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678"
    talk.session.ping(b"ambient!")
    assert talk.said() == b"\x00\x00\x08\x06\x00\x00\x00\x00\x00ambient!"
    assert talk.hear(b"\x00\x00\x08\x06\x01\x00\x00\x00\x00ambient!") == [("pong", 0, b"ambient!")]


def test_frames_of_no_meaning_are_ignored() -> None:
    talk = server(streams=1)
    unknown = [f.priority(1), f.priority(9), f.frame(200, bytes(100_000), stream=77), f.frame(16, b"u=3"), f.settings((99, 7))]
    assert talk.hear(*unknown, f.data(1, b"x")) == [("data", 1, b"x")]


# --- pieces -----------------------------------------------------------------------------------------------------------

DIALOGUE = b"".join(
    [
        f.CLIENT_HELLO,
        f.headers(1, f.REQUEST),
        f.headers(3, f.REQUEST[:7], flags=0),
        f.continuation(3, f.REQUEST[7:], last=True),
        f.data(1, b"hello"),
        f.data(3, b"padded", pad=17),
        f.window(0, 1000),
        f.data(3, b"", pad=5),
        f.frame(200, b"unknown" * 9, stream=5),
        f.data(1, b"world" * 20, end=True),
        f.data(3, b"last", pad=2, end=True),
        f.ping(b"12345678"),
        f.headers(5, f.REQUEST, end=True),
        f.rst(5, 8),
        f.settings((4, 1)),
        f.settings((4, 100_000)),
        f.goaway(0),
    ]
)


def joined(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Neighbouring DATA of one stream as one."""
    out: list[tuple[Any, ...]] = []
    for event in events:
        if event[0] == "data" and out and out[-1][:2] == event[:2]:
            out[-1] = (*event[:2], out[-1][2] + event[2])
        else:
            out.append(event)
    return out


def heard(parts: list[bytes]) -> tuple[list[tuple[Any, ...]], bytes, tuple[int, ...]]:
    talk = Talk(client=False)
    events: list[tuple[Any, ...]] = []
    for part in parts:
        events += talk.hear(part)
    s = talk.session
    return joined(events), talk.said(), (s.recv_window, s.send_window, s._unacked, *(t.send_window for t in s.streams.values()))


WHOLE = heard([DIALOGUE])


def test_the_dialogue_in_one() -> None:
    assert [event[:2] for event in WHOLE[0]] == [
        ("ready", 0),
        ("request", 1),
        ("request", 3),
        ("data", 1),
        ("data", 3),
        ("data", 1),
        ("end", 1),
        ("data", 3),
        ("end", 3),
        ("request", 5),
        ("end", 5),
        ("reset", 5),
        ("windows", 0),
        ("goaway", 0),
    ]


def test_split_in_two_anywhere() -> None:
    for at in range(len(DIALOGUE) + 1):
        assert heard([DIALOGUE[:at], DIALOGUE[at:]]) == WHOLE, f"split at {at}"


def test_byte_by_byte() -> None:
    assert heard([DIALOGUE[i : i + 1] for i in range(len(DIALOGUE))]) == WHOLE


@given(st.lists(st.integers(0, len(DIALOGUE)), max_size=30))
def test_in_any_pieces(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(DIALOGUE)]
    assert heard([DIALOGUE[a:b] for a, b in pairwise(at)]) == WHOLE


def test_a_reset_in_the_middle_of_a_frame() -> None:
    talk = server(streams=1)
    frame = f.data(1, b"abcdef")
    assert talk.hear(frame[:11]) == [("data", 1, b"ab")]
    talk.session.reset(talk.stream(1), E.CANCEL)
    assert talk.hear(frame[11:]) == []
    assert talk.session._unacked == 4, "the two that were handed on are the shell's to credit"


def test_views_are_not_copies() -> None:
    talk = server(streams=1)
    buffer = bytearray(f.data(1, b"abc"))
    ((_, _, view),) = talk.session.receive(memoryview(buffer), 0.0)
    buffer[9:12] = b"xyz"
    assert view == b"xyz"
