"""Our session against the h2 library, an independent HTTP/2: whatever either side does, both agree on what was said.

h2 checks what we send more strictly than any real peer: stream states, windows, frame sizes, header compression. Whatever it
raises fails the test.
"""

from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import frames as f
from ztunnel.hbone import events as ev
from ztunnel.hbone import frames as fr
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.limits import SessionLimits
from ztunnel.hbone.session import Session

HEADERS = [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"), (b"baggage", b"k=v")]


@dataclass
class Heard:
    """What one side knows of a stream."""

    data: bytearray = field(default_factory=bytearray)
    status: int = 0
    ended: bool = False
    reset: int | None = None


class Ours:
    """A session driven as the relay drives it."""

    def __init__(self, limits: SessionLimits, *, client: bool) -> None:
        self.out = bytearray()
        self.session = Session(limits, client=client, now=0.0, put=self.out.extend)
        self.session.start()
        self.heard: dict[int, Heard] = {}
        self.sent: dict[int, bytearray] = {}
        self.unread: dict[int, tuple[Any, int]] = {}

    def receive(self, wire: bytes) -> None:
        for kind, stream, arg in self.session.receive(memoryview(wire), 0.0):
            if stream is None:
                continue
            heard = self.heard.setdefault(stream.id, Heard())
            if kind == ev.DATA:
                heard.data += arg
                self.unread[stream.id] = (stream, self.unread.get(stream.id, (stream, 0))[1] + len(arg))
            elif kind == ev.END:
                heard.ended = True
            elif kind == ev.RESET:
                heard.reset = arg
            elif kind == ev.ANSWER:
                heard.status = arg[0]
            elif kind == ev.REQUEST:
                assert arg == HEADERS

    def consume(self) -> None:
        for stream, n in self.unread.values():
            self.session.consumed(stream, n)
        self.unread.clear()

    def send(self, sid: int, n: int) -> None:
        """As much of ``n`` bytes as windows and the frame size allow, framed by the caller as the relay does."""
        stream, session = self.session.streams.get(sid), self.session
        if stream is None or stream.local_closed:
            return
        n = min(n, stream.send_window, session.send_window, session.peer_frame)
        if n > 0:
            payload = bytes(len(self.sent.get(sid, b"")) % 251 for _ in range(n))
            self.out += fr.header(n, fr.DATA, 0, sid) + payload
            stream.send_window -= n
            session.send_window -= n
            self.sent.setdefault(sid, bytearray()).extend(payload)


class Theirs:
    """h2, driven in the same way."""

    def __init__(self, *, client: bool, window: int) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.heard: dict[int, Heard] = {}
        self.sent: dict[int, bytearray] = {}
        self.unread: dict[int, int] = {}
        self.ours_closed: set[int] = set()
        self.gone: set[int] = set()

    def receive(self, wire: bytes) -> None:
        for event in self.h2.receive_data(wire):
            sid = getattr(event, "stream_id", 0)
            heard = self.heard.setdefault(sid, Heard()) if sid else Heard()
            match event:
                case h2.events.RequestReceived(headers=headers):
                    assert [(bytes(n), bytes(v)) for n, v in headers] == HEADERS
                case h2.events.ResponseReceived(headers=headers):
                    heard.status = int(bytes(dict(headers)[b":status"]))
                case h2.events.DataReceived(data=data, flow_controlled_length=n):
                    heard.data += data
                    self.unread[sid] = self.unread.get(sid, 0) + n
                case h2.events.StreamEnded():
                    heard.ended = True
                case h2.events.StreamReset(error_code=code):
                    heard.reset = int(code)
                    self.gone.add(sid)
                case h2.events.ConnectionTerminated():
                    raise AssertionError(f"GOAWAY: {event}")

    def usable(self, sid: int) -> bool:
        return sid not in self.gone and sid not in self.ours_closed

    def consume(self) -> None:
        for sid, n in self.unread.items():
            self.h2.acknowledge_received_data(n, sid)
        self.unread.clear()

    def send(self, sid: int, n: int, pad: int | None) -> None:
        if not self.usable(sid):
            return
        extra = 0 if pad is None else pad + 1
        n = min(n, self.h2.local_flow_control_window(sid) - extra, self.h2.max_outbound_frame_size - extra)
        if n >= 0:
            payload = bytes(len(self.sent.get(sid, b"")) % 249 for _ in range(n))
            self.h2.send_data(sid, payload, pad_length=pad)
            self.sent.setdefault(sid, bytearray()).extend(payload)

    def end(self, sid: int) -> None:
        if self.usable(sid):
            self.h2.end_stream(sid)
            self.ours_closed.add(sid)

    def reset(self, sid: int) -> None:
        self.h2.reset_stream(sid, 8)
        self.gone.add(sid)


class Pair:
    """Both, with the wire between them."""

    def __init__(self, *, ours_is_client: bool, window: int, our_window: int, chunk: int) -> None:
        limits = SessionLimits(stream_window=our_window, connection_window=2 * our_window, max_streams=50)
        self.ours_is_client = ours_is_client
        self.ours = Ours(limits, client=ours_is_client)
        self.theirs = Theirs(client=not ours_is_client, window=window)
        self.chunk = chunk
        self.opened: list[int] = []
        self.reset: dict[int, set[str]] = {}
        self.settle()

    def settle(self) -> None:
        while True:
            wire = self.theirs.h2.data_to_send()
            for i in range(0, len(wire), self.chunk):
                self.ours.receive(wire[i : i + self.chunk])
            back = bytes(self.ours.out)
            self.ours.out.clear()
            self.theirs.receive(back)
            if not wire and not back:
                return

    def open(self) -> None:
        if self.ours_is_client:
            if not self.ours.session.room:
                return
            sid = self.ours.session.open(f.REQUEST).id
            self.settle()
            self.theirs.h2.send_headers(sid, [(b":status", b"200")])
        else:
            sid = self.theirs.h2.get_next_available_stream_id()
            self.theirs.h2.send_headers(sid, HEADERS)
            self.settle()
            self.ours.session.answer(self.ours.session.streams[sid], 200)
        self.settle()
        self.opened.append(sid)

    def act(self, what: str, sid: int, n: int) -> None:
        ours = self.ours.session.streams.get(sid)
        match what:
            case "we send":
                self.ours.send(sid, n)
            case "they send":
                self.theirs.send(sid, n, None)
            case "they send padded":
                self.theirs.send(sid, n % 300, n % 256)
            case "we end" if ours is not None:
                self.ours.session.end(ours)
            case "they end":
                self.theirs.end(sid)
            case "we reset" if ours is not None:
                self.ours.session.reset(ours, ErrorCode.CANCEL)
                self.reset.setdefault(sid, set()).add("we")
            case "they reset":
                if not self.done(sid) and sid not in self.theirs.gone:
                    self.theirs.reset(sid)
                    self.reset.setdefault(sid, set()).add("they")
            case "we consume":
                self.ours.consume()
            case "they consume":
                self.settle()
                self.theirs.consume()
            case "their window":
                self.theirs.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: n})
            case "settle":
                self.settle()

    def done(self, sid: int) -> bool:
        """Closed on both sides as h2 sees it: it refuses to reset such a stream."""
        return sid in self.theirs.ours_closed and self.theirs.heard.get(sid, Heard()).ended


ACTS = ["we send", "they send", "they send padded", "we end", "they end", "we reset", "they reset", "we consume", "they consume"]
ACTS += ["their window", "settle", "settle", "open"]
steps = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 5), st.integers(0, 80_000)), max_size=40)


def agree(pair: Pair) -> None:
    pair.settle()
    ours, theirs = pair.ours, pair.theirs
    for sid in pair.opened:
        us, them = ours.heard.get(sid, Heard()), theirs.heard.get(sid, Heard())
        assert bytes(theirs.sent.get(sid, b"")).startswith(bytes(us.data))
        assert bytes(ours.sent.get(sid, b"")).startswith(bytes(them.data))
        alive = sid in ours.session.streams
        if alive:
            stream = ours.session.streams[sid]
            assert bytes(us.data) == bytes(theirs.sent.get(sid, b""))
            assert bytes(them.data) == bytes(ours.sent.get(sid, b""))
            assert stream.remote_closed == us.ended == (sid in theirs.ours_closed)
            assert stream.local_closed == them.ended
            if not them.ended:
                assert min(stream.send_window, ours.session.send_window) == theirs.h2.remote_flow_control_window(sid)
            if not us.ended:
                assert min(stream.recv_window, ours.session.recv_window) == theirs.h2.local_flow_control_window(sid)
        else:
            assert sid in pair.reset or (us.ended and them.ended)
            resets = pair.reset.get(sid, set())
            assert us.reset is None or "they" in resets
            assert them.reset is None or "we" in resets
            # A reset may cross the other side's reset or last END on the wire; otherwise it is heard.
            assert resets != {"they"} or us.reset is not None or us.ended
            assert resets != {"we"} or them.reset is not None or (them.ended and sid in theirs.ours_closed)
    assert ours.session.send_window == theirs.h2.inbound_flow_control_window
    assert ours.session.recv_window == theirs.h2.outbound_flow_control_window


@pytest.mark.parametrize("ours_is_client", [True, False])
@given(steps=steps, window=st.sampled_from([0, 1, 1_000, 65_535, 200_000]), chunk=st.sampled_from([1, 10, 1_000, 1 << 20]))
@settings(max_examples=60)
def test_any_dialogue(ours_is_client: bool, steps: list[tuple[str, int, int]], window: int, chunk: int) -> None:
    pair = Pair(ours_is_client=ours_is_client, window=window, our_window=100_000, chunk=chunk)
    pair.open()
    for what, which, n in steps:
        if what == "open":
            pair.open()
        else:
            pair.act(what, pair.opened[which % len(pair.opened)], n)
    agree(pair)
    pair.ours.consume()
    pair.theirs.consume()
    agree(pair)


@pytest.mark.parametrize("ours_is_client", [True, False])
def test_bulk_both_ways(ours_is_client: bool) -> None:
    """Many windows' worth: nothing stalls as long as both consume."""
    pair = Pair(ours_is_client=ours_is_client, window=65_535, our_window=100_000, chunk=1 << 20)
    pair.open()
    (sid,) = pair.opened
    for _ in range(100):
        pair.act("we send", sid, 16_384)
        pair.act("they send", sid, 16_384)
        pair.settle()
        pair.ours.consume()
        pair.theirs.consume()
    agree(pair)
    assert len(pair.ours.sent[sid]) == len(pair.theirs.sent[sid]) == 100 * 16_384


def test_a_refused_request() -> None:
    pair = Pair(ours_is_client=False, window=65_535, our_window=100_000, chunk=1 << 20)
    sid = pair.theirs.h2.get_next_available_stream_id()
    pair.theirs.h2.send_headers(sid, HEADERS)
    pair.settle()
    pair.ours.session.answer(pair.ours.session.streams[sid], 401, b"\x10\x01a\x01b")
    pair.settle()
    heard = pair.theirs.heard[sid]
    assert (heard.status, heard.ended, heard.reset) == (401, True, 0)


def test_a_peer_without_a_header_table() -> None:
    """h2 refuses a block that does not acknowledge its smaller table."""
    pair = Pair(ours_is_client=True, window=65_535, our_window=100_000, chunk=1 << 20)
    pair.theirs.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    pair.settle()
    pair.open()
    pair.open()
    agree(pair)


def test_trailers_from_h2() -> None:
    pair = Pair(ours_is_client=True, window=65_535, our_window=100_000, chunk=1 << 20)
    pair.open()
    pair.theirs.h2.send_headers(1, [(b"x-trailer", b"1")], end_stream=True)
    pair.settle()
    assert pair.ours.heard[1].ended


def test_goaway_from_us_ends_h2() -> None:
    pair = Pair(ours_is_client=False, window=65_535, our_window=100_000, chunk=1 << 20)
    pair.open()
    pair.ours.session.goaway(ErrorCode.NO_ERROR, b"bye")
    (event,) = pair.theirs.h2.receive_data(bytes(pair.ours.out))
    assert isinstance(event, h2.events.ConnectionTerminated)
    assert (event.error_code, event.last_stream_id, event.additional_data) == (0, 1, b"bye")
