"""The control half as our child: started, watched by pidfd, started again when it dies."""

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.control_link import ControlLink
from ztunnel.dataplane.loop import IN

if TYPE_CHECKING:
    from ztunnel.dataplane.world import World

__all__ = ["Supervisor"]

FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 5.0
STALL: Final = 30.0
"""Seconds without reading its link after which a control half hangs: gauges alone are sent every second."""
STABLE: Final = 10.0
"""Seconds alive after which the next death counts as the first again."""
GREETING: Final = 30.0
"""Seconds within which a control half must say hello: it imports much, and a node that starts is busy."""


class Supervisor:
    """Keeps one control half running; the data plane goes on with what it knows while there is none."""

    def __init__(self, world: "World", command: list[str] | None = None) -> None:
        self._world = world
        self._command = command or [sys.executable, "-m", "ztunnel.control"]
        self._child: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._theirs: socket.socket | None = None
        self._backoff = FIRST_BACKOFF
        self._started = 0.0
        self.restarts = 0
        self.stopping = False
        self.link: ControlLink | None = None
        world.loop.every(0.1, self._report)
        world.loop.every(1.0, self._count)

    def start(self) -> None:
        """Start a control half."""
        world = self._world
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        world.netns.enter(world.netns.home)
        try:
            self._child = subprocess.Popen(
                [*self._command, "--link-fd", str(theirs.fileno())], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
            )
        except BaseException:
            ours.close()
            theirs.close()
            raise
        # The child's end stays open here too: what a child did not read before it died is read back from it.
        self._theirs = theirs
        self._started = world.loop.now
        try:
            self._pidfd = os.pidfd_open(self._child.pid)
            world.loop.add(self._pidfd, IN, self._on_exit)
        except OSError:  # no descriptor left: a child whose end we would not see must not be there
            ours.close()
            self._abandon(self._child)
            raise
        self.link = ControlLink(world, ours)

    def _abandon(self, child: "subprocess.Popen[bytes]") -> None:
        child.kill()
        child.wait()
        self._child = None
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self, _: int) -> None:
        world = self._world
        world.loop.remove(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        child = self._child
        status = child.wait() if child is not None else 0
        self._child = None
        if self.link is not None:
            self.link.close()
            self.link.recover(self._theirs)
            self.link = None
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None
        if self.stopping:
            return
        self.restarts += 1
        if world.loop.now - self._started > STABLE:
            self._backoff = FIRST_BACKOFF
        print(f"ztunnel: the control half ended with status {status}; restarting in {self._backoff:.1f} s", file=sys.stderr)  # noqa: T201
        world.loop.call_at(world.loop.now + self._backoff, self._again)
        self._backoff = min(self._backoff * 2, MAX_BACKOFF)

    def _again(self) -> None:
        if not self.stopping and self._child is None:
            self.start()

    def _report(self) -> None:
        link = self.link
        if link is not None:
            link.report()
            silent = not link.greeted and self._world.loop.now - self._started > GREETING
            if (silent or link.stalled > STALL or not link.alive) and self._child is not None:
                self._child.kill()  # it hangs, or the link broke alone: start over

    def _count(self) -> None:
        if self.link is not None:
            self.link.count()

    def finish(self, seconds: float) -> None:
        """Let the control half write what it has and end; at most ``seconds``, then it is killed."""
        self.stopping = True
        child = self._child
        if self.link is not None:
            self.link.hang_up(seconds / 2)
        if child is None:
            return
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        self._world.loop.remove(self._pidfd)
        self._abandon(child)

    def fail(self, error: Exception) -> None:
        """Starting failed (fork, descriptors): try again later."""
        self._world.loop.call_at(self._world.loop.now + MAX_BACKOFF, self._again)
