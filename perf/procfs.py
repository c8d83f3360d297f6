"""Processes as /proc shows them: CPU time, memory, descendants. Parsers are pure; the readers beside them are thin.

A process that has ended reads as nothing rather than as an error: proxies may restart their control half at any time.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "Mapped",
    "Process",
    "alone",
    "cpu_seconds",
    "descendants",
    "mappings",
    "parse_smaps",
    "parse_stat",
    "processes",
    "pss",
    "steal_ticks",
]

_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat. ``cpu`` is user and system time of all threads, also ended ones, in clock ticks."""

    pid: int
    command: str
    parent: int
    cpu: int
    started: int


def parse_stat(text: str) -> Process:
    """The command may hold spaces and parentheses: the last one closes it (proc_pid_stat(5))."""
    head, _, tail = text.rpartition(")")
    pid, _, command = head.partition(" (")
    fields = tail.split()
    return Process(int(pid), command, int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19]))


def processes() -> dict[int, Process]:
    """All that run now."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := _read(int(name))):
            found[process.pid] = process
    return found


def _read(pid: int) -> Process | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def steal_ticks() -> int:
    """Time that a hypervisor ran something else while a CPU of this machine had work, clock ticks of all CPUs (proc_stat(5))."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8])


def descendants(root: int, everyone: Mapping[int, Process]) -> list[int]:
    """``root`` and all below it, parents before children; empty if it is gone."""
    if root not in everyone:
        return []
    children: dict[int, list[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """CPU time so far of each that still runs, seconds, to the clock tick (10 ms as a rule)."""
    return {pid: process.cpu / _TICK for pid in pids if (process := _read(pid))}


@dataclass(frozen=True, slots=True)
class Mapped:
    """One mapping of /proc/<pid>/smaps. ``backing`` is device, inode and offset of the file, None for anonymous memory.

    Sizes are bytes.
    """

    backing: tuple[str, int, int] | None
    rss: int
    pss: int
    private: int


def parse_smaps(text: str) -> list[Mapped]:
    """Mappings with something in memory. Fields this code does not know are passed over (proc_pid_smaps(5))."""
    found: list[Mapped] = []
    backing: tuple[str, int, int] | None = None
    sizes: dict[str, int] = {}

    def flush() -> None:
        if sizes.get("Rss"):
            private = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
            found.append(Mapped(backing, sizes["Rss"], sizes.get("Pss", 0), private))
        sizes.clear()

    for line in text.splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            flush()
            fields = rest.split(maxsplit=4)
            inode = int(fields[3])
            backing = (fields[2], inode, int(fields[1], 16)) if inode else None
        elif rest.endswith(" kB"):
            sizes[first[:-1]] = int(rest[:-3]) * 1024
    flush()
    return found


def mappings(pid: int) -> list[Mapped]:
    """Of one process; empty if it is gone. Needs root for another user's."""
    try:
        return parse_smaps(Path(f"/proc/{pid}/smaps").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return []


def pss(each: Sequence[Sequence[Mapped]]) -> int:
    """Proportional set size of some processes together, bytes: a page shared with n others counts 1/n."""
    return sum(mapping.pss for process in each for mapping in process)


def alone(each: Sequence[Sequence[Mapped]]) -> int:
    """What the processes would take if nothing else on the machine shared with them, bytes; an upper bound.

    PSS flatters here: the other node's proxy, the node agents and the harness map the same interpreter and libraries. So:
    anonymous memory and private pages of files, and the shared pages of each file's mapping once.
    """
    total = 0
    shared: dict[tuple[str, int, int], int] = {}
    for process in each:
        for mapping in process:
            if mapping.backing is None:
                total += mapping.rss
            else:
                total += mapping.private
                shared[mapping.backing] = max(shared.get(mapping.backing, 0), mapping.rss - mapping.private)
    return total + sum(shared.values())
