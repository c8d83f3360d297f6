"""Pods between the node agent and the data plane: every ask has its answer, even one nobody waits for any more."""

import os

import pytest
import trio
import trio.testing

from ztunnel.control.pods import Pods
from ztunnel.link.messages import AddProxy, DelProxy, DownMessage, HeldProxy, ProxyFailed, ProxyStarted, ProxyStopped
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.errors import ProxyStartError

INFO = WorkloadInfo("pod", "default", "account")
OTHER = WorkloadInfo("pod", "default", "other")


class Link:
    """Keeps what is posted, and closes what came with it."""

    def __init__(self) -> None:
        self.posted: list[DownMessage] = []

    def post(self, message: DownMessage, fd: int = -1) -> None:
        self.posted.append(message)
        if fd >= 0:
            os.close(fd)


class Setting:
    def __init__(self) -> None:
        self.link = Link()
        self.changes = 0
        self.pods = Pods(self.link, self._changed)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1

    async def add(self, info: WorkloadInfo = INFO) -> None:
        await self.pods.add("uid", info, 0)


async def test_a_pod_is_held_once_the_data_plane_says_so(nursery: trio.Nursery) -> None:
    it = Setting()
    nursery.start_soon(it.add)
    await trio.testing.wait_all_tasks_blocked()
    assert it.link.posted == [AddProxy("uid", INFO)]
    assert not it.pods.held()
    it.pods.answered(ProxyStarted("uid", (4, 5)))
    assert it.pods.held() == {"uid": (4, 5)}
    assert it.pods.infos() == {"uid": INFO}
    assert (it.pods.started, it.changes) == (1, 1)


async def test_a_failure_is_raised_with_the_data_planes_words() -> None:
    it = Setting()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ProxyStartError, match="port 15001"):
                await it.add()

        await trio.testing.wait_all_tasks_blocked()
        it.pods.answered(ProxyFailed("uid", "port 15001 is taken"))
    assert not it.pods.held()


async def test_an_answer_that_comes_too_late_still_counts() -> None:
    """Else the data plane serves a pod that no later snapshot can remove."""
    it = Setting()
    with trio.move_on_after(0) as scope:
        await it.add()
    assert scope.cancelled_caught
    it.pods.answered(ProxyStarted("uid", (4, 5)))
    assert it.pods.held() == {"uid": (4, 5)}
    assert it.changes == 1


async def test_answers_belong_to_asks_in_order(nursery: trio.Nursery) -> None:
    it = Setting()
    with trio.move_on_after(0):
        await it.add()
    nursery.start_soon(it.add, OTHER)
    await trio.testing.wait_all_tasks_blocked()
    it.pods.answered(ProxyFailed("uid", "the first one's"))
    await trio.testing.wait_all_tasks_blocked()
    it.pods.answered(ProxyStarted("uid", (4, 5)))
    assert it.pods.infos() == {"uid": OTHER}
    it.pods.answered(ProxyStarted("uid", (6, 7)))  # nobody asked
    assert it.pods.held() == {"uid": (4, 5)}


async def test_a_pod_deleted_while_it_starts_is_not_held() -> None:
    it = Setting()
    with trio.move_on_after(0):
        await it.add()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.pods.delete, "uid")
        await trio.testing.wait_all_tasks_blocked()
        it.pods.answered(ProxyStarted("uid", (4, 5)))
        it.pods.answered(ProxyStopped("uid"))
    assert it.link.posted == [AddProxy("uid", INFO), DelProxy("uid")]
    assert not it.pods.held()
    assert not it.pods.infos()


async def test_delete_waits_until_its_connections_have_ended() -> None:
    it = Setting()
    it.pods.adopt((HeldProxy("uid", INFO, (4, 5)),))
    done = trio.Event()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await it.pods.delete("uid")
            done.set()

        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        it.pods.answered(ProxyStopped("uid"))
    assert done.is_set()
    assert it.pods.stopped == 1


async def test_retain_deletes_the_others() -> None:
    it = Setting()
    it.pods.adopt(tuple(HeldProxy(uid, INFO, (4, 5)) for uid in ("a", "b", "c")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.pods.retain, frozenset({"b", "unknown"}))
        for uid in ("a", "c"):
            await trio.testing.wait_all_tasks_blocked()
            assert it.link.posted[-1] == DelProxy(uid)
            it.pods.answered(ProxyStopped(uid))
    assert set(it.pods.held()) == {"b"}
