"""Packets with descriptors over a Unix SOCK_SEQPACKET socket, for both ends of ZDS.

Every descriptor that arrives is owned by the :class:`Packet` and closed with it; a packet that was cut short is an error and
leaves none open.
"""

import array
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import trio

from ztunnel.zds.codec import MAX_PACKET
from ztunnel.zds.errors import ZdsTransportError

__all__ = ["MAX_DESCRIPTORS", "Packet", "PacketSocket"]

MAX_DESCRIPTORS: Final = 8
"""Descriptors there is room for in one packet: more than the one that is right, so that a wrong number is seen as such."""
_INT: Final = array.array("i").itemsize
_CONTROL: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT)


@dataclass(slots=True)
class Packet:
    """One packet. A context manager: descriptors that nobody took with :meth:`take` are closed at its end."""

    data: bytes
    fds: list[int] = field(default_factory=list)

    def take(self) -> int:
        """The first descriptor; the caller closes it."""
        return self.fds.pop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self.fds:
            os.close(self.fds.pop())


class PacketSocket:
    """A connected socket. ``b""`` from :meth:`receive` is the end."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock

    @classmethod
    async def connect(cls, path: str) -> Self:
        """Raises ZdsTransportError."""
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            await sock.connect(path)
        except OSError as error:
            sock.close()
            raise ZdsTransportError(f"cannot connect to {path}: {error.strerror or error}; does the node agent run?") from error
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """One packet. The descriptors stay the caller's. Raises ZdsTransportError."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
        try:
            await self._socket.sendmsg([data], control)
        except (OSError, trio.ClosedResourceError) as error:
            raise ZdsTransportError(f"sending failed: {_why(error)}") from error

    async def receive(self) -> Packet:
        """The next packet. Raises ZdsTransportError, also for one that was cut short."""
        try:
            data, control, flags, _ = await self._socket.recvmsg(MAX_PACKET, _CONTROL, socket.MSG_CMSG_CLOEXEC)
        except (OSError, trio.ClosedResourceError) as error:
            raise ZdsTransportError(f"receiving failed: {_why(error)}") from error
        packet = Packet(data)
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                packet.fds.extend(array.array("i", value[: len(value) - len(value) % _INT]))
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            with packet:
                what = (
                    f"longer than {MAX_PACKET} bytes"
                    if flags & socket.MSG_TRUNC
                    else f"with more than {MAX_DESCRIPTORS} descriptors"
                )
                raise ZdsTransportError(f"packet {what}, or this process is out of descriptors")
        return packet

    def close(self) -> None:
        """Close; again is fine."""
        self._socket.close()


def _why(error: OSError | trio.ClosedResourceError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "closed at this end"
