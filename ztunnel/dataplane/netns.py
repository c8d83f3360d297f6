"""Sockets in pods' network namespaces.

A socket belongs to the namespace its thread was in when it was made, for good. The data plane is one thread and makes sockets
through :meth:`NetnsSwitch.socket` only, which enters the wanted namespace first and stays there: a pair of setns calls for each
dialled connection (4 µs) is saved, and no socket is ever made in a namespace that was not named.
"""

import ctypes
import os
import socket
from dataclasses import dataclass, field

from ztunnel.dataplane.errors import NetnsError

__all__ = ["Netns", "NetnsSwitch"]

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True, eq=False)
class Netns:
    """A namespace held open by ``fd``, which this object owns. ``identity`` is (device, inode)."""

    fd: int
    identity: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        stat = os.fstat(self.fd)
        self.identity = (stat.st_dev, stat.st_ino)

    def close(self) -> None:
        """Let go of the namespace."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class NetnsSwitch:
    """Knows which namespace the thread is in."""

    def __init__(self) -> None:
        self.home = Netns(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self._current = self.home.identity

    def enter(self, netns: Netns) -> None:
        """Be in ``netns`` from here on. Raises NetnsError; then the thread is where it was."""
        if netns.fd < 0:
            raise NetnsError("the network namespace is closed already")
        if netns.identity == self._current:
            return
        if _libc.setns(netns.fd, _CLONE_NEWNET):
            error = os.strerror(ctypes.get_errno())
            raise NetnsError(f"cannot enter the network namespace: {error}; ztunnel needs CAP_SYS_ADMIN")
        self._current = netns.identity

    def release(self, netns: Netns) -> None:
        """Close ``netns`` and be elsewhere: a namespace, and with it a deleted pod's interfaces, lives while a thread is in it."""
        if netns.identity == self._current and netns is not self.home:
            self.enter(self.home)
        netns.close()

    def socket(self, netns: Netns, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A non-blocking socket in ``netns``. Raises NetnsError or OSError (EMFILE, ENFILE, ENOBUFS)."""
        self.enter(netns)
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
