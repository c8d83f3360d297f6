"""The agent's ZDS server: with our own client, and with peers that are driven packet by packet."""

import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ambient.node import zds_server as module
from ambient.node.errors import AgentSocketError, EnrolError
from ambient.node.zds_server import ZdsServer
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.client import ZdsClient
from ztunnel.zds.codec import Add, Del, Keep, Request, Snapshot, decode_request, encode_response
from ztunnel.zds.seqpacket import PacketSocket

INFO = WorkloadInfo("p", "ns", "sa")


class Proxy:
    """A proxy driven by the test. Counts descriptors it got and closes them."""

    def __init__(self, link: PacketSocket) -> None:
        self.link = link

    @classmethod
    async def join(cls, path: Path, hello: bytes = b"\x08\x01") -> "Proxy":
        link = await PacketSocket.connect(str(path))
        await link.send(hello)
        return cls(link)

    async def next(self, answer: str | None = "") -> Request | None:
        with trio.fail_after(5):
            packet = await self.link.receive()
        with packet:
            if not packet.data:
                return None
            request = decode_request(packet.data)
            assert len(packet.fds) == isinstance(request, Add)
            if packet.fds:
                assert os.path.samestat(os.fstat(packet.fds[0]), os.stat("/proc/self/ns/net"))
        if answer is not None:
            await self.link.send(encode_response(answer))
        return request

    def leave(self) -> None:
        self.link.close()


@pytest.fixture
def netns() -> Iterator[int]:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    yield fd
    os.close(fd)


@asynccontextmanager
async def serving(path: Path, monkeypatch: pytest.MonkeyPatch, deadline: float = 2) -> AsyncIterator[ZdsServer]:
    monkeypatch.setattr(module, "ACCEPT_INTERVAL", 0)
    server = ZdsServer(str(path), deadline)
    before = len(os.listdir("/proc/self/fd"))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            yield server
            nursery.cancel_scope.cancel()
    assert len(os.listdir("/proc/self/fd")) == before


async def connected(server: ZdsServer, count: int) -> None:
    while server.connections != count:  # noqa: ASYNC110 - real sockets, no event to wait for
        await trio.sleep(0.005)


async def test_snapshot_live_add_and_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        with pytest.raises(EnrolError, match="no ztunnel is connected") as caught:
            await server.add("a", INFO, netns)
        assert caught.value.retryable
        server.keep("k")
        proxy = await Proxy.join(tmp_path / "s")
        assert [await proxy.next() for _ in range(3)] == [Add("a", INFO), Keep("k"), Snapshot()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.add, "b", INFO, netns)
            assert await proxy.next() == Add("b", INFO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.remove, "a")
            assert await proxy.next() == Del("a")
        await server.add("b", INFO, netns)  # taken already: no message
        proxy.leave()


async def test_held_proxies_get_their_snapshot_only_when_it_is_complete(tmp_path: Path, netns: int) -> None:
    server = ZdsServer(str(tmp_path / "s"), hold=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        proxy = await Proxy.join(tmp_path / "s")
        await trio.testing.wait_all_tasks_blocked()
        for uid in ("a", "b"):
            with pytest.raises(EnrolError):
                await server.add(uid, INFO, netns)
        assert server.connections == 0
        server.release()
        assert [await proxy.next() for _ in range(3)] == [Add("a", INFO), Add("b", INFO), Snapshot()]
        proxy.leave()
        nursery.cancel_scope.cancel()


async def test_refusal_is_an_error_with_the_proxys_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        proxy = await Proxy.join(tmp_path / "s")
        assert await proxy.next() == Snapshot()
        async with trio.open_nursery() as nursery:

            async def add() -> None:
                with pytest.raises(EnrolError, match="port 15008 is taken"):
                    await server.add("a", INFO, netns)

            nursery.start_soon(add)
            assert await proxy.next("port 15008 is taken") == Add("a", INFO)
        proxy.leave()


async def test_no_answer_in_time_ends_that_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int) -> None:
    async with serving(tmp_path / "s", monkeypatch, deadline=0.05) as server:
        proxy = await Proxy.join(tmp_path / "s")
        assert await proxy.next() == Snapshot()
        with pytest.raises(EnrolError, match="no answer within"):
            await server.add("a", INFO, netns)
        assert await proxy.next(None) == Add("a", INFO)
        assert await proxy.next() is None
        again = await Proxy.join(tmp_path / "s")
        assert await again.next() == Add("a", INFO)
        assert await again.next() == Snapshot()
        again.leave()
        proxy.leave()


async def test_newest_gets_adds_all_get_deletes_and_an_older_leaving_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int
) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        proxies = []
        for count in (1, 2, 3):
            proxies.append(await Proxy.join(tmp_path / "s"))
            assert await proxies[-1].next() == Snapshot()
            await connected(server, count)
        first, second, third = proxies
        first.leave()
        await connected(server, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.add, "a", INFO, netns)
            assert await third.next() == Add("a", INFO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.remove, "a")
            assert await second.next() == Del("a")
            assert await third.next() == Del("a")
        third.leave()
        await connected(server, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.add, "b", INFO, netns)
            assert await second.next() == Add("b", INFO)
        second.leave()


async def test_when_the_newest_leaves_the_older_is_given_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int
) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        old = await Proxy.join(tmp_path / "s")
        assert await old.next() == Snapshot()
        new = await Proxy.join(tmp_path / "s")
        assert await new.next() == Snapshot()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.add, "a", INFO, netns)
            assert await new.next() == Add("a", INFO)
        new.leave()
        assert await old.next() == Add("a", INFO)
        old.leave()


async def test_a_pod_deleted_while_the_snapshot_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        for uid in ("a", "b"):
            with pytest.raises(EnrolError):
                await server.add(uid, INFO, netns)
        proxy = await Proxy.join(tmp_path / "s")
        assert await proxy.next(None) == Add("a", INFO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.remove, "b")
            await trio.testing.wait_all_tasks_blocked()
            await proxy.link.send(encode_response())
            rest = [await proxy.next(), await proxy.next()]
        assert Del("b") in rest
        assert Snapshot() in rest
        proxy.leave()


@pytest.mark.parametrize("hello", [b"\x08\x02", b"\xff", b"\x08\x00", b"x" * 1024])
async def test_wrong_hello_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hello: bytes) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        proxy = await Proxy.join(tmp_path / "s", hello)
        assert await proxy.next() is None
        assert server.connections == 0
        proxy.leave()


async def test_silence_and_unasked_answers_are_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path / "s", monkeypatch, deadline=0.05) as server:
        silent = await PacketSocket.connect(str(tmp_path / "s"))
        with await silent.receive() as packet:
            assert packet.data == b""
        silent.close()
        chatty = await Proxy.join(tmp_path / "s")
        assert await chatty.next() == Snapshot()
        await chatty.link.send(encode_response())
        assert await chatty.next() is None
        chatty.leave()
        await connected(server, 0)


async def test_too_many_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    async with serving(tmp_path / "s", monkeypatch) as server:
        one = await Proxy.join(tmp_path / "s")
        assert await one.next() == Snapshot()
        two = await PacketSocket.connect(str(tmp_path / "s"))
        with await two.receive() as packet:
            assert packet.data == b""
        assert server.connections == 1
        two.close()
        one.leave()


async def test_names_too_long_for_a_packet_are_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int
) -> None:
    async with serving(tmp_path / "s", monkeypatch) as server:
        with pytest.raises(EnrolError, match="1024") as caught:
            await server.add("u" * 1100, INFO, netns)
        assert not caught.value.retryable
        proxy = await Proxy.join(tmp_path / "s")
        assert await proxy.next() == Snapshot()
        proxy.leave()


async def test_socket_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "s"
    async with serving(path, monkeypatch):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(AgentSocketError, match="another agent"):
            await ZdsServer(str(path)).serve()
        assert os.listdir(path.parent) == ["s"]
    assert not path.exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    async with serving(path, monkeypatch):
        (await Proxy.join(path)).leave()
    path.write_text("precious")
    with pytest.raises(AgentSocketError, match="no socket"):
        await ZdsServer(str(path)).serve()
    assert path.read_text() == "precious"
    with pytest.raises(AgentSocketError, match="longer"):
        await ZdsServer(f"{tmp_path}/{'x' * 120}").serve()


class Served:
    """A handler that serves anything."""

    def __init__(self) -> None:
        self.pods: dict[str, tuple[int, int]] = {}

    async def add(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        await trio.lowlevel.checkpoint()
        self.pods[uid] = (os.fstat(netns).st_dev, os.fstat(netns).st_ino)

    async def delete(self, uid: str) -> None:
        await trio.lowlevel.checkpoint()
        self.pods.pop(uid, None)

    def held(self) -> Mapping[str, tuple[int, int]]:
        return self.pods

    async def retain(self, uids: frozenset[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.pods = {uid: pod for uid, pod in self.pods.items() if uid in uids}


async def test_with_our_own_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: int) -> None:
    handler = Served()
    client = ZdsClient(str(tmp_path / "s"), handler, lambda: 0.5)
    async with serving(tmp_path / "s", monkeypatch) as server, trio.open_nursery() as nursery:
        with pytest.raises(EnrolError):
            await server.add("a", INFO, netns)
        nursery.start_soon(client.run)
        while not client.ready:  # noqa: ASYNC110
            await trio.sleep(0.005)
        assert list(handler.pods) == ["a"]
        await server.add("b", INFO, netns)
        await server.remove("a")
        assert list(handler.pods) == ["b"]
        nursery.cancel_scope.cancel()
