"""The control half's end of the link: order, waiting, and descriptors that are closed whatever happens."""

import os
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from ztunnel.control.link import MAX_QUEUED, DataLink, LinkEnded
from ztunnel.link import messages as m
from ztunnel.state.model import WorkloadInfo

INFO = WorkloadInfo("pod", "default", "account")


class Ends:
    def __init__(self) -> None:
        self.plane, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.plane.setblocking(False)
        self.link = DataLink(ours.detach())

    def heard(self) -> list[m.DownMessage]:
        out: list[m.DownMessage] = []
        while True:
            try:
                out += m.decode_down(self.plane.recv(m.MAX_PACKET))
            except BlockingIOError:
                return out


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.plane.close()
    made.link._sock.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_posted_and_sent_arrive_in_order(ends: Ends, nursery: trio.Nursery) -> None:
    ends.link.post(m.DelProxy("a"))
    await ends.link.send((m.DelProxy("b"), m.DelProxy("c")))
    nursery.start_soon(ends.link.run)
    ends.link.post(m.DelProxy("d"))
    await trio.testing.wait_all_tasks_blocked()
    assert ends.heard() == [m.DelProxy(uid) for uid in "abcd"]
    nursery.cancel_scope.cancel()


async def test_a_descriptor_travels_and_is_closed_here(ends: Ends, nursery: trio.Nursery) -> None:
    before = open_descriptors()
    ends.link.post(m.AddProxy("a", INFO), os.open("/dev/null", os.O_RDONLY))
    nursery.start_soon(ends.link.run)
    await trio.testing.wait_all_tasks_blocked()
    assert open_descriptors() == before
    packet, fds, _, _ = socket.recv_fds(ends.plane, m.MAX_PACKET, 4)
    assert m.decode_down(packet) == (m.AddProxy("a", INFO),)
    assert len(fds) == 1
    os.close(fds[0])
    nursery.cancel_scope.cancel()


async def test_descriptors_that_were_not_sent_are_closed(ends: Ends) -> None:
    before = open_descriptors()
    for _ in range(3):
        ends.link.post(m.AddProxy("a", INFO), os.open("/dev/null", os.O_RDONLY))
    ends.plane.close()
    with pytest.raises(LinkEnded):
        await ends.link.run()
    assert open_descriptors() == before - 1
    ends.link.post(m.AddProxy("late", INFO), os.open("/dev/null", os.O_RDONLY))
    assert open_descriptors() == before - 1


async def test_send_waits_while_much_is_queued(ends: Ends, nursery: trio.Nursery) -> None:
    for _ in range(MAX_QUEUED):
        await ends.link.send((m.DelProxy("x"),))
    done = trio.Event()

    @nursery.start_soon
    async def _() -> None:
        await ends.link.send((m.DelProxy("last"),))
        done.set()

    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    nursery.start_soon(ends.link.run)
    await trio.testing.wait_all_tasks_blocked()
    assert done.is_set()
    assert ends.heard()[-1] == m.DelProxy("last")
    nursery.cancel_scope.cancel()


async def test_messages_come_until_the_end(ends: Ends) -> None:
    ends.plane.send(m.encode([m.ProxyStopped("a"), m.ProxyStopped("b")]))
    ends.plane.send(m.encode([m.Drained()]))
    ends.plane.shutdown(socket.SHUT_RDWR)
    got: list[m.UpMessage] = []
    messages = ends.link.messages()
    while len(got) < 3:
        got.append(await anext(messages))
    with pytest.raises(LinkEnded):
        await anext(messages)
    assert got == [m.ProxyStopped("a"), m.ProxyStopped("b"), m.Drained()]


@pytest.mark.parametrize("packet", [b"\xc1", b"\x91\x92\xacProxyStopped\xa1\xff", m.encode([m.DelProxy("a")])])
async def test_what_cannot_be_read_ends_the_link(ends: Ends, packet: bytes) -> None:
    ends.plane.send(packet)
    with pytest.raises(LinkEnded):
        await anext(ends.link.messages())
