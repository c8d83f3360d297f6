"""A session under test and what it put, for tests that read like a dialogue."""

from typing import Any

from tests.frames import ANSWER, CLIENT_HELLO, REQUEST, SERVER_HELLO, headers
from ztunnel.hbone import events as ev
from ztunnel.hbone.errors import SessionError
from ztunnel.hbone.limits import SessionLimits
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream

__all__ = ["NAMES", "Talk", "client", "flat", "server"]

NAMES = {
    ev.DATA: "data",
    ev.END: "end",
    ev.RESET: "reset",
    ev.REQUEST: "request",
    ev.ANSWER: "answer",
    ev.WINDOW: "window",
    ev.WINDOWS: "windows",
    ev.GOAWAY: "goaway",
    ev.PONG: "pong",
    ev.READY: "ready",
}


def flat(events: list[ev.Event]) -> list[tuple[Any, ...]]:
    """Events as (name, stream id, argument), with DATA copied and header lists left out."""
    out: list[tuple[Any, ...]] = []
    for kind, stream, arg in events:
        sid = stream.id if stream is not None else 0
        if kind == ev.DATA:
            out.append(("data", sid, bytes(arg)))
        elif kind == ev.REQUEST:
            out.append(("request", sid))
        elif kind == ev.ANSWER:
            out.append(("answer", sid, arg[0]))
        elif arg is None:
            out.append((NAMES[kind], sid))
        else:
            out.append((NAMES[kind], sid, arg))
    return out


class Talk:
    """``hear`` bytes from the peer -> events; ``said`` -> what the session put since it was last asked."""

    def __init__(self, *, client: bool, limits: SessionLimits | None = None) -> None:
        self.out = bytearray()
        self.now = 0.0
        self.session = Session(limits or SessionLimits(), client=client, now=0.0, put=self.out.extend)

    def said(self) -> bytes:
        data = bytes(self.out)
        self.out.clear()
        return data

    def hear(self, *parts: bytes) -> list[tuple[Any, ...]]:
        return flat(self.session.receive(memoryview(b"".join(parts)), self.now))

    def refuses(self, *parts: bytes) -> SessionError:
        """The error that ``parts`` end the session with."""
        try:
            self.hear(*parts)
        except SessionError as e:
            return e
        raise AssertionError("the session puts up with it")

    def stream(self, sid: int) -> Stream:
        return self.session.streams[sid]


def server(limits: SessionLimits | None = None, *, streams: int = 0) -> Talk:
    """A server that has spoken and heard the client's preface, with open and answered ``streams`` 1, 3, ..."""
    talk = Talk(client=False, limits=limits)
    talk.session.start()
    talk.hear(CLIENT_HELLO)
    for i in range(streams):
        talk.hear(headers(1 + 2 * i, REQUEST))
        talk.session.answer(talk.stream(1 + 2 * i), 200)
    talk.said()
    return talk


def client(limits: SessionLimits | None = None, *, streams: int = 0) -> Talk:
    """A client that has spoken and heard the server's SETTINGS, with open and answered ``streams`` 1, 3, ..."""
    talk = Talk(client=True, limits=limits)
    talk.session.start()
    talk.hear(SERVER_HELLO)
    for i in range(streams):
        talk.session.open(REQUEST)
        talk.hear(headers(1 + 2 * i, ANSWER))
    talk.said()
    return talk
