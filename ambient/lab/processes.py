"""Whose processes are in the lab, and ending them. Used by the lab when it closes and by the removal of leftovers.

Every process a lab starts carries ``AMBIENT_LAB=<lab>/<token>`` in its environment, and its descendants inherit it. That
finds the children of a killed owner without a list that could be out of date, and never takes a process that was not started by
the lab, such as a colleague's tcpdump in one of its namespaces. Processes are signalled by pidfd: no id is reused under our hands.
"""

import os
import select
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from ambient.lab.state import Owner

__all__ = ["MARKER", "end_marked", "find_marked", "is_alive", "myself", "same_boot", "strangers"]

MARKER = "AMBIENT_LAB"
TERM_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL: longer than an idle proxy needs to drain, short enough for tests."""
KILL_GRACE = 5.0
"""Seconds to wait for the kernel to take down a killed process."""
_EXECVE_ROUNDS, _EXECVE_PAUSE = 4, 0.002
"""Looks at a process without environment, and seconds between them; an execve takes well under a millisecond."""


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third (state) on; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def _start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot; None for no process and for a zombie, which owns nothing any more."""
    fields = _stat_fields(pid)
    if not fields or fields[0] in "ZX":
        return None
    return int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def myself() -> Owner:
    """The calling process."""
    pid = os.getpid()
    return Owner(pid=pid, start_ticks=_start_ticks(pid) or 0, boot_id=_boot_id(), pid_namespace=_pid_namespace())


def is_alive(owner: Owner) -> bool:
    """Does the owner still run? One in another pid namespace (a container that shares /run) counts as alive: we cannot see it."""
    if owner.boot_id != _boot_id():
        return False
    if owner.pid_namespace != _pid_namespace():
        return True
    return _start_ticks(owner.pid) == owner.start_ticks


def same_boot(owner: Owner) -> bool:
    return owner.boot_id == _boot_id()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _ancestors() -> set[int]:
    """The caller and its parents: a lab that is removed from a shell inside it must not take the remover along."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = _stat_fields(pid)
        pid = int(fields[1]) if fields else 0
    return found


def _environ(pid: int) -> list[bytes]:
    """The process's environment; empty for one that is gone, a kernel thread, and one that is just within its execve."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def _has_program(pid: int) -> bool:
    """False for kernel threads, zombies and processes that are gone."""
    try:
        return bool(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False


def _is_marked(pid: int, marker: str) -> bool:
    return f"{MARKER}={marker}".encode() in _environ(pid)


def _all_marked(marker: str) -> list[int]:
    """Look at every process; those that show no environment are looked at again, as an execve hides it for a moment."""
    wanted, found, pids = f"{MARKER}={marker}".encode(), [], _pids()
    for round_ in range(_EXECVE_ROUNDS):
        if round_:
            time.sleep(_EXECVE_PAUSE)
        environs = {pid: _environ(pid) for pid in pids}
        found += [pid for pid, environ in environs.items() if wanted in environ]
        pids = [pid for pid, environ in environs.items() if not environ and _has_program(pid)]
        if not pids:
            break
    return found


def _netns_of(pid: int) -> int:
    """Inode of the process's network namespace, 0 if it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def find_marked(marker: str, netns: int | None = None) -> list[int]:
    """Ids of the running processes that the lab started, and their descendants; not the caller nor its parents.

    ``netns``, an inode, narrows it to those in one namespace.
    """
    spared = _ancestors()
    return [pid for pid in _all_marked(marker) if pid not in spared and netns in (None, _netns_of(pid))]


def strangers(inodes: Iterable[int]) -> list[tuple[int, str]]:
    """(id, command) of every process in the namespaces with these inodes."""
    wanted = set(inodes)
    found = []
    for pid in _pids():
        if _netns_of(pid) in wanted:
            with suppress(OSError):
                found.append((pid, Path(f"/proc/{pid}/comm").read_text().strip()))
    return found


def end_marked(marker: str, *, netns: int | None = None, grace: float = TERM_GRACE) -> list[int]:
    """End the lab's processes: SIGTERM, ``grace`` seconds, SIGKILL, until none is left. Returns the ids of those that stay.

    ``netns`` is as for :func:`find_marked`. ``grace`` 0 kills at once. Blocks for at most ``grace`` + :data:`KILL_GRACE` seconds.
    """
    if grace > 0:
        _signal_and_wait(marker, netns, signal.SIGTERM, time.monotonic() + grace)
    deadline = time.monotonic() + KILL_GRACE
    while left := find_marked(marker, netns):
        # More than one round: a process may have forked between the look and the signal.
        _signal_and_wait(marker, netns, signal.SIGKILL, deadline)
        if time.monotonic() >= deadline:
            return left
    return []


def _signal_and_wait(marker: str, netns: int | None, number: signal.Signals, deadline: float) -> None:
    with ExitStack() as stack:
        poll = select.poll()
        waiting = set()
        for pid in find_marked(marker, netns):
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            stack.callback(os.close, fd)
            if not _is_marked(pid, marker):  # the id was reused before we held it
                continue
            try:
                signal.pidfd_send_signal(fd, number)
            except ProcessLookupError:
                continue
            poll.register(fd, select.POLLIN)
            waiting.add(fd)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                poll.unregister(fd)
                waiting.discard(fd)
