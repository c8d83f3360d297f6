"""Random and mutated frames: a session raises nothing but SessionError and keeps little, whatever comes in whatever pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import frames as f
from tests.sessions import Talk
from ztunnel.hbone.errors import SessionError
from ztunnel.hbone.limits import SessionLimits

LIMITS = SessionLimits(stream_window=70_000, connection_window=140_000, frame=16_384, max_streams=5)
VALID = [
    f.headers(1, f.REQUEST),
    f.headers(3, f.REQUEST, end=True),
    f.headers(5, f.REQUEST[:6], flags=0) + f.continuation(5, f.REQUEST[6:], last=True),
    f.headers(1, f.ANSWER),
    f.headers(3, b"\x18\x03401", end=True),
    f.headers(1, b"\x10\x01a\x01b", end=True),
    f.data(1, b"hello"),
    f.data(3, b"padded", pad=9),
    f.data(1, b"x" * 3_000),
    f.data(3, end=True),
    f.rst(3, 8),
    f.window(0, 1_000),
    f.window(1, 1_000),
    f.settings((4, 10), (1, 0), (5, 20_000)),
    f.settings(ack=True),
    f.ping(),
    f.goaway(1, 0, b"why"),
    f.priority(3),
    f.frame(0xAA, b"unknown"),
]

raw_frames = st.builds(
    f.frame,
    st.integers(0, 12),
    st.binary(max_size=40),
    flags=st.integers(0, 255),
    stream=st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1, 2**32 - 1]),
    length=st.one_of(st.none(), st.integers(0, 60), st.integers(0, 2**24 - 1)),
)
parts = st.lists(st.one_of(st.sampled_from(VALID), raw_frames, st.binary(max_size=30)), max_size=25)


def feed(talk: Talk, wire: bytes, cuts: list[int]) -> None:
    """``wire`` in pieces until it is refused; what the session keeps and says stays in proportion to it."""
    at = 0
    for cut in [*cuts, len(wire)]:
        if cut <= at:
            continue
        try:
            events = talk.session.receive(memoryview(wire[at:cut]), talk.now)
        except SessionError:
            break
        at = cut
        session = talk.session
        for kind, stream, _ in events:
            if kind == 3 and stream is not None and stream.id % 4 == 1:
                session.answer(stream, 200)
        assert len(session._partial) + len(session._block) <= 2 * 65_536
        assert len(session.streams) <= LIMITS.max_streams
        assert session.recv_window >= 0
        assert all(s.send_window < 2**31 for s in session.streams.values())
    assert len(talk.out) <= 400 + 20 * len(wire)


def begun(client: bool) -> Talk:
    talk = Talk(client=client, limits=LIMITS)
    talk.session.start()
    talk.hear(f.SERVER_HELLO if client else f.CLIENT_HELLO)
    if client:
        for _ in range(3):
            talk.session.open(f.REQUEST)
    return talk


@pytest.mark.parametrize("client", [True, False])
@given(parts=parts, cuts=st.lists(st.integers(0, 500), max_size=8))
@settings(max_examples=250)
def test_frames(client: bool, parts: list[bytes], cuts: list[int]) -> None:
    feed(begun(client), b"".join(parts), sorted(cuts))


@pytest.mark.parametrize("client", [True, False])
@given(
    order=st.permutations(VALID),
    flips=st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 255)), max_size=4),
    cut=st.integers(0, 5_000),
)
@settings(max_examples=150)
def test_mutated_dialogues(client: bool, order: list[bytes], flips: list[tuple[int, int]], cut: int) -> None:
    wire = bytearray(b"".join(order))
    for at, mask in flips:
        wire[at % len(wire)] ^= mask
    feed(begun(client), bytes(wire), [cut])


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_bytes(junk: bytes, client: bool, after_hello: bool) -> None:
    talk = begun(client) if after_hello else Talk(client=client, limits=LIMITS)
    feed(talk, junk, [])


@pytest.mark.parametrize("client", [True, False])
@given(block=st.binary(max_size=300), ended=st.booleans())
@settings(max_examples=200)
def test_header_blocks(client: bool, block: bytes, ended: bool) -> None:
    feed(begun(client), f.headers(1, block, end=ended) + f.headers(3, block, end=ended), [])
