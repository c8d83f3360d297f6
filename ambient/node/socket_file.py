"""The listening socket's file: private from its first moment, replacing a dead one, never a live one.

Used by the ZDS server.
"""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from ambient.node.errors import AgentSocketError

__all__ = ["listening"]

MAX_PATH: Final = 107
"""Bytes of a Unix socket's path (unix(7): sun_path is 108 with its end)."""


@asynccontextmanager
async def listening(path: str) -> AsyncIterator[trio.socket.SocketType]:
    """A SOCK_SEQPACKET listener at ``path``, mode 0600, its directory made if need be; removed afterwards if it is still ours.

    Raises AgentSocketError.
    """
    plain, mine = _open(path)
    sock = trio.socket.from_stdlib_socket(plain)
    try:
        yield sock
    finally:
        _remove(path, mine)
        sock.close()


def _open(path: str) -> tuple[socket.socket, int]:
    """The listening socket and its file's inode."""
    # Bound under another name, then renamed: proxies never see it with the wrong mode or before it listens.
    temporary = f"{path}.{os.getpid()}"
    if len(os.fsencode(temporary)) > MAX_PATH:
        raise AgentSocketError(
            f"{path}: longer than a Unix socket's path may be ({MAX_PATH} bytes with a suffix); choose a shorter one"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _refuse_live(path)
        Path(temporary).unlink(missing_ok=True)
        sock.bind(temporary)
        os.chmod(temporary, 0o600)
        sock.listen(16)
        os.rename(temporary, path)
        return sock, os.lstat(path).st_ino
    except OSError as error:
        sock.close()
        Path(temporary).unlink(missing_ok=True)
        raise AgentSocketError(f"{path}: cannot listen: {error.strerror or error}; is the directory writable?") from error
    except AgentSocketError:
        sock.close()
        raise


def _refuse_live(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise AgentSocketError(f"{path}: exists and is no socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return
    raise AgentSocketError(f"{path}: another agent listens there; stop it first")


def _remove(path: str, inode: int) -> None:
    try:
        if os.lstat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
