"""One connected proxy, as the agent sees it: strictly one request at a time, each answered within a deadline.

Used by :mod:`ambient.node.zds_server`. Whatever leaves a request unanswered (deadline, cancellation, a broken socket, an answer
nobody asked for) closes the connection: the next answer could not be told from the missing one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import trio

from ambient.node.errors import EnrolError
from ztunnel.zds.codec import VERSION, Request, decode_hello, decode_response, encode_request
from ztunnel.zds.errors import ZdsError, ZdsProtocolError
from ztunnel.zds.seqpacket import PacketSocket

__all__ = ["ACK_TIMEOUT", "Connection", "Prepare"]

ACK_TIMEOUT: Final = 5.0
"""Seconds for sending a request and for its answer (istio-cni)."""

Prepare = Callable[[], AbstractContextManager[tuple[Request, tuple[int, ...]] | None]]
"""Makes the request and its descriptors at the moment it is sent; None: not needed any more."""


class Connection:
    """A proxy. :attr:`acked` are the pods it took; :attr:`closed` says why it ended, "" while it has not."""

    def __init__(self, link: PacketSocket, name: str, timeout: float = ACK_TIMEOUT) -> None:
        self.name = name
        self.acked: set[str] = set()
        self.closed = ""
        self._link = link
        self._timeout = timeout
        self._turn = trio.Lock()
        self._waiting: trio.Event | None = None
        self._answer = ""

    async def hello(self) -> None:
        """Take the proxy's first packet. Raises ZdsError."""
        with trio.move_on_after(self._timeout):
            with await self._link.receive() as packet:
                if packet.fds:
                    raise ZdsProtocolError("hello with a descriptor")
                version = decode_hello(packet.data)
            if version != VERSION:
                raise ZdsProtocolError(
                    f"the proxy speaks version {version} of the protocol, this agent version {VERSION}; upgrade one of them"
                )
            return
        raise ZdsProtocolError(f"no hello within {self._timeout:.0f} s")

    async def exchange(self, prepare: Prepare) -> str | None:
        """Send one request and wait for its answer: the proxy's error, "" for success, None if it was not needed any more.

        Raises EnrolError when the connection ends before the answer.
        """
        async with self._turn:
            if self.closed:
                raise EnrolError(f"{self.name} is gone: {self.closed}")
            answered = False
            try:
                with prepare() as made:
                    if made is None:
                        answered = True
                        return None
                    request, fds = made
                    self._waiting = trio.Event()
                    with trio.fail_after(self._timeout):
                        await self._link.send(encode_request(request), fds)
                        await self._waiting.wait()
                answered = not self.closed
            except trio.TooSlowError:
                self.close(f"no answer within {self._timeout:.0f} s")
            except ZdsError as error:
                self.close(str(error))
            finally:
                self._waiting = None
                if not answered:
                    self.close("a request was given up")
            if self.closed:
                raise EnrolError(f"{self.name} did not answer: {self.closed}; it is told again when it reconnects")
            return self._answer

    async def read(self) -> None:
        """Receive answers until the connection ends."""
        try:
            while True:
                with await self._link.receive() as packet:
                    if not packet.data:
                        self.close("it closed the connection")
                        return
                    if self._waiting is None or self._waiting.is_set():
                        raise ZdsProtocolError("an answer to no request")
                    self._answer = decode_response(packet.data)
                    self._waiting.set()
        except ZdsError as error:
            self.close(str(error))

    def close(self, why: str) -> None:
        """End the connection; only the first reason counts."""
        if not self.closed:
            self.closed = why
        self._link.close()
        if self._waiting is not None:
            self._waiting.set()
