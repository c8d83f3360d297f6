"""The epoll loop: one thread, level-triggered, plain calls.

For each batch of events every handler runs once; then what the handlers queued is written: each dirty tunnel is flushed once, so
that a batch costs one TLS write and one ``send`` for each tunnel whatever the number of its connections. Sockets are closed after
the batch, so that a descriptor's number cannot be used again while stale events of the batch still carry it.
"""

import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["ERR", "HUP", "IN", "OUT", "Flushable", "Loop"]

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
_TICK: Final = 1.0


class Flushable(Protocol):
    """Something that has bytes queued."""

    def flush(self) -> None:
        """Write them; must not raise."""


class Loop:
    """Owns the epoll descriptor, the timers and the order of a batch. ``now``: monotonic seconds at the batch's start."""

    def __init__(self, on_fault: Callable[[object, Exception], None]) -> None:
        """``on_fault(handler's owner, exception)`` is told of handlers that raise: a bug, which ends that connection alone."""
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._closing: list[socket.socket] = []
        self._soon: list[Callable[[], None]] = []
        self._on_fault = on_fault
        self.dirty: list[Flushable] = []
        self.now = time.monotonic()
        self.wall_offset = time.time() - self.now
        self.stopped = False
        self.batches = 0
        self.events = 0
        self.ready = 0
        """Descriptors that were ready at the batch's start."""

    @property
    def watched(self) -> int:
        """Descriptors registered."""
        return len(self._handlers)

    def add(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` whenever ``fd`` is ready."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def handler(self, fd: int) -> Callable[[int], None] | None:
        """Who is called for ``fd``."""
        return self._handlers.get(fd)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events; errors and hang-ups are always reported."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching; unknown descriptors are fine."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, sock: socket.socket) -> None:
        """Stop watching a socket and close it after the batch; epoll forgets it then by itself."""
        self._handlers.pop(sock.fileno(), None)
        self._closing.append(sock)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call once at monotonic ``when``; cannot be cancelled: the callback looks whether it is still wanted."""
        heapq.heappush(self._timers, (when, next(self._order), callback))

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call again and again, at least ``seconds`` apart."""

        def run() -> None:
            self.call_at(self.now + seconds, run)
            callback()

        self.call_at(self.now + seconds, run)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call after this batch, before the next: how long work is cut into slices."""
        self._soon.append(callback)

    def run(self) -> None:
        """Until :attr:`stopped`."""
        poll = self._epoll.poll
        handlers = self._handlers
        clock = time.monotonic
        timers = self._timers
        closing = self._closing
        while not self.stopped:
            timeout = 0.0 if self._soon or self.dirty else _TICK
            if timers:
                left = timers[0][0] - self.now  # a batch's length too long at most, and no system call
                if left < timeout:
                    timeout = left if left > 0.0 else 0.0
            events = poll(timeout)
            self.now = now = clock()
            self.batches += 1
            self.ready = ready = len(events)
            self.events += ready
            for fd, event in events:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(event)
                    except Exception as e:  # noqa: BLE001 one connection's fault ends that connection
                        self._on_fault(getattr(handler, "__self__", None), e)
            if timers and timers[0][0] <= now:
                self._run_timers()
            if self._soon:
                callbacks, self._soon = self._soon, []
                for callback in callbacks:
                    self._guard(callback)
            if self.dirty:
                self._flush()
            if closing:
                for sock in closing:
                    sock.close()
                closing.clear()

    def _flush(self) -> None:
        dirty, self.dirty = self.dirty, []
        for flushable in dirty:
            try:
                flushable.flush()
            except Exception as e:  # noqa: BLE001 as above
                self._on_fault(flushable, e)

    def _run_timers(self) -> None:
        due = []  # first, as one that is set for now by another waits for the next batch
        while self._timers and self._timers[0][0] <= self.now:
            due.append(heapq.heappop(self._timers)[2])
        for callback in due:
            self._guard(callback)

    def _guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as e:  # noqa: BLE001 as above
            self._on_fault(getattr(callback, "__self__", None), e)

    def close_all(self) -> None:
        """Close sockets that wait for it, and epoll itself."""
        for sock in self._closing:
            sock.close()
        self._closing.clear()
        self._epoll.close()
