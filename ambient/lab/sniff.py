"""Seeing what is on a wire of the lab: ``with lab.sniff(node, node.uplink, "tcp") as wire: ...; wire.payload``.

Theory of operation. A packet socket gets a frame within the send that puts it on the veth, so once the traffic is over
everything is in the socket's queue and :meth:`Capture.stop` reads it dry: nothing is missed by being early,
and no test sleeps for a flush. tcpdump itself is used only to compile the filter (``tcpdump -ddd``).
"""

import ctypes
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ambient.lab.errors import LabSpecError, LabUnknown, LabUnsupported
from ambient.lab.netns import entered
from ambient.lab.packets import Frame, pcap_file, transport_payload

__all__ = ["Capture", "sniffed"]

MAX_BYTES = 64 * 1024 * 1024
"""Frames kept; later ones are counted as dropped."""
_SOCKET_BUFFER = 32 * 1024 * 1024
_SNAP = 262_144
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6


class Capture:
    """A running capture. Its results are complete after :meth:`stop`, which leaving the ``with`` block calls."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: list[Frame] = []
        self._bytes = 0
        self._beyond = 0
        self._kernel_drops = 0
        self._stop = threading.Event()
        self._waker, self._wakee = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="lab-sniff", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            select.select([self._sock, self._wakee], [], [])
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while True:
            try:
                data = self._sock.recv(_SNAP, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # ENETDOWN: the interface went away; what was queued has been read
                return
            if self._bytes + len(data) > MAX_BYTES:
                self._beyond += 1
                continue
            self._bytes += len(data)
            self._frames.append(Frame(time.time_ns(), data))

    def stop(self) -> None:
        """End the capture after reading what is queued. May be called twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._waker.send(b"x")
        self._thread.join()
        packets_and_drops = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._kernel_drops = int(struct.unpack("II", packets_and_drops)[1])
        for sock in (self._sock, self._waker, self._wakee):
            sock.close()

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(self._frames)

    @property
    def dropped(self) -> int:
        """Frames that were on the wire and are not in the capture. An assertion of absence needs this to be 0."""
        return self._beyond + self._kernel_drops

    @property
    def payload(self) -> bytes:
        """What all TCP segments and UDP datagrams carried, in the order seen (retransmissions included)."""
        return b"".join(transport_payload(frame.data) for frame in self._frames)

    @property
    def text(self) -> str:
        """:attr:`payload` for a reader: what is not printable ASCII is a dot."""
        return "".join(chr(b) if 32 <= b < 127 or b == 10 else "." for b in self.payload)

    @property
    def pcap(self) -> bytes:
        """The capture as a pcap file."""
        return pcap_file(self._frames)

    def save(self, path: Path) -> None:
        path.write_bytes(self.pcap)


@contextmanager
def sniffed(netns: Path, interface: str, expression: str = "") -> Iterator[Capture]:
    """Capture both directions on ``interface`` of the namespace, filtered as tcpdump would."""
    program = _compile(netns, interface, expression) if expression else b""
    with entered(netns):
        # Protocol 0 receives nothing until the filter is on and bind() names the interface.
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SOCKET_BUFFER)
        if program:
            buffer = ctypes.create_string_buffer(program, len(program))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)))
        sock.bind((interface, _ETH_P_ALL))
    except OSError as error:
        sock.close()
        raise LabUnknown(
            f"cannot capture on {interface!r} in {netns.name}: {error.strerror}", "check the interface's name"
        ) from error
    capture = Capture(sock)
    try:
        yield capture
    finally:
        capture.stop()


def _compile(netns: Path, interface: str, expression: str) -> bytes:
    """The filter as an array of ``struct sock_filter``."""
    try:
        with entered(netns):
            child = subprocess.Popen(
                ["tcpdump", "-i", interface, "-ddd", "--", expression],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
    except FileNotFoundError as error:
        raise LabUnsupported("a capture filter needs tcpdump", "install it: apt-get install tcpdump") from error
    with child:
        out, said = child.communicate()
    if child.returncode != 0:
        raise LabSpecError(f"tcpdump refuses the filter {expression!r}: {said.strip()}", "see `man pcap-filter`")
    lines = out.splitlines()[1:]
    return b"".join(struct.pack("HBBI", *(int(word) for word in line.split())) for line in lines)
