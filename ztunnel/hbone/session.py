"""The HBONE session: the part of HTTP/2 (RFC 9113) that CONNECT tunnels need, sans-IO.

Theory of operation. Plaintext received from the peer goes into :meth:`Session.receive`, which returns events
(``events.py``); frames to be sent come out through the ``put`` callable given at construction, in order. DATA is the exception
to both: the payload of a received frame is handed on as views of the caller's buffer as it arrives, never gathered; and the
caller writes DATA frames itself, straight behind their nine-byte header in its own output buffer, and keeps
``Stream.send_window`` and ``Session.send_window`` (hot code in ``ztunnel.dataplane.relay``: one call less and no copy).

Credit for received DATA is given back only when the shell says the bytes were written onward (:meth:`consumed`). A slow
application then stalls its own stream. Connection-level credit may be given earlier, within the shell's own budget, so that a
stalled stream does not use up the window its neighbours share.

Any broken rule raises :class:`SessionError` after GOAWAY was put; the session is then over. Bounds are in ``limits.py``.
"""

from collections.abc import Callable
from typing import Any

from ztunnel.hbone import events as ev
from ztunnel.hbone import frames as fr
from ztunnel.hbone import limits as lm
from ztunnel.hbone.budget import Budget
from ztunnel.hbone.errors import ErrorCode, SessionError
from ztunnel.hbone.hpack import HeaderDecoder, answer_block
from ztunnel.hbone.stream import Stream
from ztunnel.reasons import CloseReason

__all__ = ["Session"]

_unpack = fr.FRAME_HEADER.unpack_from
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME, _MAX_HEADER_LIST = range(1, 7)


class Session:
    """One end of one HBONE connection. ``now`` arguments are seconds of one monotonic clock."""

    __slots__ = (
        "_block",
        "_block_end",
        "_block_frames",
        "_block_stream",
        "_budget",
        "_connection_threshold",
        "_data_end",
        "_data_left",
        "_data_stream",
        "_decoder",
        "_initial_send_window",
        "_need_preface",
        "_partial",
        "_put",
        "_resets",
        "_stream_threshold",
        "_unacked",
        "client",
        "draining",
        "goaway_received",
        "last_peer_id",
        "limits",
        "next_id",
        "peer_frame",
        "peer_max_streams",
        "ready",
        "recv_window",
        "send_window",
        "streams",
    )

    def __init__(self, limits: lm.SessionLimits, *, client: bool, now: float, put: Callable[[bytes], None]) -> None:
        self.limits = limits
        self.client = client
        self._put = put
        self.streams: dict[int, Stream] = {}
        self.next_id = 1
        self.last_peer_id = 0
        self.ready = False
        self.draining = False
        self.goaway_received = False
        self.peer_frame = lm.DEFAULT_FRAME
        self.peer_max_streams = limits.assumed_peer_streams
        self._initial_send_window = lm.DEFAULT_WINDOW
        self.send_window = lm.DEFAULT_WINDOW
        self.recv_window = limits.connection_window
        self._unacked = 0
        self._stream_threshold = limits.stream_window // 2
        self._connection_threshold = limits.connection_window // 2
        self._partial = b""
        self._need_preface = not client
        self._data_left = 0
        self._data_stream: Stream | None = None
        self._data_end = False
        self._block = bytearray()
        self._block_stream = 0
        self._block_end = False
        self._block_frames = 0
        self._decoder = HeaderDecoder(limits.client_header_list if client else limits.server_header_list)
        self._budget = Budget(lm.CONTROL_BURST, lm.CONTROL_RATE, now)
        self._resets = Budget(lm.RESET_BURST, lm.RESET_RATE, now)

    # --- sending ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Put the preface (client), SETTINGS and the connection window."""
        lim = self.limits
        pairs = [(_INITIAL_WINDOW, lim.stream_window), (_MAX_FRAME, lim.frame)]
        if self.client:
            pairs = [(_ENABLE_PUSH, 0), *pairs, (_MAX_HEADER_LIST, lim.client_header_list)]
        else:
            pairs = [(_MAX_STREAMS, lim.max_streams), *pairs, (_MAX_HEADER_LIST, lim.server_header_list)]
        grow = lim.connection_window - lm.DEFAULT_WINDOW
        self._put((fr.PREFACE if self.client else b"") + fr.settings(pairs) + (fr.window_update(0, grow) if grow > 0 else b""))

    @property
    def room(self) -> int:
        """Streams a client may still open now; 0 when the tunnel is to be replaced."""
        if self.goaway_received or self.draining or self.next_id > lm.MAX_STREAM_ID:
            return 0
        return min(self.peer_max_streams, self.limits.assumed_peer_streams) - len(self.streams)

    def open(self, block: bytes) -> Stream:
        """Open a CONNECT stream with an encoded header block. The caller has checked :attr:`room`."""
        stream = Stream(self.next_id, self._initial_send_window, self.limits.stream_window)
        self.streams[self.next_id] = stream
        self._put(fr.headers(self.next_id, block, max_frame=self.peer_frame))
        self.next_id += 2
        return stream

    def answer(self, stream: Stream, status: int, extra: bytes = b"") -> None:
        """Answer a request; anything but 200 ends the stream on our side and cancels what else the peer may send."""
        stream.answered = True
        self._put(fr.headers(stream.id, answer_block(status, extra), end_stream=status != 200, max_frame=self.peer_frame))
        if status != 200:
            stream.local_closed = True
            if not stream.remote_closed:
                # RFC 9113 §8.1: a complete answer before the request ends, then RST_STREAM NO_ERROR.
                self._put(fr.rst_stream(stream.id, ErrorCode.NO_ERROR))
            self._drop(stream)

    def end(self, stream: Stream) -> None:
        """Put an empty DATA with END_STREAM: we will send no more."""
        if not stream.local_closed:
            stream.local_closed = True
            self._put(fr.header(0, fr.DATA, fr.END_STREAM, stream.id))
            if stream.remote_closed:
                self._drop(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """End both directions at once."""
        if self.streams.get(stream.id) is stream:
            self._put(fr.rst_stream(stream.id, code))
            self._drop(stream)

    def ping(self, payload: bytes) -> None:
        """Put a PING of 8 bytes."""
        self._put(fr.ping(payload))

    def goaway(self, code: ErrorCode = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Announce that no new stream is taken; open ones go on when ``code`` is NO_ERROR."""
        self.draining = True
        self._put(fr.goaway(self.last_peer_id, code, debug[:256]))

    def consumed(self, stream: Stream, n: int) -> None:
        """``n`` bytes of DATA were written onward at once: credit for the stream and for the connection."""
        self._credit_stream(stream, n)
        self._unacked += n
        if self._unacked >= self._connection_threshold:
            self.credit(0)

    def consumed_late(self, stream: Stream, n: int) -> None:
        """``n`` bytes left the shell's buffer: the connection gets credit only for those held back (``stream.deferred``)."""
        self._credit_stream(stream, n)
        due = min(n, stream.deferred)
        stream.deferred -= due
        self.credit(due)

    def _credit_stream(self, stream: Stream, n: int) -> None:
        stream.unacked += n
        if stream.unacked >= self._stream_threshold and not stream.remote_closed and stream.id in self.streams:
            stream.recv_window += stream.unacked
            self._put(fr.window_update(stream.id, stream.unacked))
            stream.unacked = 0

    def credit(self, n: int) -> None:
        """Credit for the connection alone."""
        self._unacked += n
        if self._unacked >= self._connection_threshold:
            self.recv_window += self._unacked
            self._put(fr.window_update(0, self._unacked))
            self._unacked = 0

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, view: memoryview, now: float) -> list[ev.Event]:
        """Take plaintext from the peer; see ``events.py``. Raises SessionError."""
        try:
            return self._receive(view, now)
        except SessionError as e:
            self.goaway(e.code, e.detail.encode())
            raise

    def _receive(self, view: memoryview, now: float) -> list[ev.Event]:
        events: list[ev.Event] = []
        add = events.append
        if self._partial:
            view = memoryview(self._partial + bytes(view))
            self._partial = b""
        pos = 0
        end = len(view)
        if self._need_preface:
            if bytes(view[:24]) != fr.PREFACE[: min(end, 24)]:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface")
            if end < 24:
                self._partial = bytes(view)
                return events
            self._need_preface = False
            pos = 24
        streams = self.streams
        while True:
            if self._data_left:
                n = end - pos
                if n == 0:
                    break
                if n > self._data_left:
                    n = self._data_left
                self._data_left -= n
                self._data(add, view[pos : pos + n])
                pos += n
                continue
            if end - pos < 9:
                break
            head, flags, sid = _unpack(view, pos)
            length = head >> 8
            kind = head & 255
            sid &= 0x7FFFFFFF
            if kind == 0 and self.ready and not flags & 8 and not self._block_stream:
                # The hot path: DATA without padding.
                if length > self.limits.frame:
                    raise SessionError(ErrorCode.FRAME_SIZE_ERROR, f"DATA of {length} bytes")
                stream = streams.get(sid)
                if stream is None or stream.remote_closed:
                    self._stray_data(sid, stream, length)
                    stream = None
                else:
                    stream.recv_window -= length
                    if stream.recv_window < 0:
                        raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"stream {sid} exceeds its window")
                self.recv_window -= length
                if self.recv_window < 0:
                    raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
                pos += 9
                if length and stream is not None and end - pos >= length:
                    add((0, stream, view[pos : pos + length]))
                    pos += length
                    if flags & 1:
                        self._remote_end(add, stream)
                elif length:
                    self._data_left = length
                    self._data_stream = stream
                    self._data_end = bool(flags & 1)
                elif flags & 1:
                    if stream is not None:
                        self._remote_end(add, stream)
                else:
                    self._charge(now, "empty DATA")
                continue
            limit = self._frame_limit(kind, flags)
            if length > limit:
                raise SessionError(ErrorCode.FRAME_SIZE_ERROR, f"frame type {kind} of {length} bytes, at most {limit} here")
            if end - pos < 9 + length:
                break
            self._frame(add, kind, flags, sid, view[pos + 9 : pos + 9 + length], now)
            pos += 9 + length
        if pos < end:
            self._partial = bytes(view[pos:])
        return events

    def _frame_limit(self, kind: int, flags: int) -> int:
        if kind == fr.DATA:
            return self.limits.frame
        if kind in (fr.HEADERS, fr.CONTINUATION):
            return lm.MAX_HEADER_BLOCK
        return lm.MAX_SMALL_FRAME

    def _data(self, add: Callable[[ev.Event], None], chunk: memoryview) -> None:
        """A part of a DATA frame that arrives in pieces."""
        stream = self._data_stream
        if stream is None or self.streams.get(stream.id) is not stream:
            self.credit(len(chunk))
            return
        add((ev.DATA, stream, chunk))
        if not self._data_left and self._data_end:
            self._remote_end(add, stream)

    def _stray_data(self, sid: int, stream: Stream | None, length: int) -> None:
        """DATA for a stream that is not open for it: an error unless it was reset or refused by us a moment ago."""
        if stream is not None:
            raise SessionError(ErrorCode.STREAM_CLOSED, f"DATA after END_STREAM on stream {sid}")
        if sid == 0 or self._is_idle(sid):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {sid}")

    def _is_idle(self, sid: int) -> bool:
        """Whether ``sid`` was never opened (RFC 9113 §5.1)."""
        if self.client:
            return sid >= self.next_id or sid % 2 == 0
        return sid > self.last_peer_id or sid % 2 == 0

    def _remote_end(self, add: Callable[[ev.Event], None], stream: Stream) -> None:
        stream.remote_closed = True
        add((ev.END, stream, None))
        if stream.local_closed:
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)

    def _charge(self, now: float, what: str, cost: float = 1.0) -> None:
        if not self._budget.spend(now, cost):
            raise SessionError(
                ErrorCode.ENHANCE_YOUR_CALM, f"too many frames that carry no data, last {what}", CloseReason.TUNNEL_FLOOD
            )

    def _frame(self, add: Callable[[ev.Event], None], kind: int, flags: int, sid: int, payload: memoryview, now: float) -> None:
        """Every frame but the hot DATA; whole, and no longer than its limit."""
        if self._block_stream and (kind != fr.CONTINUATION or sid != self._block_stream):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted by another frame")
        if not self.ready and kind != fr.SETTINGS:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        match kind:
            case fr.DATA:
                self._padded_data(add, flags, sid, payload, now)
            case fr.HEADERS:
                self._headers(add, flags, sid, payload, now)
            case fr.CONTINUATION:
                self._continuation(add, flags, sid, payload, now)
            case fr.SETTINGS:
                self._settings(add, flags, sid, payload, now)
            case fr.WINDOW_UPDATE:
                self._window_update(add, sid, payload)
            case fr.RST_STREAM:
                self._rst_stream(add, sid, payload, now)
            case fr.PING:
                self._ping(add, flags, sid, payload, now)
            case fr.GOAWAY:
                self._goaway(add, sid, payload)
            case fr.PUSH_PROMISE:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we did not enable")
            case fr.PRIORITY:
                if sid == 0:
                    raise SessionError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
                if len(payload) != 5:
                    raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
                self._charge(now, "PRIORITY")
            case _:
                self._charge(now, f"type {kind}")  # unknown types are ignored (RFC 9113 §4.1), not for ever

    def _padded_data(self, add: Callable[[ev.Event], None], flags: int, sid: int, payload: memoryview, now: float) -> None:
        length = len(payload)
        if not length or payload[0] >= length:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
        self.recv_window -= length
        if self.recv_window < 0:
            raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
        stream = self.streams.get(sid)
        if stream is None or stream.remote_closed:
            self._stray_data(sid, stream, length)
            self.credit(length)
            return
        stream.recv_window -= length
        if stream.recv_window < 0:
            raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"stream {sid} exceeds its window")
        body = payload[1 : length - payload[0]]
        self.consumed(stream, length - len(body))
        if len(body):
            add((ev.DATA, stream, body))
        elif not flags & fr.END_STREAM:
            self._charge(now, "empty DATA")
        if flags & fr.END_STREAM:
            self._remote_end(add, stream)

    def _headers(self, add: Callable[[ev.Event], None], flags: int, sid: int, payload: memoryview, now: float) -> None:
        if sid == 0:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        start, end = 0, len(payload)
        if flags & fr.PADDED:
            if not end:
                raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its padding length")
            start, end = 1, end - payload[0]
        if flags & fr.PRIORITY_FLAG:
            start += 5
        if start > end:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
        self._block_stream = sid
        self._block_end = bool(flags & fr.END_STREAM)
        self._block = bytearray(payload[start:end])
        self._block_frames = 0
        if flags & fr.END_HEADERS:
            self._block_done(add, now)

    def _continuation(self, add: Callable[[ev.Event], None], flags: int, sid: int, payload: memoryview, now: float) -> None:
        if not self._block_stream:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block_frames += 1
        self._block += payload
        if self._block_frames > lm.MAX_CONTINUATIONS or len(self._block) > lm.MAX_HEADER_BLOCK:
            raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, "header block too long", CloseReason.TUNNEL_FLOOD)
        if flags & fr.END_HEADERS:
            self._block_done(add, now)

    def _block_done(self, add: Callable[[ev.Event], None], now: float) -> None:
        sid, block, ended = self._block_stream, bytes(self._block), self._block_end
        self._block_stream = 0
        self._block = bytearray()
        headers = self._decoder.decode(block)
        if self.client:
            self._answer_headers(add, sid, headers, ended, now)
        else:
            self._request_headers(add, sid, headers, ended, now)

    def _request_headers(
        self, add: Callable[[ev.Event], None], sid: int, headers: list[tuple[bytes, bytes]], ended: bool, now: float
    ) -> None:
        stream = self.streams.get(sid)
        if stream is not None:  # trailers
            if not ended:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, f"second HEADERS on stream {sid} without END_STREAM")
            if stream.remote_closed:
                raise SessionError(ErrorCode.STREAM_CLOSED, f"HEADERS after END_STREAM on stream {sid}")
            self._remote_end(add, stream)
            return
        if sid % 2 == 0:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"client opened even stream {sid}")
        if sid <= self.last_peer_id:
            raise SessionError(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {sid}")
        self.last_peer_id = sid
        if self.draining or len(self.streams) >= self.limits.max_streams:
            self._charge(now, "HEADERS above the stream limit")
            self._put(fr.rst_stream(sid, ErrorCode.REFUSED_STREAM))
            return
        stream = Stream(sid, self._initial_send_window, self.limits.stream_window)
        stream.remote_closed = ended
        self.streams[sid] = stream
        add((ev.REQUEST, stream, headers))
        if ended:
            add((ev.END, stream, None))

    def _answer_headers(
        self, add: Callable[[ev.Event], None], sid: int, headers: list[tuple[bytes, bytes]], ended: bool, now: float
    ) -> None:
        if self._is_idle(sid):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on idle stream {sid}")
        stream = self.streams.get(sid)
        if stream is None:
            return  # reset by us a moment ago
        if stream.remote_closed:
            raise SessionError(ErrorCode.STREAM_CLOSED, f"HEADERS after END_STREAM on stream {sid}")
        if stream.answered:
            if not ended:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, f"second HEADERS on stream {sid} without END_STREAM")
        else:
            status = _status(headers)
            if status == 0 or (status < 200 and ended):
                raise SessionError(ErrorCode.PROTOCOL_ERROR, f"no valid :status on stream {sid}")
            if status < 200:
                self._charge(now, "informational answer")
                return
            stream.answered = True
            add((ev.ANSWER, stream, (status, headers)))
        if ended:
            self._remote_end(add, stream)

    def _settings(self, add: Callable[[ev.Event], None], flags: int, sid: int, payload: memoryview, now: float) -> None:
        if sid:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        self._charge(now, "SETTINGS")
        if flags & fr.ACK:
            if len(payload):
                raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            return
        if len(payload) % 6:
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not a multiple of 6 bytes")
        for i in range(0, len(payload), 6):
            self._setting(add, int.from_bytes(payload[i : i + 2], "big"), int.from_bytes(payload[i + 2 : i + 6], "big"))
        self._put(fr.SETTINGS_ACK)
        if not self.ready:
            self.ready = True
            add((ev.READY, None, None))

    def _setting(self, add: Callable[[ev.Event], None], key: int, value: int) -> None:
        if key == _INITIAL_WINDOW:
            if value > lm.MAX_WINDOW:
                raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "initial window above 2^31-1")
            change = value - self._initial_send_window
            self._initial_send_window = value
            for stream in self.streams.values():
                stream.send_window += change
                if stream.send_window > lm.MAX_WINDOW:
                    raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"window of stream {stream.id} above 2^31-1")
            if change > 0:
                add((ev.WINDOWS, None, None))
        elif key == _MAX_FRAME:
            if not lm.DEFAULT_FRAME <= value < 2**24:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, f"maximum frame size of {value}")
            self.peer_frame = value
        elif key == _MAX_STREAMS:
            self.peer_max_streams = value
        elif key == _ENABLE_PUSH and (value > 1 or (self.client and value)):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")

    def _window_update(self, add: Callable[[ev.Event], None], sid: int, payload: memoryview) -> None:
        if len(payload) != 4:
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes")
        increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if increment == 0:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if sid == 0:
            grown = self.send_window <= 0
            self.send_window += increment
            if self.send_window > lm.MAX_WINDOW:
                raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window above 2^31-1")
            if grown:
                add((ev.WINDOWS, None, None))
            return
        stream = self.streams.get(sid)
        if stream is None:
            if self._is_idle(sid):
                raise SessionError(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on idle stream {sid}")
            return
        grown = stream.send_window <= 0
        stream.send_window += increment
        if stream.send_window > lm.MAX_WINDOW:
            raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, f"window of stream {sid} above 2^31-1")
        if grown:
            add((ev.WINDOW, stream, None))

    def _rst_stream(self, add: Callable[[ev.Event], None], sid: int, payload: memoryview, now: float) -> None:
        if len(payload) != 4:
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes")
        if sid == 0 or self._is_idle(sid):
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on idle stream {sid}")
        stream = self.streams.get(sid)
        if stream is None:
            self._charge(now, "RST_STREAM on a closed stream")
            return
        if not self.client and not stream.answered and not self._resets.spend(now):
            raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, "too many streams reset before their answer", CloseReason.TUNNEL_FLOOD)
        self._drop(stream)
        add((ev.RESET, stream, int.from_bytes(payload, "big")))

    def _ping(self, add: Callable[[ev.Event], None], flags: int, sid: int, payload: memoryview, now: float) -> None:
        if sid:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 bytes")
        self._charge(now, "PING")
        if flags & fr.ACK:
            add((ev.PONG, None, bytes(payload)))
        else:
            self._put(fr.ping(bytes(payload), ack=True))

    def _goaway(self, add: Callable[[ev.Event], None], sid: int, payload: memoryview) -> None:
        if sid:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise SessionError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
        self.goaway_received = True
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        add((ev.GOAWAY, None, (last, int.from_bytes(payload[4:8], "big"))))
        if self.client:
            for stream in [s for s in self.streams.values() if s.id > last]:
                self._drop(stream)
                add((ev.RESET, stream, int(ErrorCode.REFUSED_STREAM)))


def _status(headers: list[tuple[bytes, bytes]]) -> int:
    """The :status of an answer, 100..599; 0 when it is absent, repeated or no number."""
    found: Any = [v for n, v in headers if n == b":status"]
    if len(found) != 1 or len(found[0]) != 3 or not found[0].isdigit():
        return 0
    value = int(found[0])
    return value if 100 <= value < 600 else 0
