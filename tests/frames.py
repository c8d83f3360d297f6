"""HTTP/2 frames for tests, right and wrong: every field can be set to anything, nothing is checked."""

from ztunnel.hbone import frames as fr
from ztunnel.hbone.hpack import answer_block, field, request_prefix

__all__ = [
    "ANSWER",
    "CLIENT_HELLO",
    "REQUEST",
    "SERVER_HELLO",
    "continuation",
    "data",
    "frame",
    "goaway",
    "headers",
    "ping",
    "priority",
    "rst",
    "settings",
    "window",
]


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """Any frame; ``length``: what the header claims, if not the truth."""
    claimed = len(payload) if length is None else length
    return claimed.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def data(stream: int, payload: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    """DATA, padded with ``pad`` bytes if given."""
    if pad is not None:
        return frame(fr.DATA, bytes((pad,)) + payload + bytes(pad), flags=fr.PADDED | end, stream=stream)
    return frame(fr.DATA, payload, flags=int(end), stream=stream)


def headers(stream: int, block: bytes, *, end: bool = False, flags: int = fr.END_HEADERS) -> bytes:
    """HEADERS with an encoded block."""
    return frame(fr.HEADERS, block, flags=flags | end, stream=stream)


def continuation(stream: int, block: bytes, *, last: bool = False) -> bytes:
    """CONTINUATION."""
    return frame(fr.CONTINUATION, block, flags=fr.END_HEADERS if last else 0, stream=stream)


def settings(*pairs: tuple[int, int], ack: bool = False, stream: int = 0) -> bytes:
    """SETTINGS."""
    payload = b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs)
    return frame(fr.SETTINGS, payload, flags=int(ack), stream=stream)


def window(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(fr.WINDOW_UPDATE, increment.to_bytes(4, "big"), stream=stream)


def rst(stream: int, code: int) -> bytes:
    """RST_STREAM."""
    return frame(fr.RST_STREAM, code.to_bytes(4, "big"), stream=stream)


def ping(payload: bytes = bytes(8), *, ack: bool = False, stream: int = 0) -> bytes:
    """PING."""
    return frame(fr.PING, payload, flags=int(ack), stream=stream)


def goaway(last: int, code: int = 0, debug: bytes = b"", *, stream: int = 0) -> bytes:
    """GOAWAY."""
    return frame(fr.GOAWAY, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug, stream=stream)


def priority(stream: int, payload: bytes = bytes(5)) -> bytes:
    """PRIORITY."""
    return frame(fr.PRIORITY, payload, stream=stream)


REQUEST = request_prefix(b"10.0.0.1:80") + field(b"baggage", b"k=v")
ANSWER = answer_block(200)
CLIENT_HELLO = fr.PREFACE + settings()
SERVER_HELLO = settings()
