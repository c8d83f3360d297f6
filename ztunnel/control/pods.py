"""The pods the data plane serves, as the ZDS client's handler: each Add waits for the data plane's word."""

import os
from collections import deque
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
        self._asked: dict[str, deque[_Answer]] = {}
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
        answer = _Answer(info)
        self._link.post(AddProxy(uid, info), os.dup(netns))
        self._asked.setdefault(uid, deque()).append(answer)
        await answer.event.wait()  # whoever gives up waiting: the answer still comes, and counts
        if answer.error:
            raise ProxyStartError(answer.error)

    async def delete(self, uid: str) -> None:
        """Stop serving a pod; when this returns its connections have ended: only then may its capture rules go."""
        ended = self._stopping.setdefault(uid, trio.Event())
        self._link.post(DelProxy(uid))
        for answer in self._asked.get(uid, ()):
            answer.dropped = True
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
        asked = self._asked.get(message.uid)
        if asked is None:
            return
        answer = asked.popleft()  # one for each AddProxy, in order
        if not asked:
            del self._asked[message.uid]
        if isinstance(message, ProxyFailed):
            answer.error = message.error
        elif not answer.dropped:
            self._held[message.uid] = message.netns
            self._infos[message.uid] = answer.info
            self.started += 1
            self._on_change()
        answer.event.set()


class _Answer:
    """The data plane's, to come. ``dropped``: the pod was deleted meanwhile, and will be there too."""

    def __init__(self, info: WorkloadInfo) -> None:
        self.info = info
        self.event = trio.Event()
        self.error = ""
        self.dropped = False
