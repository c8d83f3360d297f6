"""DATA off the hot path of :class:`~ztunnel.hbone.session.Session`: in pieces, padded, empty, or on a stream that is gone.

A payload is never gathered: what is still to come of a frame is ``_left`` bytes for ``_left_stream``, then ``_skip`` bytes that
mean nothing. So a peer that sends a large frame byte by byte costs no memory and no repeated copying.
"""

from typing import TYPE_CHECKING

from ztunnel.hbone import events as ev
from ztunnel.hbone import frames as fr
from ztunnel.hbone.errors import ErrorCode, SessionError
from ztunnel.hbone.stream import Stream

if TYPE_CHECKING:
    from ztunnel.hbone.session import Session

__all__ = ["exceeded", "padded", "piece", "rest", "stray"]


def piece(
    session: "Session", add: ev.Add, view: memoryview, pos: int, now: float, stream: Stream | None, length: int, flags: int
) -> int:
    """A payload of ``length`` bytes from ``pos`` on that is empty, incomplete or unwanted; returns where ``view`` goes on."""
    session._left = length
    session._left_stream = stream
    session._left_end = bool(flags & fr.END_STREAM)
    if not length:
        if stream is None or not session._left_end:
            session._charge(now, "empty DATA")
        else:
            session._remote_end(add, stream)
    return rest(session, add, view, pos)


def rest(session: "Session", add: ev.Add, view: memoryview, pos: int) -> int:
    """More of the payload begun earlier; returns where ``view`` goes on, its end while the payload is not complete."""
    n = min(session._left, len(view) - pos)
    if n:
        session._left -= n
        stream = session._left_stream
        if stream is None or session.streams.get(stream.id) is not stream:
            session.credit(n)
        else:
            add((ev.DATA, stream, view[pos : pos + n]))
            if session._left_end and not session._left:
                session._remote_end(add, stream)
        pos += n
    if session._skip and not session._left:
        n = min(session._skip, len(view) - pos)
        session._skip -= n
        pos += n
    return pos


def padded(session: "Session", add: ev.Add, view: memoryview, pos: int, now: float, flags: int, sid: int, length: int) -> int:
    """DATA with padding, whose header and padding length are at ``pos``; returns where ``view`` goes on."""
    padding = view[pos + 9]
    if padding >= length:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    stream = session.streams.get(sid)
    if stream is None or stream.remote_closed:
        stray(session, sid, stream)
        stream = None
    else:
        stream.recv_window -= length
        if stream.recv_window < 0:
            exceeded(session, stream, length)
    session.recv_window -= length
    if session.recv_window < 0:
        raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
    if stream is None:
        session.credit(padding + 1)
    else:
        session.consumed(stream, padding + 1)
    session._skip = padding
    return piece(session, add, view, pos + 10, now, stream, length - padding - 1, flags)


def stray(session: "Session", sid: int, stream: Stream | None) -> None:
    """DATA for a stream that is not open for it: an error unless it was reset or refused by us a moment ago."""
    if stream is not None:
        raise SessionError(ErrorCode.STREAM_CLOSED, f"DATA after END_STREAM on stream {sid}")
    if session._is_idle(sid):  # stream 0 too
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {sid}")


def exceeded(session: "Session", stream: Stream, length: int) -> None:
    """DATA of ``length`` bytes left the stream's window below zero."""
    if not length:
        return  # a window that SETTINGS made negative forbids bytes, not END_STREAM
    if session.client and not stream.answered:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"DATA before the answer on stream {stream.id}")
    raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"stream {stream.id} exceeds its window")
