"""The HBONE session: the part of HTTP/2 (RFC 9113) that CONNECT tunnels need, sans-IO.

Theory of operation. Plaintext received from the peer goes into :meth:`Session.receive`, which returns events
(``events.py``); frames to be sent come out through the ``put`` callable given at construction, in order. DATA is the exception
to both: the payload of a received frame is handed on as views of the caller's buffer as it arrives, never gathered; and the
caller writes DATA frames itself, straight behind their nine-byte header in its own output buffer, and keeps
``Stream.send_window`` and ``Session.send_window`` (hot code in ``ztunnel.dataplane.relay``: one call less and no copy). It must not
write on a stream that it ended, or that was reset by either side.

Credit for received DATA is given back only when the shell says the bytes were written onward (:meth:`Session.consumed`). A slow
application then stalls its own stream. Connection-level credit may be given earlier, within the shell's own budget, so that a
stalled stream does not use up the window its neighbours share. Bytes that the shell throws away count too: whoever
discards them calls :meth:`Session.credit`, or the connection's window leaks.

Any broken rule raises :class:`SessionError` after GOAWAY was put; the session is then over (RFC 9113 §5.4.1 lets an endpoint
treat a stream error so, and a proxy that breaks rules is not to be trusted with its other streams). Bounds are in ``limits.py``.

Whole DATA frames are handled here, other DATA in ``data.py``, header blocks in ``blocks.py``, everything else in
``control.py``: functions that share the underscored fields with this class and nobody else.
"""

from collections.abc import Callable

from ztunnel.hbone import blocks, control, data
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
_HANDLERS = {
    fr.HEADERS: blocks.headers,
    fr.CONTINUATION: blocks.continuation,
    fr.SETTINGS: control.settings,
    fr.WINDOW_UPDATE: control.window_update,
    fr.RST_STREAM: control.rst_stream,
    fr.PING: control.ping,
    fr.GOAWAY: control.goaway,
    fr.PRIORITY: control.priority,
}


class Session:
    """One end of one HBONE connection. ``now`` arguments are seconds of one monotonic clock."""

    __slots__ = (
        "_announced_last",
        "_block",
        "_block_end",
        "_block_frames",
        "_block_stream",
        "_budget",
        "_connection_threshold",
        "_decoder",
        "_initial_recv_window",
        "_initial_send_window",
        "_left",
        "_left_end",
        "_left_stream",
        "_need_preface",
        "_partial",
        "_peer_table",
        "_put",
        "_resets",
        "_skip",
        "_stream_threshold",
        "_table_update",
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
        self._announced_last = lm.MAX_STREAM_ID
        self.ready = False
        self.draining = False
        self.goaway_received = False
        self.peer_frame = lm.DEFAULT_FRAME
        self.peer_max_streams = limits.assumed_peer_streams
        self._initial_send_window = self.send_window = lm.DEFAULT_WINDOW
        # Until the peer has acknowledged our SETTINGS it may use the default window (RFC 9113 §6.9.3).
        self._initial_recv_window = max(limits.stream_window, lm.DEFAULT_WINDOW)
        self.recv_window = max(limits.connection_window, lm.DEFAULT_WINDOW)
        self._unacked = 0
        self._stream_threshold = max(1, limits.stream_window // 2)
        self._connection_threshold = self.recv_window // 2
        self._partial = b""
        self._need_preface = not client
        self._left = 0  # bytes still to come of a DATA frame that arrives in pieces ...
        self._left_stream: Stream | None = None
        self._left_end = False
        self._skip = 0  # ... and of its padding, or of a frame that is ignored
        self._block = bytearray()
        self._block_stream = 0
        self._block_end = False
        self._block_frames = 0
        self._decoder = HeaderDecoder(limits.client_header_list if client else limits.server_header_list)
        self._peer_table = lm.DEFAULT_TABLE
        self._table_update = b""
        self._budget = Budget(lm.CONTROL_BURST, lm.CONTROL_RATE, now)
        self._resets = Budget(lm.RESET_BURST, lm.RESET_RATE, now)

    # --- sending ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Put the preface (client), SETTINGS and the connection window."""
        grow = self.recv_window - lm.DEFAULT_WINDOW
        hello = fr.settings(control.our_settings(self)) + (fr.window_update(0, grow) if grow else b"")
        self._put(fr.PREFACE + hello if self.client else hello)

    @property
    def room(self) -> int:
        """Streams a client may still open now; 0 when the tunnel is full or to be replaced."""
        if self.goaway_received or self.draining or self.next_id > lm.MAX_STREAM_ID:
            return 0
        return max(0, min(self.peer_max_streams, self.limits.assumed_peer_streams) - len(self.streams))

    def open(self, block: bytes) -> Stream:
        """Open a CONNECT stream with an encoded header block. The caller has checked :attr:`room`."""
        stream = Stream(self.next_id, self._initial_send_window, 0)  # nothing may come before the answer
        self.streams[self.next_id] = stream
        self._put_headers(stream, block, end_stream=False)
        self.next_id += 2
        self._budget.earn(lm.EARNED)
        return stream

    def answer(self, stream: Stream, status: int, extra: bytes = b"") -> None:
        """Answer a request; anything but 200 ends the stream on our side and cancels what else the peer may send."""
        if self.streams.get(stream.id) is not stream:
            return  # the peer reset it meanwhile
        stream.answered = True
        self._put_headers(stream, answer_block(status, extra), end_stream=status != 200)
        if status != 200:
            stream.local_closed = True
            if not stream.remote_closed:
                # RFC 9113 §8.1: a complete answer before the request ends, then RST_STREAM NO_ERROR.
                self._put(fr.rst_stream(stream.id, ErrorCode.NO_ERROR))
            del self.streams[stream.id]

    def _put_headers(self, stream: Stream, block: bytes, *, end_stream: bool) -> None:
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        self._put(fr.headers(stream.id, block, end_stream=end_stream, max_frame=self.peer_frame))

    def end(self, stream: Stream) -> None:
        """Put an empty DATA with END_STREAM: we will send no more. Nothing happens on a stream that is gone."""
        if not stream.local_closed and self.streams.get(stream.id) is stream:
            stream.local_closed = True
            self._put(fr.header(0, fr.DATA, fr.END_STREAM, stream.id))
            if stream.remote_closed:
                del self.streams[stream.id]

    def reset(self, stream: Stream, code: int) -> None:
        """End both directions at once. Nothing happens on a stream that is gone."""
        if self.streams.get(stream.id) is stream:
            self._put(fr.rst_stream(stream.id, code))
            del self.streams[stream.id]

    def ping(self, payload: bytes) -> None:
        """Put a PING of 8 bytes."""
        self._put(fr.ping(payload))

    def goaway(self, code: ErrorCode = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Announce that no new stream is taken; open ones go on when ``code`` is NO_ERROR."""
        self.draining = True
        # What was announced once must not grow (RFC 9113 §6.8); streams above it are refused one by one.
        self._announced_last = min(self._announced_last, self.last_peer_id)
        self._put(fr.goaway(self._announced_last, code, debug[:256]))

    def consumed(self, stream: Stream, n: int) -> None:
        """``n`` bytes of DATA were written onward at once: credit for the stream and for the connection."""
        stream.unacked += n  # as _credit_stream and credit, without their calls until a threshold is reached
        self._unacked = unacked = self._unacked + n
        if stream.unacked >= self._stream_threshold:
            self._credit_stream(stream, 0)
        if unacked >= self._connection_threshold:
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
        """Credit for the connection alone, as for bytes thrown away."""
        self._unacked += n
        if self._unacked >= self._connection_threshold:
            self.recv_window += self._unacked
            self._put(fr.window_update(0, self._unacked))
            self._unacked = 0

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, view: memoryview, now: float) -> list[ev.Event]:
        """Take plaintext from the peer; see ``events.py``. Raises SessionError, after which it must not be called again."""
        events: list[ev.Event] = []
        try:
            self._receive(view, now, events.append)
        except SessionError as e:
            self.goaway(e.code, e.detail.encode())
            e.events = events
            raise
        return events

    def _receive(self, view: memoryview, now: float, add: ev.Add) -> None:
        if self._partial:
            view = memoryview(self._partial + view)
            self._partial = b""
        end = len(view)
        if self._need_preface:
            if view[:24] != fr.PREFACE[:end]:
                raise SessionError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface")
            if end < 24:
                self._partial = bytes(view)
                return
            self._need_preface = False
            pos = 24
        else:
            pos = data.rest(self, add, view, 0) if self._left or self._skip else 0
        streams = self.streams
        largest = self.limits.frame
        plain = self.ready and not self._block_stream
        while end - pos >= 9:
            head, flags, sid = _unpack(view, pos)
            length = head >> 8
            if length > largest:
                raise SessionError(ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} bytes, at most {largest} were announced")
            if plain and not head & 255 and not flags & 8:
                # The hot path: DATA without padding.
                stream = streams.get(sid & 0x7FFFFFFF)
                if stream is None or stream.remote_closed:
                    data.stray(self, sid & 0x7FFFFFFF, stream)
                    stream = None
                else:
                    stream.recv_window -= length
                    if stream.recv_window < 0:
                        data.exceeded(self, stream, length)
                self.recv_window -= length
                if self.recv_window < 0:
                    raise SessionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
                pos += 9
                after = pos + length
                if length and stream is not None and after <= end:
                    add((0, stream, view[pos:after]))
                    pos = after
                    if flags & 1:
                        self._remote_end(add, stream)
                else:
                    pos = data.piece(self, add, view, pos, now, stream, length, flags)
                continue
            kind = head & 255
            sid &= 0x7FFFFFFF
            control.admit(self, kind, sid, length)
            handler = _HANDLERS.get(kind)
            if handler is not None:
                after = pos + 9 + length
                if after > end:
                    break
                handler(self, add, flags, sid, view[pos + 9 : after], now)
                pos = after
                plain = self.ready and not self._block_stream
            elif kind == fr.DATA:
                if end - pos < 10:
                    break
                pos = data.padded(self, add, view, pos, now, flags, sid, length)
            else:
                control.ignore(self, kind, length, now)
                pos = data.rest(self, add, view, pos + 9)
        if pos < end:
            self._partial = bytes(view[pos:])

    # --- shared with data.py, blocks.py and control.py ----------------------------------------------------------------

    def _is_idle(self, sid: int) -> bool:
        """Whether ``sid`` was never opened (RFC 9113 §5.1)."""
        return sid >= self.next_id or sid % 2 == 0 if self.client else sid > self.last_peer_id or sid % 2 == 0

    def _remote_end(self, add: ev.Add, stream: Stream) -> None:
        if self.client and not stream.answered:
            raise SessionError(ErrorCode.PROTOCOL_ERROR, f"END_STREAM before the answer on stream {stream.id}")
        stream.remote_closed = True
        add((ev.END, stream, None))
        if stream.local_closed:
            del self.streams[stream.id]

    def _charge(self, now: float, what: str, cost: float = 1.0) -> None:
        if not self._budget.spend(now, cost):
            detail = f"too many frames that carry no data, last {what}"
            raise SessionError(ErrorCode.ENHANCE_YOUR_CALM, detail, CloseReason.TUNNEL_FLOOD)
