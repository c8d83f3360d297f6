"""Header blocks: requests, answers, trailers, CONTINUATION, and bombs."""

import pytest

from tests import frames as f
from tests.sessions import client, server
from ztunnel.hbone.errors import ErrorCode as E
from ztunnel.reasons import CloseReason


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


def test_padded_headers_with_priority() -> None:
    talk = server()
    payload = b"\x04" + b"\x00\x00\x00\x00\x10" + f.REQUEST + bytes(4)
    assert talk.hear(f.frame(1, payload, flags=0x2C, stream=1)) == [("request", 1)]


def test_the_headers_of_a_request_arrive_as_bytes() -> None:
    talk = server()
    events = talk.session.receive(memoryview(f.headers(1, f.REQUEST, end=True)), 0.0)
    assert events[0][2] == [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"), (b"baggage", b"k=v")]
    assert events[1][2] is None, "END_STREAM"


def test_a_clients_late_answer_is_ignored() -> None:
    talk = client()
    talk.session.reset(talk.session.open(f.REQUEST), E.CANCEL)
    assert talk.hear(f.headers(1, f.ANSWER), f.data(1, b"x")) == []


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


# --- header bombs -----------------------------------------------------------------------------------------------------


def test_a_block_of_many_continuations() -> None:
    talk = server()
    talk.hear(f.headers(1, b"", flags=0))
    error = talk.refuses(f.continuation(1, b"") * 20)
    assert (error.code, error.reason) == (E.ENHANCE_YOUR_CALM, CloseReason.TUNNEL_FLOOD)


def test_a_block_of_long_continuations() -> None:
    talk = server()
    talk.hear(f.headers(1, bytes(30_000), flags=0), f.continuation(1, bytes(30_000)))
    assert talk.refuses(f.continuation(1, bytes(30_000))).reason is CloseReason.TUNNEL_FLOOD


@pytest.mark.parametrize("part", [f.frame(1, length=65_537, stream=1), f.frame(9, length=65_537, stream=1)])
def test_a_long_block_in_one_frame_is_not_waited_for(part: bytes) -> None:
    talk = server()
    if part[3] == 9:
        talk.hear(f.headers(1, b"", flags=0))
    assert talk.refuses(part).reason is CloseReason.TUNNEL_FLOOD


def test_a_table_entry_named_again_and_again() -> None:
    talk = server()
    bomb = b"\x40\x01a\x7f\x81\x1e" + b"x" * 4_000 + b"\xbe" * 60_000
    error = talk.refuses(f.headers(1, bomb))
    assert (error.code, error.reason) == (E.ENHANCE_YOUR_CALM, CloseReason.TUNNEL_FLOOD)


def test_a_client_takes_no_more_than_it_announced() -> None:
    talk = client()
    talk.session.open(f.REQUEST)
    block = b"\x88" + b"\x10\x01a\x7f\x81\x7f" + b"x" * 16_384
    assert talk.refuses(f.headers(1, block)).reason is CloseReason.TUNNEL_FLOOD
