"""The pods the data plane serves, as the ZDS client's handler: each Add waits for the data plane's word."""

import os
from collections.abc import Callable, Mapping

import trio

from ztunnel.control.link import DataLink
from ztunnel.link.messages import AddProxy, DelProxy, HeldProxy, ProxyFailed, ProxyStarted, ProxyStopped
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.errors import ProxyStartError

__all__ = ["Pods"]


class Pods:
    """``on_change`` is called when the set of pods changes."""

    def __init__(self, link: DataLink, on_change: Callable[[], None]) -> None:
        self._link = link
        self._on_change = on_change
        self._held: dict[str, tuple[int, int]] = {}
        self._infos: dict[str, WorkloadInfo] = {}
        self._waiting: dict[str, _Answer] = {}
        self._stopping: dict[str, trio.Event] = {}
        self.started = 0
        self.stopped = 0

    def adopt(self, proxies: tuple[HeldProxy, ...]) -> None:
        """What the data plane holds from before this process."""
        for proxy in proxies:
            self._held[proxy.uid] = proxy.netns
            self._infos[proxy.uid] = proxy.info
        self._on_change()

    def infos(self) -> Mapping[str, WorkloadInfo]:
        """Pods that are served."""
        return self._infos

    def held(self) -> Mapping[str, tuple[int, int]]:
        """(device, inode) of each pod's netns."""
        return self._held

    async def add(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        """Serve a pod. Raises ProxyStartError."""
        answer = self._waiting[uid] = _Answer()
        self._link.post(AddProxy(uid, info), os.dup(netns))
        try:
            await answer.event.wait()
        finally:
            if self._waiting.get(uid) is answer:
                del self._waiting[uid]
        if answer.error:
            raise ProxyStartError(answer.error)
        self._held[uid] = answer.netns
        self._infos[uid] = info
        self.started += 1
        self._on_change()

    async def delete(self, uid: str) -> None:
        """Stop serving a pod; when this returns its connections have ended: only then may its capture rules go."""
        ended = self._stopping.setdefault(uid, trio.Event())
        self._link.post(DelProxy(uid))
        if self._held.pop(uid, None) is not None:
            self._infos.pop(uid, None)
            self.stopped += 1
            self._on_change()
        await ended.wait()

    async def retain(self, uids: frozenset[str]) -> None:
        """Stop serving all others."""
        for uid in [u for u in self._held if u not in uids]:
            await self.delete(uid)

    def answered(self, message: ProxyStarted | ProxyFailed | ProxyStopped) -> None:
        """The data plane's word."""
        if isinstance(message, ProxyStopped):
            ended = self._stopping.pop(message.uid, None)
            if ended is not None:
                ended.set()
            return
        answer = self._waiting.get(message.uid)
        if answer is None:
            return
        if isinstance(message, ProxyStarted):
            answer.netns = message.netns
        else:
            answer.error = message.error
        answer.event.set()


class _Answer:
    def __init__(self) -> None:
        self.event = trio.Event()
        self.error = ""
        self.netns = (0, 0)
