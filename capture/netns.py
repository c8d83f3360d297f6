"""Entry into network namespaces: the only place of this room that calls setns and unshare.

Called by everything here that touches a pod, and by the proxy for its sockets. Imports nothing heavy.

A network namespace belongs to a thread. :func:`call_in_netns` and :func:`run_in_netns` use a fresh thread that enters, works and
ends there: it never has to come back, so it can't be stuck, and the caller's threads never move. :func:`entered` moves the
calling thread itself, for a worker that opens many sockets; a thread that can't be brought back would go on working in
somebody's pod, so that is fatal to the process.
"""

import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, NoReturn, TypeVar

from capture.errors import CommandFailedError, NetnsError

__all__ = ["NetnsId", "NetnsRef", "call_in_netns", "entered", "identity", "opened", "run_in_netns", "scratch_netns"]

NetnsRef = str | os.PathLike[str] | int
"""A path (``/run/netns/x``, ``/proc/123/ns/net``) or an open descriptor of a network namespace."""

CLONE_NEWNET: Final = 0x40000000
_CURRENT: Final = "/proc/thread-self/ns/net"
_FATAL_STATUS: Final = 70
"""EX_SOFTWARE of sysexits.h."""

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


class NetnsId(NamedTuple):
    """What tells network namespaces apart while they exist; inode numbers are used again later."""

    dev: int
    ino: int


@contextmanager
def opened(netns: NetnsRef) -> Iterator[int]:
    """A descriptor of the netns, closed afterwards if it was opened here. Raises :class:`NetnsError`."""
    if isinstance(netns, int):
        yield netns
        return
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetnsError(f"cannot open network namespace {os.fspath(netns)}: {error.strerror}; has the pod ended?") from error
    try:
        yield fd
    finally:
        os.close(fd)


def identity(netns: NetnsRef = _CURRENT) -> NetnsId:
    """Device and inode of a netns; by default of the calling thread's. Raises :class:`NetnsError`."""
    with opened(netns) as fd:
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise NetnsError(f"descriptor {fd} is no network namespace: {error.strerror}") from error
        return NetnsId(status.st_dev, status.st_ino)


@contextmanager
def entered(netns: NetnsRef) -> Iterator[None]:
    """The calling thread is in ``netns`` for the body. Must not span an await. Raises :class:`NetnsError`.

    Ends the process (status 70) when the thread can't be brought back.
    """
    with opened(netns) as target, opened(_CURRENT) as home:
        _setns(target)
        try:
            yield
        finally:
            if _libc.setns(home, CLONE_NEWNET) != 0:
                _die(os.strerror(ctypes.get_errno()))


def call_in_netns(netns: NetnsRef, function: Callable[[], _T]) -> _T:
    """The result of ``function``, called in ``netns`` by a thread of its own, which ends there. About 0.4 ms."""
    with opened(netns) as fd:
        return _in_fresh_thread(lambda: _setns(fd), function)


def run_in_netns(
    netns: NetnsRef,
    argv: Sequence[str],
    *,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in ``netns`` (a child starts in the netns of the thread that forks it), ``data`` on its stdin.

    ``timeout`` is in seconds. Raises :class:`NetnsError`, or :class:`CommandFailedError` for a command that can't be started
    or doesn't end in time (it is killed). A failing command is a result like any other.
    """

    def run() -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(argv, input=data, env=env, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise CommandFailedError(f"{argv[0]} did not end within {timeout:g} s and was killed") from None
        except OSError as error:
            raise CommandFailedError(f"{argv[0]} cannot be run: {error.strerror}") from error

    return call_in_netns(netns, run)


@contextmanager
def scratch_netns() -> Iterator[int]:
    """A descriptor of a new, empty network namespace that ends with the body. Raises :class:`NetnsError` without CAP_SYS_ADMIN."""

    def unshare() -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise _error("a network namespace cannot be made")

    fd = _in_fresh_thread(unshare, lambda: os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield fd
    finally:
        os.close(fd)


def _in_fresh_thread(prepare: Callable[[], None], function: Callable[[], _T]) -> _T:
    results: list[_T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            prepare()
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - carried to the caller, whole
            failures.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise _error("the network namespace cannot be entered")


def _error(what: str) -> NetnsError:
    number = ctypes.get_errno()
    remedy = {
        errno.EPERM: "; CAP_SYS_ADMIN is needed: run as root",
        errno.EINVAL: "; is the path or descriptor a network namespace?",
    }.get(number, "")
    return NetnsError(f"{what}: {os.strerror(number)}{remedy}")


def _die(cause: str) -> NoReturn:
    os.write(2, f"fatal: a thread cannot leave the network namespace it entered ({cause}); ending the process\n".encode())
    os._exit(_FATAL_STATUS)
