"""Enrolment: rules before the proxy, nothing half done, pending pods tried again."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ambient.node import enrol as module
from ambient.node import zds_server
from ambient.node.enrol import Enroller, PodState
from ambient.node.errors import EnrolError
from ambient.node.zds_server import ZdsServer
from capture.errors import BackendUnusableError, CaptureError, CaptureFailedError
from capture.rules import CaptureConfig
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.codec import Add, Del, Request, Snapshot, decode_request, encode_response
from ztunnel.zds.seqpacket import PacketSocket

INFO = WorkloadInfo("p", "ns", "sa")
NETNS = "/proc/self/ns/net"


class Rules:
    """Capture that only notes; ``error`` is raised while it is set."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.error: CaptureError | None = None

    def apply(self, netns: str, config: CaptureConfig) -> None:
        self.log.append("rules")
        if self.error:
            raise self.error

    def remove(self, netns: str, config: CaptureConfig) -> None:
        self.log.append("no rules")
        if self.error:
            raise self.error


class Stage:
    """An enroller between noted rules and a scripted proxy."""

    def __init__(self, path: Path) -> None:
        self.log: list[str] = []
        self.events: list[tuple[str, PodState, str]] = []
        self.refuse = ""
        self.path = path
        self.rules = Rules(self.log)
        self.server = ZdsServer(str(path), 2)
        self.enroller = Enroller(self.server, self.rules, lambda *event: self.events.append(event))

    async def proxy(self, task_status: trio.TaskStatus[None]) -> None:
        link = await PacketSocket.connect(str(self.path))
        try:
            await link.send(b"\x08\x01")
            while True:
                with await link.receive() as packet:
                    request: Request = decode_request(packet.data)
                match request:
                    case Add():
                        self.log.append("proxy add")
                        await link.send(encode_response(self.refuse))
                    case Del():
                        self.log.append("proxy del")
                        await link.send(encode_response())
                    case _:
                        await link.send(encode_response())
                if isinstance(request, Snapshot):
                    task_status.started()
        finally:
            link.close()


@asynccontextmanager
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stage, trio.Nursery]]:
    monkeypatch.setattr(zds_server, "ACCEPT_INTERVAL", 0)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)
    made = Stage(tmp_path / "s")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.server.serve)
            nursery.start_soon(made.enroller.run)
            yield made, nursery
            nursery.cancel_scope.cancel()


async def becomes(made: Stage, uid: str, state: PodState) -> None:
    while made.enroller.pods[uid][0] is not state:  # noqa: ASYNC110 - real sockets, no event to wait for
        await trio.sleep(0.005)


async def test_rules_then_proxy_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, nursery):
        await nursery.start(s.proxy)
        await s.enroller.enrol("a", INFO, NETNS)
        await s.enroller.withdraw("a")
        assert s.log == ["rules", "proxy add", "proxy del", "no rules"]
        assert s.events == [("a", PodState.ENROLLED, ""), ("a", PodState.WITHDRAWN, "")]
        assert s.enroller.pods == {}


async def test_rules_that_fail_change_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, nursery):
        await nursery.start(s.proxy)
        s.rules.error = BackendUnusableError("no backend works")
        for _ in range(3):
            with pytest.raises(EnrolError, match="as it was") as caught:
                await s.enroller.enrol("a", INFO, NETNS)
            assert not caught.value.retryable
        assert s.log == ["rules"] * 3
        assert s.enroller.pods == {}
        assert len(s.events) == 1


async def test_a_pod_left_closed_can_be_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, _):
        s.rules.error = CaptureFailedError("half way", closed=True)
        with pytest.raises(EnrolError, match="half way"):
            await s.enroller.enrol("a", INFO, NETNS)
        assert s.enroller.pods["a"][0] is PodState.FAILED
        s.rules.error = None
        await s.enroller.withdraw("a")
        assert s.log == ["rules", "no rules"]


async def test_pending_until_a_proxy_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, nursery):
        with pytest.raises(EnrolError, match="no ztunnel") as caught:
            await s.enroller.enrol("a", INFO, NETNS)
        assert caught.value.retryable
        assert s.enroller.pods["a"][0] is PodState.PENDING
        await nursery.start(s.proxy)
        await becomes(s, "a", PodState.ENROLLED)
        assert s.log == ["rules", "proxy add"]
        assert [state for _, state, _ in s.events] == [PodState.PENDING, PodState.ENROLLED]


async def test_refused_by_the_proxy_then_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, nursery):
        await nursery.start(s.proxy)
        s.refuse = "port 15008 is taken"
        with pytest.raises(EnrolError, match="port 15008 is taken"):
            await s.enroller.enrol("a", INFO, NETNS)
        s.refuse = ""
        await becomes(s, "a", PodState.ENROLLED)


async def test_rules_that_cannot_be_removed_keep_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, nursery):
        await nursery.start(s.proxy)
        await s.enroller.enrol("a", INFO, NETNS)
        s.rules.error = CaptureFailedError("busy", closed=False)
        with pytest.raises(EnrolError, match="served again"):
            await s.enroller.withdraw("a")
        await becomes(s, "a", PodState.ENROLLED)
        assert s.log[-3:] == ["proxy del", "no rules", "proxy add"]
        s.rules.error = None
        await s.enroller.withdraw("a")
        assert s.log[-2:] == ["proxy del", "no rules"]


async def test_a_netns_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, monkeypatch) as (s, nursery):
        await nursery.start(s.proxy)
        link = tmp_path / "netns"
        link.symlink_to(NETNS)
        await s.enroller.enrol("a", INFO, str(link))
        os.unlink(link)
        await s.enroller.withdraw("a")
        assert s.log == ["rules", "proxy add", "proxy del"]
