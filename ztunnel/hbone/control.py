"""Frames that carry neither bytes nor headers: SETTINGS, WINDOW_UPDATE, RST_STREAM, PING, GOAWAY, PRIORITY, and unknown ones.

Functions over a :class:`~ztunnel.hbone.session.Session`, called by its receive loop with whole frames that :func:`admit` let in.
"""

import struct
from typing import TYPE_CHECKING, Final

from ztunnel.hbone import events as ev
from ztunnel.hbone import frames as fr
from ztunnel.hbone import limits as lm
from ztunnel.hbone.errors import ErrorCode, SessionError
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.hbone.session import Session

__all__ = ["admit", "goaway", "ignore", "our_settings", "ping", "priority", "rst_stream", "settings", "window_update"]

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

_SETTING = struct.Struct(">HI")
_FIXED = {fr.PRIORITY: 5, fr.RST_STREAM: 4, fr.PING: 8, fr.WINDOW_UPDATE: 4}
_ON_CONNECTION = frozenset((fr.SETTINGS, fr.PING, fr.GOAWAY))
_ON_STREAM = frozenset((fr.DATA, fr.HEADERS, fr.CONTINUATION, fr.RST_STREAM, fr.PRIORITY, fr.PUSH_PROMISE))


def our_settings(session: "Session") -> list[tuple[int, int]]:
    """What we announce, in the order ztunnel does."""
    limits = session.limits
    both = [(INITIAL_WINDOW_SIZE, limits.stream_window), (MAX_FRAME_SIZE, limits.frame)]
    if session.client:
        return [(ENABLE_PUSH, 0), *both, (MAX_HEADER_LIST_SIZE, limits.client_header_list)]
    return [(MAX_CONCURRENT_STREAMS, limits.max_streams), *both, (MAX_HEADER_LIST_SIZE, limits.server_header_list)]


def admit(session: "Session", kind: int, sid: int, length: int) -> None:
    """Judge a frame by its header alone, so that nothing is kept of a frame that will be refused. Raises SessionError."""
    if session._block_stream and (kind != fr.CONTINUATION or sid != session._block_stream):
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted by another frame")
    if not session.ready and kind != fr.SETTINGS:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
    if sid and kind in _ON_CONNECTION:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"frame type {kind} on stream {sid}, belongs on 0")
    if not sid and kind in _ON_STREAM:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"frame type {kind} on stream 0")
    fixed = _FIXED.get(kind, length)
    if length != fixed:
        raise SessionError(ErrorCode.FRAME_SIZE_ERROR, f"frame type {kind} of {length} bytes instead of {fixed}")
    if kind == fr.DATA:
        if not length:  # the other kind of DATA, without padding, does not come here
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "padded DATA without its padding length")
    elif kind in (fr.HEADERS, fr.CONTINUATION):
        if length > lm.MAX_HEADER_BLOCK:
            raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, "header block too long", CloseReason.TUNNEL_FLOOD)
    elif kind in (fr.SETTINGS, fr.GOAWAY):
        if length > lm.MAX_SMALL_FRAME:
            raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, f"frame type {kind} of {length} bytes", CloseReason.TUNNEL_FLOOD)
    elif kind == fr.PUSH_PROMISE:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we did not enable")


def ignore(session: "Session", kind: int, length: int, now: float) -> None:
    """A frame of unknown type: ignored (RFC 9113 §5.5), not for ever."""
    session._charge(now, f"type {kind}", 1 + length / lm.MAX_SMALL_FRAME)
    session._skip = length


def settings(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """SETTINGS, or the peer's word that ours are in force."""
    session._charge(now, "SETTINGS", 1 + len(payload) / 100)  # an honest one has at most 8 pairs of 6 bytes
    if flags & fr.ACK:
        if len(payload):
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
        if not session.ready:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "the first frame is a SETTINGS ACK")
        _acknowledged(session)
        return
    if len(payload) % 6:
        raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not a multiple of 6 bytes")
    window = session._initial_send_window
    for key, value in _SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE:
            if value > lm.MAX_WINDOW:
                raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "initial window above 2^31-1")
            window = value
        elif key == MAX_FRAME_SIZE:
            if not lm.DEFAULT_FRAME <= value <= lm.MAX_FRAME:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, f"maximum frame size of {value}")
            session.peer_frame = value
        elif key == MAX_CONCURRENT_STREAMS:
            session.peer_max_streams = value
        elif key == HEADER_TABLE_SIZE:
            _header_table(session, value)
        elif key == ENABLE_PUSH and value > (0 if session.client else 1):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
    _initial_window(session, add, window)
    session._put(fr.SETTINGS_ACK)
    if not session.ready:
        session.ready = True
        add((ev.READY, None, None))


def _acknowledged(session: "Session") -> None:
    """From here on the peer keeps to our stream window, if that is smaller than the default it began with."""
    change = session.limits.stream_window - session._initial_recv_window
    if change:
        session._initial_recv_window += change
        for stream in session.streams.values():
            if stream.answered or not session.client:
                stream.recv_window += change


def _header_table(session: "Session", size: int) -> None:
    """RFC 7541 §4.2: once the peer allows less than our table has, our next block says so. We never use it: it becomes 0."""
    if size < session._peer_table:
        session._peer_table = 0
        session._table_update = b"\x20"


def _initial_window(session: "Session", add: ev.Add, window: int) -> None:
    change = window - session._initial_send_window
    if not change:
        return
    session._initial_send_window = window
    for stream in session.streams.values():
        stream.send_window += change
        if stream.send_window > lm.MAX_WINDOW:
            raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"window of stream {stream.id} above 2^31-1")
    if change > 0:
        add((ev.WINDOWS, None, None))


def window_update(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """WINDOW_UPDATE of a stream or of the connection."""
    increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
    if increment == 0:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
    if sid == 0:
        before = session.send_window
        session.send_window = before + increment
        if session.send_window > lm.MAX_WINDOW:
            raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window above 2^31-1")
        if before <= 0:
            add((ev.WINDOWS, None, None))
        return
    stream = session.streams.get(sid)
    if stream is None:
        if session._is_idle(sid):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on idle stream {sid}")
        session._charge(now, "WINDOW_UPDATE on a closed stream", 0.1)
        return
    before = stream.send_window
    stream.send_window = before + increment
    if stream.send_window > lm.MAX_WINDOW:
        raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"window of stream {sid} above 2^31-1")
    if before <= 0 < stream.send_window:
        add((ev.WINDOW, stream, None))


def rst_stream(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """RST_STREAM."""
    stream = session.streams.get(sid)
    if stream is None:
        if session._is_idle(sid):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on idle stream {sid}")
        session._charge(now, "RST_STREAM on a closed stream")
        return
    if not session.client and not stream.answered and not session._resets.spend(now):
        raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, "too many streams reset before their answer", CloseReason.TUNNEL_FLOOD)
    del session.streams[sid]
    add((ev.RESET, stream, int.from_bytes(payload, "big")))


def ping(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """PING, answered at once, or the answer to ours."""
    session._charge(now, "PING")
    if flags & fr.ACK:
        add((ev.PONG, None, bytes(payload)))
    else:
        session._put(fr.ping(bytes(payload), ack=True))


def goaway(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """GOAWAY: streams of ours that the peer will not look at end with REFUSED_STREAM, and may be tried elsewhere."""
    session._charge(now, "GOAWAY")
    if len(payload) < 8:
        raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
    session.goaway_received = True
    last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
    add((ev.GOAWAY, None, (last, int.from_bytes(payload[4:8], "big"))))
    if session.client:
        for stream in [s for s in session.streams.values() if s.id > last]:
            del session.streams[stream.id]
            add((ev.RESET, stream, int(ErrorCode.REFUSED_STREAM)))


def priority(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """PRIORITY, which means nothing any more (RFC 9113 §5.3.2)."""
    session._charge(now, "PRIORITY")
