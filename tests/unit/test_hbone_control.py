"""SETTINGS, windows, PING, GOAWAY and frames that mean nothing, in literal bytes."""

import pytest

from tests import frames as f
from tests.sessions import Talk, client, server
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.hbone.limits import SessionLimits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


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


def test_settings_are_answered_and_taken() -> None:
    talk = Talk(client=False)
    assert not talk.session.ready
    assert talk.hear(PREFACE, b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", b"\x00\x05\x00\x10\x00\x00") == [("ready", 0)]
    assert talk.said() == b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"
    assert talk.session.ready
    assert talk.session.peer_frame == 1_048_576
    assert talk.hear(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00") == [], "the ACK of ours"


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize(
    "first",
    [f.ping(), f.window(0, 1), f.headers(1, f.REQUEST), f.data(1, b"x"), f.frame(77), f.settings(ack=True), f.goaway(0)],
)
def test_frames_before_settings(is_client: bool, first: bytes) -> None:
    talk = Talk(client=is_client)
    assert talk.refuses(b"" if is_client else PREFACE, first).code is E.PROTOCOL_ERROR


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
