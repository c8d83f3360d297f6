"""The order of a batch: handlers, timers, what comes soon, flushes, closes; and what a handler that raises costs."""

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from ztunnel.dataplane.loop import HUP, IN, OUT, Loop


class Owner:
    """A handler with a memory."""

    def __init__(self, log: list[str], name: str, then: Callable[[], None] = lambda: None) -> None:
        self.log, self.name, self.then = log, name, then

    def on_event(self, event: int) -> None:
        self.log.append(f"{self.name} {event}")
        self.then()

    def flush(self) -> None:
        self.log.append(f"{self.name} flush")
        self.then()


@pytest.fixture
def faults() -> list[tuple[object, Exception]]:
    return []


@pytest.fixture
def loop(faults: list[tuple[object, Exception]]) -> Iterator[Loop]:
    made = Loop(lambda owner, error: faults.append((owner, error)))
    yield made
    made.close_all()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    yield a, b
    a.close()
    b.close()


def batch(loop: Loop, count: int = 1) -> None:
    """Run ``count`` batches without waiting."""
    left = count

    def stop() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.soon(stop)
        else:
            loop.stopped = True

    loop.stopped = False
    loop.soon(stop)
    loop.run()


def bug() -> None:
    raise ValueError("a bug")


def test_a_batch_has_an_order(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    log: list[str] = []
    a, b = ends
    owner = Owner(log, "a", lambda: loop.dirty.append(flushed))
    flushed = Owner(log, "a", lambda: log.append(f"open {a.fileno() >= 0}"))
    loop.add(a.fileno(), IN, owner.on_event)
    loop.call_at(0.0, lambda: log.append("timer"))
    loop.soon(lambda: log.append("soon"))
    loop.soon(lambda: loop.close(a))
    b.send(b"x")
    batch(loop)
    assert log == ["a 1", "timer", "soon", "a flush", "open True"]
    assert a.fileno() == -1


def test_events_can_be_changed_and_removed(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    log: list[str] = []
    a, _ = ends
    loop.add(a.fileno(), IN, Owner(log, "a").on_event)
    batch(loop)
    assert log == []
    loop.change(a.fileno(), IN | OUT)
    batch(loop)
    assert log == [f"a {OUT}"]
    assert loop.watched == 1
    loop.remove(a.fileno())
    loop.remove(a.fileno())
    batch(loop)
    assert log == [f"a {OUT}"]
    assert loop.watched == 0
    assert loop.handler(a.fileno()) is None


def test_a_socket_closed_in_a_batch_hears_no_stale_event(loop: Loop) -> None:
    """Two are ready; the first handler closes the second and opens another: the new one must not get the old one's event."""
    log: list[str] = []
    pairs = [socket.socketpair() for _ in range(2)]
    new: list[socket.socket] = []

    def replace(other: socket.socket) -> None:
        fd = other.fileno()
        loop.close(other)
        fresh = socket.socketpair()
        new.extend(fresh)
        assert fd not in {s.fileno() for s in fresh}, "its number is used again while the batch goes on"
        loop.add(fresh[0].fileno(), IN, Owner(log, "fresh").on_event)

    (a, x), (b, y) = pairs
    done: list[str] = []

    def first(mine: socket.socket, other: socket.socket) -> Callable[[int], None]:
        def on_event(_: int) -> None:
            assert not done, "the closed one was called"
            done.append("")
            mine.recv(1)
            replace(other)

        return on_event

    loop.add(a.fileno(), IN, first(a, b))
    loop.add(b.fileno(), IN, first(b, a))
    x.send(b"x")
    y.send(b"y")
    batch(loop, 2)
    assert len(done) == 1
    assert log == []
    for sock in (a, b, x, y, *new):
        sock.close()


def test_closing_twice_is_closing(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    a, _ = ends
    loop.add(a.fileno(), IN, lambda _: None)
    loop.close(a)
    loop.close(a)
    batch(loop)
    loop.close(a)
    batch(loop)
    assert a.fileno() == -1
    assert loop.watched == 0


def test_a_handler_that_raises_is_told_of_by_its_owner(
    loop: Loop, ends: tuple[socket.socket, socket.socket], faults: list[tuple[object, Exception]]
) -> None:
    log: list[str] = []
    a, b = ends
    bad, good = Owner(log, "bad", bug), Owner(log, "good")
    loop.add(a.fileno(), IN, bad.on_event)
    loop.add(b.fileno(), OUT, good.on_event)
    b.send(b"x")
    loop.dirty.extend([bad, good])
    loop.call_at(0.0, bug)
    loop.soon(bug)
    batch(loop)
    assert [owner for owner, _ in faults] == [bad, None, None, bad]
    assert log.count("good flush") == 1
    assert f"good {OUT}" in log


def test_a_hang_up_is_reported_unasked(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    log: list[str] = []
    a, b = ends
    loop.add(a.fileno(), 0, Owner(log, "a").on_event)
    b.close()
    batch(loop)
    assert log == [f"a {HUP}"]


def test_timers_come_in_order_of_time_then_of_setting(loop: Loop) -> None:
    log: list[str] = []
    now = loop.now
    for when, name in ((now - 1, "late"), (now - 2, "later"), (now - 1, "late too"), (now + 3600, "never")):
        loop.call_at(when, lambda name=name: log.append(name))  # type: ignore[misc]
    batch(loop)
    assert log == ["later", "late", "late too"]


def test_a_timer_set_for_now_by_a_timer_waits_for_the_next_batch(loop: Loop) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        loop.call_at(loop.now, again)

    loop.call_at(0.0, again)
    batch(loop, 3)
    assert count == 3


def test_every_goes_on_after_a_fault(loop: Loop, faults: list[tuple[object, Exception]]) -> None:
    loop.every(0.0, bug)
    batch(loop, 4)
    assert len(faults) >= 3


def test_what_comes_soon_may_ask_for_more_without_holding_up_the_batch(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    log: list[str] = []
    a, b = ends

    def slice_() -> None:
        log.append("slice")
        if log.count("slice") < 3:
            loop.soon(slice_)

    loop.add(a.fileno(), IN, Owner(log, "a", lambda: a.recv(1)).on_event)
    loop.soon(slice_)
    b.send(b"x")
    batch(loop, 4)
    assert log == ["a 1", "slice", "slice", "slice"]


def test_what_a_flush_makes_dirty_is_flushed_without_waiting(loop: Loop) -> None:
    log: list[str] = []
    second = Owner(log, "second", lambda: setattr(loop, "stopped", True))
    loop.dirty.append(Owner(log, "first", lambda: loop.dirty.append(second)))
    began = time.monotonic()
    loop.run()
    assert log == ["first flush", "second flush"]
    assert time.monotonic() - began < 0.5


def test_stopping_finishes_the_batch(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    log: list[str] = []
    a, b = ends
    loop.add(a.fileno(), IN, Owner(log, "a", lambda: setattr(loop, "stopped", True)).on_event)
    loop.dirty.append(Owner(log, "tunnel"))
    b.send(b"x")
    loop.run()
    assert log == ["a 1", "tunnel flush"]


def test_close_all_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    made = Loop(lambda *_: None)
    a, b = socket.socketpair()
    made.add(a.fileno(), IN, lambda _: None)
    made.close(a)
    made.close(b)
    made.close_all()
    assert len(os.listdir("/proc/self/fd")) == before
