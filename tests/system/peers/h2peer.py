"""HBONE by the h2 library: an independent second implementation, client or server, in a test's own thread.

Everything waits by :meth:`H2Peer.until`, which reads the socket, answers what HTTP/2 asks for, and records what was heard.
"""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.system.peers.ready import readable

__all__ = ["H2Peer", "Heard", "S"]

TIMEOUT: Final = 8.0
Headers = list[tuple[bytes, bytes]]
S = h2.settings.SettingCodes
LIKE_ZTUNNEL: Final = {S.INITIAL_WINDOW_SIZE: 1 << 22, S.MAX_FRAME_SIZE: 1 << 20, S.MAX_CONCURRENT_STREAMS: 200}


@dataclass
class Heard:
    """What the other side said on a stream."""

    headers: Headers = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    frames: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    uncredited: int = 0

    def value(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)

    @property
    def status(self) -> int:
        return int(self.value(b":status") or 0)


class H2Peer:
    """One connection. ``credit``: give flow-control credit as data comes; switch it off to be a slow reader.

    ``streams``: announce this as MAX_CONCURRENT_STREAMS but take more: h2 ends a connection where others refuse the stream.
    """

    def __init__(
        self, sock: ssl.SSLSocket, *, client: bool, settings: dict[Any, int] | None = None, window: int = 1 << 24, streams: int = 0
    ) -> None:
        self.sock = sock
        self.client = client
        self.credit = True
        self.heard: dict[int, Heard] = {}
        self.settings: dict[int, int] = {}
        self.connection_window = 65_535
        self.goaway: tuple[int, int, bytes] | None = None
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed = False
        self.error: Exception | None = None
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding=False, validate_outbound_headers=False)
        )
        self.h2.local_settings = h2.settings.Settings(client=client, initial_values=LIKE_ZTUNNEL if settings is None else settings)
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size  # h2 forgets settings given like this
        self.h2.initiate_connection()
        if window > 65_535:
            self.h2.increment_flow_control_window(window - 65_535)
        said = self.h2.data_to_send()
        if streams:
            true = b"\0\3" + self.h2.local_settings.max_concurrent_streams.to_bytes(4, "big")
            assert true in said
            said = said.replace(true, b"\0\3" + streams.to_bytes(4, "big"))
        self.sock.sendall(said)

    # --- saying -------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what h2 has to say."""
        data = self.h2.data_to_send()
        if data:
            try:
                self.sock.sendall(data)
            except (OSError, ValueError) as e:
                self.closed, self.error = True, e

    def request(self, authority: str, *extra: tuple[str, str], method: str = "CONNECT") -> int:
        """Open a stream; its number."""
        sid: int = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":authority", authority)]
        if method != "CONNECT":
            headers += [(":scheme", "https"), (":path", "/")]
        self.h2.send_headers(sid, [*headers, *extra], end_stream=method != "CONNECT")
        self.heard[sid] = Heard()
        self.flush()
        return sid

    def connect(self, authority: str, *extra: tuple[str, str]) -> int:
        """A stream that was answered with 200."""
        sid = self.request(authority, *extra)
        self.until(lambda: self.heard[sid].status or self.heard[sid].reset is not None)
        assert self.heard[sid].status == 200, self.heard[sid]
        return sid

    def answer(self, sid: int, status: int = 200, *extra: tuple[str, str], end: bool | None = None) -> None:
        """Answer a request; errors end the stream unless told otherwise."""
        self.h2.send_headers(sid, [(":status", str(status)), *extra], end_stream=status != 200 if end is None else end)
        self.flush()

    def send(self, sid: int, data: bytes, *, end: bool = False, chunk: int = 1 << 20, seconds: float = TIMEOUT) -> None:
        """All of ``data``, within the windows."""
        view = memoryview(data)
        while view:
            n = min(self.h2.local_flow_control_window(sid), self.h2.max_outbound_frame_size, len(view), chunk)
            if n <= 0:
                self.until(lambda: self.h2.local_flow_control_window(sid) > 0, seconds)
                continue
            self.h2.send_data(sid, bytes(view[:n]))
            view = view[n:]
            self.flush()
            self.pump(0)
        if end:
            self.h2.end_stream(sid)
            self.flush()

    def reset(self, sid: int, code: int = 8) -> None:
        """RST_STREAM."""
        self.h2.reset_stream(sid, code)
        self.flush()

    # --- hearing ------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], seconds: float = TIMEOUT) -> None:
        """Read until it is so. Fails when the connection closes before, or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not within {seconds} s; goaway {self.goaway}, streams {_shown(self.heard)}"
            if not self.pump(left) and not condition():
                assert not self.closed, f"closed before; error {self.error!r}, goaway {self.goaway}, streams {_shown(self.heard)}"

    def until_closed(self, seconds: float = TIMEOUT) -> None:
        """Read until the other side closes."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            left = deadline - time.monotonic()
            assert left > 0, "still open"
            self.pump(left)

    def pump(self, seconds: float) -> bool:
        """Read once, waiting at most ``seconds``; whether something came."""
        if self.closed:
            return False
        if not self.sock.pending() and not readable(self.sock, seconds):
            return False
        try:
            data = self.sock.recv(262_144)
        except (OSError, ValueError) as e:
            self.closed, self.error = True, e
            return False
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            self._hear(event)
        self.flush()
        return True

    def _hear(self, event: Any) -> None:
        e = h2.events
        sid = getattr(event, "stream_id", None)
        if isinstance(event, e.RequestReceived):
            self.heard[sid] = Heard(list(event.headers))
        elif isinstance(event, e.ResponseReceived):
            self.heard[sid].headers = list(event.headers)
        elif isinstance(event, e.DataReceived):
            heard = self.heard[sid]
            heard.data += event.data
            heard.frames.append(len(event.data))
            heard.uncredited += event.flow_controlled_length
            if self.credit:
                self.give_credit(sid)
        elif isinstance(event, e.StreamEnded):
            self.heard[sid].ended = True
        elif isinstance(event, e.StreamReset):
            self.heard[sid].reset = int(event.error_code)
        elif isinstance(event, e.RemoteSettingsChanged):
            self.settings.update({int(k): c.new_value for k, c in event.changed_settings.items()})
        elif isinstance(event, e.WindowUpdated) and not sid:
            self.connection_window += event.delta
        elif isinstance(event, e.ConnectionTerminated):
            self.goaway = (event.last_stream_id, int(event.error_code), event.additional_data or b"")
            if self.h2.state_machine.state is h2.connection.ConnectionState.CLOSED:
                # h2 takes GOAWAY for the end; streams go on after it (RFC 9113 §6.8).
                self.h2.state_machine.state = (
                    h2.connection.ConnectionState.CLIENT_OPEN if self.client else h2.connection.ConnectionState.SERVER_OPEN
                )
        elif isinstance(event, e.PingReceived):
            self.pings.append(event.ping_data)
        elif isinstance(event, e.PingAckReceived):
            self.pongs.append(event.ping_data)

    def give_credit(self, sid: int) -> None:
        """Credit for what was heard on a stream."""
        heard = self.heard[sid]
        n, heard.uncredited = heard.uncredited, 0
        if n:
            try:
                self.h2.acknowledge_received_data(n, sid)
            except h2.exceptions.StreamClosedError:
                pass

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close TCP."""
        self.sock.close()

    def __enter__(self) -> "H2Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shown(heard: dict[int, Heard]) -> dict[int, object]:
    return {sid: (h.headers[:1], len(h.data), h.ended, h.reset) for sid, h in list(heard.items())[:5]}
