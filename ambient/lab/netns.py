"""Being in a network namespace for a moment: sockets, processes and sysctls of it. Linux, root.

Theory of operation. A namespace belongs to a thread, not to a process: :func:`entered` moves the calling thread there
with setns(2) and back. A socket stays in the namespace it was made in, a child starts in that of the thread which
forked it; so nothing but the making has to happen inside. Never await inside: the event loop would run other
tasks there. Python 3.11 has no ``os.setns``, hence ctypes.
"""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ambient.lab.errors import LabBroken, LabSpecError, LabUnknown, LabUnsupported

__all__ = [
    "NETNS_DIR",
    "add_namespaces",
    "delete_namespaces",
    "entered",
    "ip_batch",
    "namespace_inode",
    "open_socket",
    "read_sysctl",
    "write_sysctls",
]

NETNS_DIR = Path("/run/netns")
"""Where iproute2 keeps named namespaces; `ip netns exec` works on ours."""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """The calling thread is in the namespace at ``path`` within the block. May be nested.

    Raises :class:`LabUnknown` if the namespace is gone, :class:`LabUnsupported` without CAP_SYS_ADMIN. If the way back
    fails the process is aborted: a thread that stays behind would go on to change the wrong namespace.
    """
    with _opened(Path("/proc/thread-self/ns/net")) as home:
        with _opened(path) as there:
            try:
                _setns(there)
            except PermissionError as error:
                raise LabUnsupported(f"cannot enter {path}: {error.strerror}", "run as root (CAP_SYS_ADMIN)") from error
            except OSError as error:
                # A file that is not mounted on is what a half-deleted namespace leaves.
                raise LabUnknown(f"{path} is no network namespace any more", "make the lab anew") from error
        try:
            yield
        finally:
            try:
                _setns(home)
            except OSError as error:
                sys.stderr.write(f"fatal: cannot leave network namespace {path}: {error}\n")
                sys.stderr.flush()
                os.abort()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabUnknown(f"network namespace {path} is gone", "make the lab anew") from error
    try:
        yield fd
    finally:
        os.close(fd)


def open_socket(path: Path, family: int, kind: int, proto: int = 0) -> socket.socket:
    """A socket made in the namespace; it stays there wherever it is used."""
    with entered(path):
        return socket.socket(family, kind, proto)


def namespace_inode(name: str) -> int | None:
    """Inode of the named namespace, as /proc/<pid>/ns/net shows it; None if there is none."""
    try:
        return os.stat(NETNS_DIR / name).st_ino
    except FileNotFoundError:
        return None


def _sysctl_path(name: str) -> Path:
    """``net.ipv4.ip_forward`` or, where a part holds a dot, ``net/ipv4/conf/eth0.1/rp_filter``."""
    parts = name.split("/") if "/" in name else name.split(".")
    if len(parts) < 2 or parts[0] != "net" or any(part in ("", ".", "..") for part in parts):
        raise LabSpecError(f"{name!r} is no sysctl of a network namespace", "name one under net., such as net.ipv4.ip_forward")
    return Path("/proc/sys", *parts)


def read_sysctl(path: Path, name: str) -> str:
    """The value, without its newline. Raises :class:`LabUnknown` if this kernel has no such sysctl here."""
    with entered(path):
        try:
            return _sysctl_path(name).read_text().strip()
        except FileNotFoundError as error:
            raise LabUnknown(f"sysctl {name} does not exist in {path.name}", "check the name and the kernel") from error


def write_sysctls(path: Path, values: Iterable[tuple[str, str]]) -> None:
    """Write all, in order. /proc/sys/net shows the namespace of the thread that looks, so root's are not touched."""
    with entered(path):
        for name, value in values:
            try:
                _sysctl_path(name).write_text(value)
            except FileNotFoundError as error:
                raise LabUnknown(f"sysctl {name} does not exist in {path.name}", "check the name and the kernel") from error
            except OSError as error:
                raise LabBroken(f"sysctl {name}={value!r} in {path.name}: {error.strerror}", "check the value") from error


def ip_batch(lines: Sequence[str], path: Path | None = None) -> None:
    """Give the lines to one ``ip -batch``, in the namespace at ``path`` or (``netns add|del`` only) in the caller's.

    Raises :class:`LabBroken` with the line that failed, :class:`LabUnsupported` when ``ip`` is missing or rights are.
    """
    if not lines:
        return
    try:
        if path is None:
            child = _spawn_ip()
        else:
            with entered(path):
                child = _spawn_ip()
    except FileNotFoundError as error:
        raise LabUnsupported("the `ip` command is not installed", "install it: apt-get install iproute2") from error
    with child:
        _, said = child.communicate("".join(f"{line}\n" for line in lines))
    if child.returncode != 0:
        raise _explain(lines, said, path)


def _spawn_ip() -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "-batch", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _explain(lines: Sequence[str], said: str, path: Path | None) -> LabBroken | LabUnsupported:
    """``ip`` ends with "Command failed -:<line>" after the kernel's own words."""
    words = [line for line in said.splitlines() if line]
    at = next((int(w.rpartition(":")[2]) for w in words if w.startswith("Command failed") and w[-1].isdigit()), 0)
    line = lines[at - 1] if 0 < at <= len(lines) else lines[0]
    why = "; ".join(w for w in words if not w.startswith("Command failed")) or "no reason given"
    where = f"`ip {line}` in {path.name if path else 'the root namespace'}"
    if "not permitted" in why or "Permission denied" in why:
        return LabUnsupported(f"{where} is not permitted", "run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")
    if "Operation not supported" in why or "Unknown device type" in why:
        return LabUnsupported(f"{where}: {why}", "the kernel needs the veth and bridge drivers (CONFIG_VETH, CONFIG_BRIDGE)")
    return LabBroken(f"{where}: {why}", "`ambient lab down --stale` removes leftovers; try again")


def add_namespaces(names: Sequence[str]) -> None:
    """Create named namespaces. iproute2 does it, so that its care for mount propagation of /run/netns is ours too."""
    ip_batch([f"netns add {name}" for name in names])


def delete_namespaces(names: Iterable[str]) -> None:
    """Remove the names that exist; a namespace itself ends with its last process and socket."""
    ip_batch([f"netns delete {name}" for name in names if (NETNS_DIR / name).exists()])
