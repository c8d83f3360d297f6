"""Peers that break rules or flood: each ends with the right error code, GOAWAY on the wire, and little work done by us."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from tests import frames as f
from tests.sessions import Talk, client, server
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.hbone.errors import SessionError
from ztunnel.hbone.limits import SessionLimits
from ztunnel.reasons import CloseReason

BIG = 2**31 - 1

BROKEN_RULES = {
    "DATA on stream 0": (f.data(0, b"x"), E.PROTOCOL_ERROR),
    "DATA on an idle stream": (f.data(9, b"x"), E.PROTOCOL_ERROR),
    "DATA on an even stream": (f.data(2, b"x"), E.PROTOCOL_ERROR),
    "padded DATA on an idle stream": (f.data(9, b"x", pad=1), E.PROTOCOL_ERROR),
    "DATA above our frame size": (f.frame(0, b"", length=1_048_577, stream=1), E.FRAME_SIZE_ERROR),
    "DATA with nothing but a padding flag": (f.frame(0, b"", flags=8, stream=1), E.PROTOCOL_ERROR),
    "DATA with too much padding": (f.frame(0, b"\x05abcd", flags=8, stream=1), E.PROTOCOL_ERROR),
    "HEADERS on stream 0": (f.headers(0, f.REQUEST), E.PROTOCOL_ERROR),
    "HEADERS with too much padding": (f.frame(1, b"\x09" + f.REQUEST[:5], flags=0x0C, stream=5), E.PROTOCOL_ERROR),
    "HEADERS without a padding length": (f.frame(1, b"", flags=0x0C, stream=5), E.FRAME_SIZE_ERROR),
    "HEADERS without its priority": (f.frame(1, b"\x00\x00", flags=0x24, stream=5), E.PROTOCOL_ERROR),
    "CONTINUATION out of the blue": (f.continuation(1, b"", last=True), E.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (f.rst(0, 8), E.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (f.rst(9, 8), E.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (f.frame(3, b"\0\0\0", stream=1), E.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (f.settings(stream=1), E.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (f.frame(4, bytes(5)), E.FRAME_SIZE_ERROR),
    "SETTINGS ACK with a payload": (f.settings((1, 1), ack=True), E.FRAME_SIZE_ERROR),
    "SETTINGS of 20 KiB": (f.frame(4, b"", length=20_480), E.ENHANCE_YOUR_CALM),
    "ENABLE_PUSH 2": (f.settings((2, 2)), E.PROTOCOL_ERROR),
    "initial window of 2^31": (f.settings((4, 2**31)), E.FLOW_CONTROL_ERROR),
    "frame size of 16383": (f.settings((5, 16_383)), E.PROTOCOL_ERROR),
    "frame size of 2^24": (f.settings((5, 2**24)), E.PROTOCOL_ERROR),
    "PUSH_PROMISE": (f.frame(5, bytes(4), stream=1), E.PROTOCOL_ERROR),
    "PING on a stream": (f.ping(stream=1), E.PROTOCOL_ERROR),
    "PING of 7 bytes": (f.ping(bytes(7)), E.FRAME_SIZE_ERROR),
    "PING of 9 bytes": (f.ping(bytes(9)), E.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (f.goaway(0, stream=1), E.PROTOCOL_ERROR),
    "GOAWAY of 7 bytes": (f.frame(7, bytes(7)), E.FRAME_SIZE_ERROR),
    "GOAWAY of 20 KiB": (f.frame(7, b"", length=20_480), E.ENHANCE_YOUR_CALM),
    "WINDOW_UPDATE of 0": (f.window(0, 0), E.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0 on a stream": (f.window(1, 0), E.PROTOCOL_ERROR),
    "WINDOW_UPDATE of the reserved bit": (f.window(1, 2**31), E.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 5 bytes": (f.frame(8, bytes(5)), E.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (f.window(9, 1), E.PROTOCOL_ERROR),
    "connection window overflow": (f.window(0, BIG), E.FLOW_CONTROL_ERROR),
    "stream window overflow": (f.window(1, BIG), E.FLOW_CONTROL_ERROR),
    "stream window overflow by SETTINGS": (f.window(1, BIG - 65_535) + f.settings((4, 65_536)), E.FLOW_CONTROL_ERROR),
    "PRIORITY on stream 0": (f.priority(0), E.PROTOCOL_ERROR),
    "PRIORITY of 4 bytes": (f.priority(1, bytes(4)), E.FRAME_SIZE_ERROR),
    "unknown frame above our frame size": (f.frame(99, b"", length=1_048_577), E.FRAME_SIZE_ERROR),
    "bad compression": (f.headers(5, b"\xff\xff\xff\xff\xff\xff\xff"), E.COMPRESSION_ERROR),
    "an index out of the table": (f.headers(5, b"\xfe"), E.COMPRESSION_ERROR),
    "a table above 4096": (f.headers(5, b"\x3f\xe2\x1f"), E.COMPRESSION_ERROR),
    "a block cut short": (f.headers(5, b"\x40\x7f"), E.COMPRESSION_ERROR),
}


def check(talk: Talk, error: E, part: bytes) -> None:
    last = talk.session.last_peer_id
    found = talk.refuses(part)
    assert found.code is error
    said = talk.said()
    # An ACK of SETTINGS that were right, a last stream the frame itself may have opened: GOAWAY is at the end all the same.
    at = said.rindex(b"\x07\x00\x00\x00\x00\x00")
    assert int.from_bytes(said[at + 6 : at + 10], "big") >= last
    assert said[at + 10 : at + 14] == int(error).to_bytes(4, "big")
    assert said[at + 14 :] == found.detail.encode()
    assert talk.session.draining


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_a_rule_is_broken_towards_a_server(name: str) -> None:
    part, error = BROKEN_RULES[name]
    check(server(streams=2), error, part)


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_a_rule_is_broken_towards_a_client(name: str) -> None:
    part, error = BROKEN_RULES[name]
    talk = client(streams=2)
    talk.session.open(f.REQUEST)
    talk.said()
    check(talk, error, part)


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (f.headers(2, f.REQUEST), E.PROTOCOL_ERROR),
        (f.headers(1, f.REQUEST), E.PROTOCOL_ERROR),
        (f.headers(3, f.REQUEST, end=True), E.PROTOCOL_ERROR),
        (f.data(1, b"x", end=True) + f.data(1, b"y"), E.STREAM_CLOSED),
        (f.data(1, b"x", end=True) + f.data(1, b"y", pad=1), E.STREAM_CLOSED),
        (f.data(1, b"x", end=True) + f.headers(1, b"\x10\x01a\x01b", end=True), E.STREAM_CLOSED),
    ],
)
def test_streams_opened_or_used_wrongly(part: bytes, error: E) -> None:
    talk = server(streams=2)
    talk.session.reset(talk.stream(3), E.CANCEL)
    check(talk, error, part)


def test_a_server_may_not_open_streams_or_push() -> None:
    assert client().refuses(f.headers(2, f.REQUEST)).code is E.PROTOCOL_ERROR
    assert client().refuses(f.headers(1, f.ANSWER)).code is E.PROTOCOL_ERROR
    assert client().refuses(f.settings((2, 1))).code is E.PROTOCOL_ERROR
    assert server().hear(f.settings((2, 1))) == [], "a client may say that it can take pushes"


# --- floods -----------------------------------------------------------------------------------------------------------


def repeat(part: bytes) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        while True:
            yield part

    return parts


def rapid_reset() -> Iterator[bytes]:
    for sid in range(7, 2**31, 2):
        yield f.headers(sid, f.REQUEST) + f.rst(sid, 8)


def above_the_limit() -> Iterator[bytes]:
    for sid in range(7, 2**31, 2):
        yield f.headers(sid, f.REQUEST)


def window_flips() -> Iterator[bytes]:
    while True:
        yield f.settings((4, 0)) + f.settings((4, 65_535))


FLOODS = {
    "PING": repeat(f.ping()),
    "PING ACK": repeat(f.ping(ack=True)),
    "SETTINGS": repeat(f.settings()),
    "SETTINGS ACK": repeat(f.settings(ack=True)),
    "SETTINGS that move every window": window_flips,
    "SETTINGS of many pairs": repeat(f.settings(*[(4, i) for i in range(2_000)])),
    "PRIORITY": repeat(f.priority(1)),
    "GOAWAY": repeat(f.goaway(0)),
    "empty DATA": repeat(f.data(1)),
    "empty padded DATA": repeat(f.data(1, pad=0)),
    "empty DATA on a closed stream": repeat(f.data(5)),
    "empty ends on a closed stream": repeat(f.data(5, end=True)),
    "RST_STREAM on a closed stream": repeat(f.rst(5, 8)),
    "WINDOW_UPDATE on a closed stream": repeat(f.window(5, 1)),
    "trailers on a closed stream": repeat(f.headers(5, b"", end=True)),
    "unknown types": repeat(f.frame(99)),
    "long unknown types": repeat(f.frame(99, bytes(1_000_000))),
    "table size updates": repeat(f.headers(5, b"\x20\x3f\xe1\x1f" * 15_000, end=True)),
    "rapid reset": rapid_reset,
    "streams above the limit": above_the_limit,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_session(name: str) -> None:
    talk = server(SessionLimits(max_streams=3), streams=3)
    talk.hear(f.rst(5, 8))
    start = time.process_time()
    put = 0
    error = None
    for part in islice(FLOODS[name](), 12_000):
        try:
            talk.hear(part)
        except SessionError as e:
            error = e
            break
        put += len(talk.said())
    assert error is not None
    assert error.code is E.ENHANCE_YOUR_CALM
    assert error.reason is CloseReason.TUNNEL_FLOOD
    assert put < 40_000, "what it made us answer"
    assert time.process_time() - start < 3


def test_the_work_that_settings_cause_is_paid_for() -> None:
    talk = server(streams=200)
    many = f.settings(*[(4, i) for i in range(2_000)])
    with pytest.raises(SessionError, match="SETTINGS"):
        talk.hear(many * 12)


def test_a_client_is_not_flooded_with_informational_answers() -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    assert talk.refuses(f.headers(1, b"\x18\x03103") * 1_100).reason is CloseReason.TUNNEL_FLOOD


def test_budgets_refill_with_time_and_streams() -> None:
    talk = server()
    talk.hear(f.ping() * 998)
    talk.now = 5.0
    talk.hear(f.ping() * 500)
    sid = 1
    for _ in range(3_000):  # an honest peer that resets each stream just after we did
        talk.hear(f.headers(sid, f.REQUEST))
        talk.session.answer(talk.stream(sid), 401)
        talk.hear(f.rst(sid, 8))
        sid += 2
    assert talk.refuses(f.ping() * 200).reason is CloseReason.TUNNEL_FLOOD


def test_an_honest_day_is_no_flood() -> None:
    """PING every 10 s, a WINDOW_UPDATE for each of many DATA, streams that are reset once answered."""
    talk = server()
    sid = 1
    for second in range(0, 3_600, 10):
        talk.now = float(second)
        talk.hear(f.ping())
        for _ in range(20):
            talk.hear(f.headers(sid, f.REQUEST))
            talk.session.answer(talk.stream(sid), 200)
            talk.hear(f.window(sid, 100) * 20, f.window(0, 100) * 20, f.rst(sid, 8))
            sid += 2


# --- memory -----------------------------------------------------------------------------------------------------------


def test_little_is_kept_of_what_is_not_complete() -> None:
    talk = server(streams=1)
    session = talk.session
    for part in (f.data(1, bytes(1_000_000), pad=255), f.frame(99, bytes(1_000_000)), f.data(1, bytes(1_000_000))):
        for i in range(0, len(part), 10_000):
            talk.hear(part[i : i + 10_000])
            assert len(session._partial) < 10
    part = f.headers(3, bytes(60_000), flags=0)
    for i in range(0, len(part), 10_000):
        talk.hear(part[i : i + 10_000])
        assert len(session._partial) + len(session._block) <= 65_536 + 9
