"""Log lines to a file descriptor, never at the expense of anything else.

Shell of the control half. ``put`` never waits: lines join a bounded queue, and when the reader of our output is slow, lines are
dropped and counted (ztunnel blocks there). A worker thread writes what has gathered, at most :data:`BATCH` bytes a write,
so that a full pipe stops neither the event loop nor the data plane.
"""

import os
import select
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["BATCH", "FLUSH_SECONDS", "QUEUE_LINES", "QUEUE_BYTES", "LineWriter"]

QUEUE_LINES: Final = 10_000
"""Lines that wait (ztunnel's figure)."""
QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Bytes that wait: lines of any length cannot take more memory than this."""
BATCH: Final = 64 * 1024
"""Bytes given to one write; a single longer line is written whole."""
FLUSH_SECONDS: Final = 2.0
"""How long the end of the process waits for the last lines."""


class LineWriter:
    """A bounded queue of lines and the task that writes them.

    ``dropped`` and ``errors`` count lines lost to a full queue and writes that failed; both only grow.
    ``write`` is called in a thread with a batch and must write all of it or raise OSError.
    """

    def __init__(
        self,
        fd: int = 1,
        *,
        max_lines: int = QUEUE_LINES,
        max_bytes: int = QUEUE_BYTES,
        write: Callable[[bytes], None] | None = None,
    ) -> None:
        self._write = write or (lambda data: write_all(fd, data))
        self._max_lines, self._max_bytes = max_lines, max_bytes
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._wake = trio.Event()
        self._ending = False
        self._queued = 0
        self._written = 0
        self._progress = trio.Event()
        self.dropped = 0
        self.errors = 0

    def put(self, line: bytes) -> bool:
        """Queue ``line`` (with its newline); False if it was dropped. Call from the event loop's thread."""
        if len(self._lines) >= self._max_lines or self._size + len(line) > self._max_bytes:
            self.dropped += 1
            return False
        self._lines.append(line)
        self._size += len(line)
        self._queued += 1
        if not self._wake.is_set():
            self._wake.set()
        return True

    async def run(self) -> None:
        """Write until cancelled; then what waits is written for at most :data:`FLUSH_SECONDS`."""
        async with trio.open_nursery() as nursery:
            # Shielded, so that a batch is never in two threads at once; the watcher ends the shield.
            with trio.CancelScope(shield=True) as shield:
                nursery.start_soon(self._watch, shield)
                while not self._ending:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    await self._drain()

    async def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Until every line put before is written or lost, at most ``seconds``."""
        until = self._queued
        with trio.move_on_after(seconds):
            while self._written < until:
                await self._progress.wait()

    async def _watch(self, shield: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._ending = True
            self._wake.set()
            shield.deadline = trio.current_time() + FLUSH_SECONDS

    async def _drain(self) -> None:
        while self._lines:
            batch = [self._lines.popleft()]
            size = len(batch[0])
            while self._lines and size + len(self._lines[0]) <= BATCH:
                size += len(self._lines[0])
                batch.append(self._lines.popleft())
            self._size -= size
            try:
                await trio.to_thread.run_sync(self._write, b"".join(batch), abandon_on_cancel=True, limiter=_limiter())
            except OSError:
                self.errors += 1
                self.dropped += len(batch)
            self._written += len(batch)
            self._progress.set()
            self._progress = trio.Event()


_LIMITER: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("log writers")


def _limiter() -> trio.CapacityLimiter:
    """Own threads: a blocked output must not take those of others."""
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = trio.CapacityLimiter(4)
        _LIMITER.set(limiter)
        return limiter


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, waiting where the descriptor is non-blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(fd, select.POLLOUT)
            waiter.poll(1000)
