"""The proxy's ZDS client against a scripted agent, over real SOCK_SEQPACKET sockets with real netns descriptors."""

import array
import itertools
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ztunnel.state.model import WorkloadInfo
from ztunnel.zds import client as module
from ztunnel.zds.client import ZdsClient
from ztunnel.zds.codec import Add, Del, Keep, Request, Snapshot, encode_request
from ztunnel.zds.errors import ProxyStartError

INFO = WorkloadInfo("p", "ns", "sa")
OK = b"\x0a\x00"


class Handler:
    """Pretends to serve pods. ``broken``: uids that fail to start."""

    def __init__(self) -> None:
        self.pods: dict[str, tuple[int, int]] = {}
        self.broken: set[str] = set()
        self.log: list[str] = []

    async def add(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        await trio.lowlevel.checkpoint()
        found = os.fstat(netns)
        self.log.append(f"add {uid}")
        if uid in self.broken:
            raise ProxyStartError("port 15008 is taken")
        self.pods[uid] = (found.st_dev, found.st_ino)

    async def delete(self, uid: str) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"delete {uid}")
        self.pods.pop(uid, None)

    def held(self) -> Mapping[str, tuple[int, int]]:
        return self.pods

    async def retain(self, uids: frozenset[str]) -> None:
        await trio.lowlevel.checkpoint()
        for uid in self.pods.keys() - uids:
            await self.delete(uid)


class Agent:
    """The other end, driven by the test."""

    def __init__(self, path: str) -> None:
        self._listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.path = path
        self.peer: trio.socket.SocketType | None = None

    async def open(self) -> None:
        await self._listener.bind(self.path)
        self._listener.listen(4)

    async def accept(self) -> bytes:
        if self.peer is not None:
            self.peer.close()
        self.peer, _ = await self._listener.accept()
        return await self.peer.recv(1024)

    async def raw(self, packet: bytes, fds: list[int]) -> bytes:
        assert self.peer is not None
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
        await self.peer.sendmsg([packet], control)
        try:
            return await self.peer.recv(1024)
        except ConnectionResetError:
            return b""

    async def says(self, request: Request, *paths: str) -> bytes:
        fds = [os.open(p, os.O_RDONLY) for p in paths]
        try:
            return await self.raw(encode_request(request), fds)
        finally:
            for fd in fds:
                os.close(fd)

    def close(self) -> None:
        self._listener.close()
        if self.peer is not None:
            self.peer.close()


NETNS = "/proc/self/ns/net"


def descriptors() -> set[str]:
    """What is open, except what the event loop itself opens when it first needs it."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue
    return found


@asynccontextmanager
async def dialogue(tmp_path: Path) -> AsyncIterator[tuple[Agent, Handler, ZdsClient]]:
    before = descriptors()
    agent, handler = Agent(str(tmp_path / "s")), Handler()
    client = ZdsClient(agent.path, handler, lambda: 0.5)
    await agent.open()
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run)
                assert await agent.accept() == b"\x08\x01"
                yield agent, handler, client
                nursery.cancel_scope.cancel()
    finally:
        agent.close()
    assert descriptors() == before


async def test_add_snapshot_delete(tmp_path: Path) -> None:
    async with dialogue(tmp_path) as (agent, handler, client):
        assert await agent.says(Add("a", INFO), NETNS) == OK
        assert client.connected
        assert not client.ready
        assert await agent.says(Snapshot()) == OK
        assert await agent.says(Add("b", INFO), NETNS) == OK
        assert client.ready
        assert sorted(handler.pods) == ["a", "b"]
        netns = os.stat(NETNS)
        assert handler.pods["a"] == (netns.st_dev, netns.st_ino)
        assert await agent.says(Add("a", INFO), NETNS) == OK
        assert handler.log.count("add a") == 1
        assert await agent.says(Del("a")) == OK
        assert sorted(handler.pods) == ["b"]


async def test_what_the_snapshot_does_not_name_is_stopped_and_reconnect_is_quick(tmp_path: Path) -> None:
    async with dialogue(tmp_path) as (agent, handler, client):
        for uid in ("a", "b", "c"):
            assert await agent.says(Add(uid, INFO), NETNS) == OK
        assert await agent.says(Snapshot()) == OK
        with trio.fail_after(1):
            assert await agent.accept() == b"\x08\x01"
        assert sorted(handler.pods) == ["a", "b", "c"]
        assert not client.ready
        assert await agent.says(Add("a", INFO), NETNS) == OK
        assert await agent.says(Keep("b")) == OK
        assert await agent.says(Snapshot()) == OK
        assert sorted(handler.pods) == ["a", "b"]
        assert handler.log.count("add a") == 1


async def test_failed_add_is_refused_kept_and_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.02)
    async with dialogue(tmp_path) as (agent, handler, client):
        handler.broken.add("a")
        assert await agent.says(Add("a", INFO), NETNS) == b"\x0a\x15\x0a\x13port 15008 is taken"
        assert await agent.says(Snapshot()) == OK
        assert not client.ready
        assert client.pending == {"a": "port 15008 is taken"}
        handler.broken.clear()
        with trio.fail_after(5):
            while not client.ready:  # noqa: ASYNC110 - the retry is on the wall clock, sockets are real
                await trio.sleep(0.01)
        assert list(handler.pods) == ["a"]


async def test_failed_add_then_deleted_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.02)
    async with dialogue(tmp_path) as (agent, handler, client):
        handler.broken.add("a")
        assert b"15008" in await agent.says(Add("a", INFO), NETNS)
        assert await agent.says(Del("a")) == OK
        assert client.pending == {}
        tries = handler.log.count("add a")
        await trio.sleep(0.1)
        assert handler.log.count("add a") == tries


async def test_pending_that_the_next_snapshot_does_not_name_is_dropped(tmp_path: Path) -> None:
    async with dialogue(tmp_path) as (agent, handler, client):
        handler.broken.add("a")
        assert b"15008" in await agent.says(Add("a", INFO), NETNS)
        await agent.accept()
        assert client.pending
        assert await agent.says(Snapshot()) == OK
        assert client.pending == {}


async def test_pending_then_added_again(tmp_path: Path) -> None:
    async with dialogue(tmp_path) as (agent, handler, client):
        handler.broken.add("a")
        assert b"15008" in await agent.says(Add("a", INFO), NETNS)
        handler.broken.clear()
        assert await agent.says(Add("a", INFO), NETNS) == OK
        assert client.pending == {}


async def test_a_pod_that_hangs_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT", 0.05)
    async with dialogue(tmp_path) as (agent, handler, client):

        async def hang(*_: object) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(handler, "add", hang)
        assert b"was not started within" in await agent.says(Add("a", INFO), NETNS)
        assert list(client.pending) == ["a"]


async def test_a_descriptor_that_is_no_netns_refuses_that_pod_alone(tmp_path: Path) -> None:
    async with dialogue(tmp_path) as (agent, handler, _):
        for wrong in ("/dev/null", "/proc/self/ns/mnt"):
            assert b"not a network namespace" in await agent.says(Add("a", INFO), wrong)
        assert await agent.says(Add("b", INFO), NETNS) == OK
        assert list(handler.pods) == ["b"]


@pytest.mark.parametrize(
    ("packet", "fds", "answer"),
    [
        (b"", 1, b""),
        (b"\xff\xff", 0, b"not well formed"),
        (b"\x32\x00", 0, b"does not know"),
        (encode_request(Add("a", INFO)), 0, b"0 descriptors"),
        (encode_request(Add("a", INFO)), 2, b"2 descriptors"),
        (encode_request(Snapshot()), 1, b"1 descriptors"),
        (b"\x1a\x00" * 600, 1, b""),
        (encode_request(Add("a", INFO)), 40, b""),
    ],
)
async def test_broken_packets_end_the_connection_alone(tmp_path: Path, packet: bytes, fds: int, answer: bytes) -> None:
    async with dialogue(tmp_path) as (agent, handler, _):
        assert await agent.says(Add("good", INFO), NETNS) == OK
        netns = os.open(NETNS, os.O_RDONLY)
        try:
            assert answer in await agent.raw(packet, [netns] * fds)
        finally:
            os.close(netns)
        with trio.fail_after(5):
            assert await agent.accept() == b"\x08\x01"
        assert list(handler.pods) == ["good"]
        assert await agent.says(Add("next", INFO), NETNS) == OK


async def test_agent_that_is_not_there_is_tried_again_with_growing_pauses(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    client = ZdsClient(str(tmp_path / "none"), Handler(), lambda: 0.5)
    tried: list[float] = []
    connect = module.PacketSocket.connect

    async def counted(path: str) -> module.PacketSocket:
        tried.append(trio.current_time())
        return await connect(path)

    with pytest.MonkeyPatch.context() as patch, trio.move_on_after(120):
        patch.setattr(module.PacketSocket, "connect", counted)
        await client.run()
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(tried)]
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert max(pauses) == 15
    assert not client.connected
