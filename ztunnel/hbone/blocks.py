"""Header blocks of a :class:`~ztunnel.hbone.session.Session`: HEADERS and CONTINUATION become requests, answers and trailers.

Trailers mean no more than END_STREAM here: RFC 9113 §8.5 forbids them on a CONNECT stream, proxies that treat tunnels as
ordinary responses send them all the same. What a request says is judged in ``request.py``, so that a wrong one gets an answer.
"""

from typing import TYPE_CHECKING

from ztunnel.hbone import events as ev
from ztunnel.hbone import frames as fr
from ztunnel.hbone import limits as lm
from ztunnel.hbone.errors import ErrorCode, SessionError
from ztunnel.hbone.stream import Stream
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.hbone.session import Session

__all__ = ["Headers", "continuation", "headers"]

Headers = list[tuple[bytes, bytes]]


def headers(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """HEADERS: begins a block, and mostly ends it."""
    start, end = 0, len(payload)
    if flags & fr.PADDED:
        if not end:
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its padding length")
        start, end = 1, end - payload[0]
    if flags & fr.PRIORITY_FLAG:
        start += 5
    if start > end:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    ended = bool(flags & fr.END_STREAM)
    if flags & fr.END_HEADERS:
        _done(session, add, sid, bytes(payload[start:end]), ended, now)
        return
    session._block_stream = sid
    session._block_end = ended
    session._block = bytearray(payload[start:end])
    session._block_frames = 0


def continuation(session: "Session", add: ev.Add, flags: int, sid: int, payload: memoryview, now: float) -> None:
    """CONTINUATION of the open block."""
    if not session._block_stream:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
    session._block_frames += 1
    session._block += payload
    if session._block_frames > lm.MAX_CONTINUATIONS or len(session._block) > lm.MAX_HEADER_BLOCK:
        raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, "header block too long", CloseReason.TUNNEL_FLOOD)
    if flags & fr.END_HEADERS:
        block, session._block = bytes(session._block), bytearray()
        session._block_stream = 0
        _done(session, add, sid, block, session._block_end, now)


def _done(session: "Session", add: ev.Add, sid: int, block: bytes, ended: bool, now: float) -> None:
    if len(block) > lm.FREE_HEADER_BLOCK:
        session._charge(now, "long header block", len(block) / 1024)
    fields = session._decoder.decode(block)  # always, as it is state shared with the peer
    stream = session.streams.get(sid)
    if session.client:
        _answer(session, add, sid, stream, fields, ended, now)
    elif stream is not None:
        _trailers(session, add, stream, fields, ended)
    else:
        _request(session, add, sid, fields, ended, now)


def _request(session: "Session", add: ev.Add, sid: int, fields: Headers, ended: bool, now: float) -> None:
    if sid % 2 == 0:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"client opened even stream {sid}")
    if sid <= session.last_peer_id:
        _late(session, sid, fields, ended, now)
        return
    session.last_peer_id = sid
    if session.draining or len(session.streams) >= session.limits.max_streams:
        session._charge(now, "HEADERS above the stream limit")
        session._put(fr.rst_stream(sid, ErrorCode.REFUSED_STREAM))
        return
    session._budget.earn(lm.EARNED)
    stream = session.streams[sid] = Stream(sid, session._initial_send_window, session._initial_recv_window)
    stream.remote_closed = ended
    add((ev.REQUEST, stream, fields))
    if ended:
        add((ev.END, stream, None))


def _answer(session: "Session", add: ev.Add, sid: int, stream: Stream | None, fields: Headers, ended: bool, now: float) -> None:
    if stream is None:
        if session._is_idle(sid):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on idle stream {sid}")
        session._charge(now, "HEADERS on a closed stream")  # reset by us a moment ago
        return
    if stream.answered:
        _trailers(session, add, stream, fields, ended)
        return
    status = _status(fields)
    if not 200 <= status < 600:
        if not 100 <= status < 200 or status == 101 or ended:  # RFC 9113 §8.6: there is no 101 in HTTP/2
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"no valid :status on stream {sid}")
        session._charge(now, "informational answer")
        return
    stream.answered = True
    stream.recv_window += session._initial_recv_window
    add((ev.ANSWER, stream, (status, fields)))
    if ended:
        session._remote_end(add, stream)


def _trailers(session: "Session", add: ev.Add, stream: Stream, fields: Headers, ended: bool) -> None:
    if stream.remote_closed:
        raise SessionError(ErrorCode.STREAM_CLOSED, f"HEADERS after END_STREAM on stream {stream.id}")
    if not ended:
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"second HEADERS on stream {stream.id} without END_STREAM")
    if _has_pseudo(fields):
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"pseudo headers in the trailers of stream {stream.id}")
    session._remote_end(add, stream)


def _late(session: "Session", sid: int, fields: Headers, ended: bool, now: float) -> None:
    """HEADERS on a stream that is gone: the trailers of one we reset a moment ago, or its number is used again."""
    if not ended or _has_pseudo(fields):
        raise SessionError(ErrorCode.PROTOCOL_ERROR, f"stream {sid} is opened again")
    session._charge(now, "trailers on a closed stream")


def _has_pseudo(fields: Headers) -> bool:
    return any(name.startswith(b":") for name, _ in fields)


def _status(fields: Headers) -> int:
    """The :status of an answer; 0 when it is absent, repeated or not of three digits."""
    found = [value for name, value in fields if name == b":status"]
    if len(found) != 1 or len(found[0]) != 3 or not found[0].isdigit():
        return 0
    return int(found[0])
