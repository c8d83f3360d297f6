"""Pods made of network namespaces for the capture tests: two of them, joined by a veth pair, and sockets inside."""

import itertools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from capture.netns import call_in_netns, run_in_netns

IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
SO_ORIGINAL_DST: Final = 80
TIMEOUT: Final = 5.0

_names = itertools.count()


@dataclass(frozen=True)
class Netns:
    """One end of the pair."""

    name: str
    addresses: dict[int, str]

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def run(self, *argv: str, data: bytes = b"") -> str:
        done = run_in_netns(self.path, argv, data=data)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def make(self, family: int, kind: int = socket.SOCK_STREAM, *, transparent: bool = False, mark: int = 0) -> socket.socket:
        made = call_in_netns(self.path, lambda: socket.socket(family, kind))
        made.settimeout(TIMEOUT)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent:
            level, option = (
                (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if family == socket.AF_INET6 else (socket.IPPROTO_IP, IP_TRANSPARENT)
            )
            made.setsockopt(level, option, 1)
        if mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        return made

    def listen(self, family: int, port: int, host: str = "", *, transparent: bool = False) -> socket.socket:
        made = self.make(family, transparent=transparent)
        made.bind((host or wildcard(family), port))
        made.listen(8)
        return made

    def connect(
        self, family: int, host: str, port: int, *, mark: int = 0, source: str = "", timeout: float = TIMEOUT
    ) -> socket.socket:
        made = self.make(family, mark=mark, transparent=bool(source))
        made.settimeout(timeout)
        try:
            if source:
                made.bind((source, 0))
            made.connect((host, port))
        except BaseException:
            made.close()
            raise
        return made


@dataclass(frozen=True)
class Pair:
    """``pod`` is the one to be captured, ``peer`` the world outside. Whatever isn't the link is routed to the other side."""

    pod: Netns
    peer: Netns


def wildcard(family: int) -> str:
    return "::" if family == socket.AF_INET6 else "0.0.0.0"


def loopback(family: int) -> str:
    return "::1" if family == socket.AF_INET6 else "127.0.0.1"


def original_destination(accepted: socket.socket) -> tuple[str, int]:
    if accepted.family == socket.AF_INET6:
        raw = accepted.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from(">H", raw, 2)[0]
    raw = accepted.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from(">H", raw, 2)[0]


def refused(connect: Callable[[], socket.socket]) -> bool:
    """The connection was answered with RST; any other outcome is an error of its own."""
    try:
        connect().close()
    except ConnectionRefusedError:
        return True
    return False


def dropped(netns: Netns, family: int, host: str, port: int) -> bool:
    """No answer to a SYN within half a second: the first retransmission comes after a whole one."""
    try:
        netns.connect(family, host, port, timeout=0.5).close()
    except TimeoutError:
        return True
    return False


def nothing_pending(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@contextmanager
def pair_of_pods() -> Iterator[Pair]:
    """The pair, taken away again afterwards."""
    for tool in ("ip", "nft", "iptables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore"):
        if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            pytest.skip(f"{tool} is not installed: apt-get install iproute2 nftables iptables")
    stem = f"cap{os.getpid()}x{next(_names)}"
    pair = Pair(
        Netns(f"{stem}a", {socket.AF_INET: "10.88.0.1", socket.AF_INET6: "fd88::1"}),
        Netns(f"{stem}b", {socket.AF_INET: "10.88.0.2", socket.AF_INET6: "fd88::2"}),
    )
    made: list[str] = []
    try:
        for end in (pair.pod, pair.peer):
            subprocess.run(["ip", "netns", "add", end.name], check=True)
            made.append(end.name)
        pair.pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", pair.peer.name)
        for end in (pair.pod, pair.peer):
            end.run("ip", "link", "set", "lo", "up")
            end.run("ip", "link", "set", "eth0", "up")
            end.run("ip", "addr", "add", f"{end.addresses[socket.AF_INET]}/24", "dev", "eth0")
            end.run("ip", "addr", "add", f"{end.addresses[socket.AF_INET6]}/64", "dev", "eth0", "nodad")
        for end, other in ((pair.pod, pair.peer), (pair.peer, pair.pod)):
            end.run("ip", "route", "add", "default", "via", other.addresses[socket.AF_INET])
            end.run("ip", "route", "add", "default", "via", other.addresses[socket.AF_INET6])
        yield pair
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True)
