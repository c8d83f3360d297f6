"""The control half's end of the link to the data plane."""

import os
import socket
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
import trio

from ztunnel.link.messages import MAX_PACKET, DownMessage, UpMessage, decode_up, encode

__all__ = ["DataLink", "LinkEnded"]

MAX_QUEUED: Final = 64
"""Packets that wait before :meth:`DataLink.send` does too."""


class LinkEnded(Exception):
    """The data plane closed the link, or sent what we cannot read: this process has nothing left to do."""


class DataLink:
    """Sends in order; :meth:`post` never waits (small messages), :meth:`send` does (state)."""

    def __init__(self, fd: int) -> None:
        self._sock = trio.socket.from_stdlib_socket(socket.socket(fileno=fd))
        self._queue: deque[tuple[bytes, int]] = deque()
        self._more = trio.Event()
        self._less = trio.Event()
        self._ended = False

    def post(self, message: DownMessage, fd: int = -1) -> None:
        """Queue a message; ``fd`` travels with it and is ours until it is sent, then closed."""
        if self._ended:
            if fd >= 0:
                os.close(fd)
            return
        self._queue.append((encode((message,)), fd))
        self._more.set()

    async def send(self, messages: Sequence[DownMessage]) -> None:
        """Queue a packet of messages, waiting while many are queued already."""
        while len(self._queue) >= MAX_QUEUED:
            await self._less.wait()
        self._queue.append((encode(messages), -1))
        self._more.set()
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Write what is queued, until cancelled. Raises LinkEnded."""
        try:
            while True:
                while self._queue:
                    packet, fd = self._queue[0]
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
                    await self._sock.sendmsg([packet], ancillary)
                    self._queue.popleft()
                    if fd >= 0:
                        os.close(fd)
                    self._less.set()
                    self._less = trio.Event()
                self._more = trio.Event()
                await self._more.wait()
        except OSError as e:
            raise LinkEnded(str(e)) from None
        finally:
            self._ended = True
            for _, fd in self._queue:
                if fd >= 0:
                    os.close(fd)
            self._queue.clear()

    async def messages(self) -> AsyncGenerator[UpMessage, None]:
        """What the data plane says. Raises LinkEnded at its end."""
        while True:
            try:
                packet = await self._sock.recv(MAX_PACKET)
                received = decode_up(packet) if packet else None
            except (OSError, msgspec.MsgspecError) as e:
                raise LinkEnded(str(e)) from None
            if received is None:
                raise LinkEnded("closed")
            for message in received:
                yield message
