"""The control half as a child that misbehaves in every way a child can."""

import os
import sys
import time
from collections.abc import Iterator

import pytest

from tests.worlds import said, turn, until, world
from ztunnel.dataplane import supervisor as module
from ztunnel.dataplane.control_link import ControlLink
from ztunnel.dataplane.supervisor import FIRST_BACKOFF, GREETING, MAX_BACKOFF, STABLE, STALL, Supervisor
from ztunnel.dataplane.world import World
from ztunnel.link.messages import Log, Record, StateEnd
from ztunnel.reasons import CloseReason

HEAD = """
import os, socket, sys, time
link = socket.socket(fileno=int(sys.argv[2]))
hello = b"\\x91\\x93\\xacControlHello\\x01\\x02"
"""
GREETS = HEAD + "link.send(hello)\n"
WAITS = GREETS + "while link.recv(1 << 20): pass\n"


@pytest.fixture
def here() -> Iterator[World]:
    with world() as made:
        yield made


class Child:
    """A supervisor of ``code``; the child is gone afterwards."""

    def __init__(self, here: World, code: str) -> None:
        self.world = here
        self.supervisor = Supervisor(here, [sys.executable, "-I", "-S", "-c", code])

    def __enter__(self) -> Supervisor:
        self.supervisor.start()
        return self.supervisor

    def __exit__(self, *_: object) -> None:
        supervisor = self.supervisor
        supervisor.stopping = True
        if supervisor._child is not None:
            supervisor._child.kill()
            until(lambda: supervisor._child is None, self.world)
        turn(self.world)


def lines(here: World) -> list[str]:
    return [message.message for message in said(here) if isinstance(message, Log)]


def test_a_child_that_greets_is_left_alone(here: World) -> None:
    with Child(here, WAITS) as supervisor:
        until(lambda: supervisor.link and supervisor.link.greeted, here)
        assert supervisor.restarts == 0


def test_a_child_that_ends_is_started_again_later_and_later(here: World, capsys: pytest.CaptureFixture[str]) -> None:
    with Child(here, HEAD + "sys.exit(3)") as supervisor:
        until(lambda: supervisor.restarts == 2, here)
        assert supervisor._backoff == FIRST_BACKOFF * 4
        for _ in range(10):
            supervisor._backoff = min(supervisor._backoff * 2, MAX_BACKOFF)
        assert supervisor._backoff == MAX_BACKOFF
    assert "ended with status 3; restarting in 0.1 s" in capsys.readouterr().err


def test_a_child_that_was_stable_is_started_again_at_once(here: World) -> None:
    with Child(here, WAITS) as supervisor:
        until(lambda: supervisor.link and supervisor.link.greeted, here)
        supervisor._backoff = MAX_BACKOFF
        supervisor._started -= STABLE + 1
        assert supervisor._child is not None
        supervisor._child.kill()
        until(lambda: supervisor.restarts == 1, here)
        assert supervisor._backoff == FIRST_BACKOFF * 2


def test_a_link_that_breaks_alone_costs_the_child(here: World) -> None:
    with Child(here, GREETS + "link.send(b'rubbish')\ntime.sleep(60)") as supervisor:
        until(lambda: supervisor.restarts == 1, here)
        assert any("sent what we cannot read" in line for line in lines(here))


def test_a_child_that_never_greets_is_replaced(here: World) -> None:
    with Child(here, HEAD + "time.sleep(60)") as supervisor:
        for _ in range(3):
            supervisor._report()
            turn(here)
        assert supervisor.restarts == 0
        supervisor._started -= GREETING + 1
        until(lambda: supervisor.restarts == 1, here)


def test_what_it_said_before_it_died_is_kept(here: World) -> None:
    code = GREETS + f"link.send({_state_end(7)!r})\n"
    with Child(here, code) as supervisor:
        until(lambda: supervisor.restarts >= 1, here)
        assert here.state.generation == 7


def _state_end(generation: int) -> bytes:
    from ztunnel.link.messages import encode

    return bytes(encode([StateEnd(generation)]))


def test_records_it_had_not_read_go_to_the_next(here: World) -> None:
    here.registry.record(Record(0, "inbound", "a:1", "b:2", "", 0, 0, 0.0, 0.0, str(CloseReason.NO_ROUTE)))
    with Child(here, GREETS + "time.sleep(60)") as supervisor:
        until(lambda: supervisor.link and supervisor.link.greeted, here)
        supervisor._report()
        assert here.registry.pending == 0
        assert supervisor._child is not None
        supervisor._child.kill()
        until(lambda: supervisor.restarts == 1, here)
        assert here.registry.pending == 1


def test_without_a_descriptor_for_its_pidfd_the_child_is_given_up_and_tried_again(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))

    def none_left(_: int) -> int:
        raise OSError(24, "Too many open files")

    supervisor = Supervisor(here, [sys.executable, "-I", "-S", "-c", WAITS])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", none_left)
        with pytest.raises(OSError, match="Too many"):
            supervisor.start()
    assert supervisor._child is None
    assert len(os.listdir("/proc/self/fd")) == before
    supervisor._again()
    until(lambda: supervisor.link and supervisor.link.greeted, here)
    supervisor.finish(5)


def test_a_failed_start_is_tried_again(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BACKOFF", 0.0)
    supervisor = Supervisor(here, ["/nonexistent"])
    before = len(os.listdir("/proc/self/fd"))
    here.loop.call_at(0.0, supervisor._again)
    until(lambda: here.faults >= 2, here)
    assert len(os.listdir("/proc/self/fd")) == before
    supervisor.stopping = True


def test_finish_lets_the_child_end_by_itself(here: World) -> None:
    with Child(here, WAITS) as supervisor:
        until(lambda: supervisor.link and supervisor.link.greeted, here)
        child, began = supervisor._child, time.monotonic()
        supervisor.finish(10)
        assert time.monotonic() - began < 5
        assert child is not None
        assert child.returncode == 0


def test_finish_kills_a_child_that_does_not_end(here: World) -> None:
    with Child(here, GREETS + "time.sleep(60)") as supervisor:
        until(lambda: supervisor.link and supervisor.link.greeted, here)
        child = supervisor._child
        supervisor.finish(0.2)
        assert child is not None
        assert child.returncode == -9


def test_finish_without_a_child_is_nothing(here: World) -> None:
    Supervisor(here, ["/nonexistent"]).finish(1)


def test_a_child_that_hangs_after_its_hello_is_replaced(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with Child(here, WAITS) as supervisor:
        until(lambda: supervisor.link and supervisor.link.greeted, here)
        supervisor._report()
        assert supervisor.restarts == 0
        monkeypatch.setattr(ControlLink, "stalled", STALL + 1)
        until(lambda: supervisor.restarts == 1, here)
