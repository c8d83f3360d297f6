"""DATA: padded, in pieces, interleaved, more of it than there is window; any split of a byte stream gives the same events."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import frames as f
from tests.sessions import Talk, client, server
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.hbone.limits import SessionLimits

SMALL = SessionLimits(stream_window=100_000, connection_window=200_000)


@pytest.mark.parametrize("first", [f.data(1, b"x"), f.data(1, end=True), f.data(1, b"", pad=3), f.data(1, b"x", end=True)])
def test_data_before_the_answer(first: bytes) -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    assert talk.refuses(first).code is E.PROTOCOL_ERROR


def test_padding_is_not_data_and_is_credited_at_once() -> None:
    talk = server(streams=1)
    before = talk.session.recv_window
    assert talk.hear(f.data(1, b"abc", pad=200), f.data(1, b"", pad=0, end=True)) == [("data", 1, b"abc"), ("end", 1)]
    assert talk.session.recv_window == before - 204 - 1
    assert talk.session._unacked == 202, "all but the three bytes"


def test_reserved_bits_and_unknown_flags_are_ignored() -> None:
    talk = server(streams=1)
    assert talk.hear(b"\x00\x00\x01\x00\xf6\x80\x00\x00\x01x") == [("data", 1, b"x")]


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
