"""Who else uses the machine while something is measured. A run beside a busy stranger is printed but not judged.

``Ledger`` is pure: it is told what /proc shows, again and again, and adds up. ``Watch`` is the thread that tells it.
"""

import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

import msgspec

from ambient.lab.processes import MARKER
from perf.procfs import Process, processes, steal_ticks

__all__ = ["LIMIT", "Ledger", "Noise", "Watch"]

LIMIT: Final = 0.30
"""Of one core: all strangers together, or what the hypervisor gave to other machines.

More than that moves ratios by more than the rounds differ among themselves.
"""
_EVERY: Final = 0.25
"""Seconds between looks: a look costs some 3 ms, and processes shorter than this are missed."""
_KTHREADD: Final = 2
_TICK: Final = os.sysconf("SC_CLK_TCK")


class Noise(msgspec.Struct, frozen=True):
    """``share`` of one core that strangers took, and the largest of them; ``steal``, the share of one core that a hypervisor gave
    to other machines while this one wanted it; the load average over a minute at the end."""

    share: float
    worst: str
    steal: float
    load_average: float

    @property
    def loud(self) -> bool:
        """Too much to judge by."""
        return max(self.share, self.steal) > LIMIT

    def __str__(self) -> str:
        return f"{self.worst or 'nobody'} and others took {self.share:.0%} of a core, the hypervisor {self.steal:.0%}"


class Ledger:
    """CPU time of strangers between the first and the last look. ``is_ours`` is asked once for each process."""

    def __init__(self, is_ours: Callable[[Process], bool]) -> None:
        self._is_ours = is_ours
        self._known: dict[tuple[int, int], bool] = {}
        self._first: dict[tuple[int, int], int] = {}
        self._last: dict[tuple[int, int], tuple[str, int]] = {}
        self._begun = False

    def look(self, everyone: Mapping[int, Process]) -> None:
        """One sight of all processes. What appears after the first is counted from its birth."""
        for process in everyone.values():
            key = (process.pid, process.started)
            ours = self._known.get(key)
            if ours is None:
                ours = self._known[key] = process.parent == _KTHREADD or process.pid == _KTHREADD or self._is_ours(process)
            if not ours:
                self._first.setdefault(key, 0 if self._begun else process.cpu)
                self._last[key] = (process.command, process.cpu)
        self._begun = True

    def close(self, seconds: float, steal: int, load_average: float) -> Noise:
        """What was seen in ``seconds``; ``steal`` in clock ticks."""
        used: dict[str, int] = {}
        for key, (command, cpu) in self._last.items():
            used[command] = used.get(command, 0) + cpu - self._first[key]
        share = sum(used.values()) / _TICK / seconds if seconds > 0 else 0.0
        worst = max(used, key=used.__getitem__, default="")
        return Noise(
            round(share, 3),
            worst if used.get(worst) else "",
            round(steal / _TICK / seconds, 3) if seconds > 0 else 0.0,
            load_average,
        )


class Watch(AbstractContextManager["Watch"]):
    """Looks while the block runs; ``noise`` holds afterwards what it saw. ``markers`` are those of the run's labs."""

    noise: Noise

    def __init__(self, markers: Collection[str], clock: Callable[[], float]) -> None:
        self._wanted = {f"{MARKER}={marker}".encode() for marker in markers}
        self._clock = clock
        self._ledger = Ledger(self._is_ours)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="noise", daemon=True)
        self._start = 0.0
        self._steal = 0

    def _is_ours(self, process: Process) -> bool:
        if process.pid == os.getpid():
            return True
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                return not self._wanted.isdisjoint(file.read().split(b"\0"))
        except OSError:
            return True  # ended meanwhile: too short to matter

    def _run(self) -> None:
        while not self._end.wait(_EVERY):
            self._ledger.look(processes())

    def __enter__(self) -> Self:
        self._start = self._clock()
        self._steal = steal_ticks()
        self._ledger.look(processes())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        self._ledger.look(processes())
        self.noise = self._ledger.close(self._clock() - self._start, steal_ticks() - self._steal, round(os.getloadavg()[0], 2))
