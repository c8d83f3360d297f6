"""The proxy's ZDS client: keeps a connection to the node agent and does what it asks through a handler.

One task of the control half. A pod that cannot be started is refused to the agent, kept with its netns and tried again every
five seconds. Pods that are served go on whatever happens here: a lost connection, a malformed packet or an agent of another
version ends this connection alone (logged, tried again with backoff) and takes readiness away.
"""

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
import trio

from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.codec import encode_hello, encode_response
from ztunnel.zds.errors import ProxyStartError, ZdsError, ZdsProtocolError
from ztunnel.zds.seqpacket import Packet, PacketSocket
from ztunnel.zds.session import Action, NetnsInode, Nothing, Reject, Retain, Start, Stop, ZdsSession

__all__ = ["PodHandler", "ZdsClient"]

RETRY: Final = 5.0
"""Seconds between attempts to start a pod that failed (ztunnel)."""
START_TIMEOUT: Final = 4.0
"""Seconds a pod may take to start: less than the agent's deadline for the answer, 5 s."""
FIRST_BACKOFF: Final = 0.01
MAX_BACKOFF: Final = 15.0
"""Seconds between attempts to connect (ztunnel)."""
NS_GET_NSTYPE: Final = 0xB703
CLONE_NEWNET: Final = 0x40000000
"""ioctl_nsfs(2): tells what kind of namespace a descriptor is."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("ztunnel.zds")


class PodHandler(Protocol):
    """Who serves the pods."""

    async def add(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        """Serve a pod. The descriptor is the caller's: duplicate it to keep it. Raises ProxyStartError."""
        ...

    async def delete(self, uid: str) -> None:
        """Drain and stop serving a pod, which may be unknown."""
        ...

    def held(self) -> Mapping[str, tuple[int, int]]:
        """(device, inode) of the netns of each pod that is served."""
        ...

    async def retain(self, uids: frozenset[str]) -> None:
        """Stop serving every pod that is not in ``uids``."""
        ...


@dataclass(slots=True)
class _Pending:
    """A pod that could not be started; owns its netns descriptor."""

    info: WorkloadInfo
    netns: int
    error: str


class ZdsClient:
    """``random``: [0, 1), for the backoff. ``on_change`` is called when anything that readiness hangs on changes."""

    def __init__(
        self, path: str, handler: PodHandler, random: Callable[[], float], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._path = path
        self._handler = handler
        self._random = random
        self._on_change = on_change
        self._pending: dict[str, _Pending] = {}
        self._infos: dict[str, WorkloadInfo] = {}
        self._work = trio.Lock()
        self.connected = False
        self.synced = False

    @property
    def pending(self) -> dict[str, str]:
        """Pods that could not be started, and why."""
        return {uid: pod.error for uid, pod in self._pending.items()}

    @property
    def ready(self) -> bool:
        """Connected, told everything, and serving all of it."""
        return self.connected and self.synced and not self._pending

    async def run(self) -> None:
        """Until cancelled; then every descriptor is closed."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._retry)
                backoff = FIRST_BACKOFF
                while True:
                    if await self._connection():
                        backoff = FIRST_BACKOFF
                    await trio.sleep(backoff * (0.8 + 0.4 * self._random()))
                    backoff = min(MAX_BACKOFF, backoff * 2)
        finally:
            for uid in list(self._pending):
                self._drop(uid)

    async def _connection(self) -> bool:
        """One connection from beginning to end; whether it was a healthy one, so that the next may follow without delay."""
        try:
            link = await PacketSocket.connect(self._path)
        except ZdsError as error:
            log.debug("agent not reachable", error=str(error), reason=error.reason)
            return False
        session = ZdsSession()
        try:
            await link.send(encode_hello())
            self.connected = True
            self._on_change()
            while True:
                with await link.receive() as packet:
                    if not packet.data:
                        log.info("node agent closed the connection; pods that are served go on")
                        return session.synced
                    await self._request(link, session, packet)
        except ZdsError as error:
            log.warning("connection to the node agent ended; pods that are served go on", error=str(error), reason=error.reason)
            return session.synced and not isinstance(error, ZdsProtocolError)
        finally:
            link.close()
            self.connected = self.synced = False
            self._on_change()

    async def _request(self, link: PacketSocket, session: ZdsSession, packet: Packet) -> None:
        async with self._work:
            try:
                netns = tuple(_netns_of(fd) for fd in packet.fds)
                action = session.received(packet.data, netns, self._handler.held(), self._infos)
            except ZdsProtocolError as error:
                await link.send(encode_response(str(error)))
                raise
            answer = await self._do(action, packet)
        await link.send(encode_response(answer))
        if session.synced and not self.synced:
            self.synced = True
        self._on_change()

    async def _do(self, action: Action, packet: Packet) -> str:
        """Carry ``action`` out; the error to answer with."""
        match action:
            case Start(uid, info, replaces):
                self._drop(uid)
                if replaces:
                    await self._handler.delete(uid)
                    self._infos.pop(uid, None)
                error = await self._start(uid, info, packet.fds[0])
                if error:
                    self._pending[uid] = _Pending(info, packet.take(), error)
                return error
            case Stop(uid):
                self._drop(uid)
                await self._handler.delete(uid)
                self._infos.pop(uid, None)
                return ""
            case Retain(uids):
                for uid in self._pending.keys() - uids:
                    self._drop(uid)
                self._infos = {uid: info for uid, info in self._infos.items() if uid in uids}
                await self._handler.retain(uids)
                return ""
            case Reject(uid, error):
                log.warning("pod refused", uid=uid, error=error)
                return error
            case Nothing():
                return ""

    async def _start(self, uid: str, info: WorkloadInfo, netns: int) -> str:
        if not _is_netns(netns):
            return "the descriptor that came with the pod is not a network namespace"
        try:
            with trio.fail_after(START_TIMEOUT):
                await self._handler.add(uid, info, netns)
        except ProxyStartError as error:
            text = str(error) or "the pod could not be started"
        except trio.TooSlowError:
            text = f"the pod was not started within {START_TIMEOUT:.0f} s"
        else:
            self._infos[uid] = info
            return ""
        log.warning("pod cannot be served yet", uid=uid, pod=f"{info.namespace}/{info.name}", error=text)
        return text

    async def _retry(self) -> None:
        while True:
            await trio.sleep(RETRY)
            for uid in list(self._pending):
                async with self._work:
                    pod = self._pending.get(uid)
                    if pod is None:
                        continue
                    pod.error = await self._start(uid, pod.info, pod.netns)
                    if not pod.error:
                        self._drop(uid)
                self._on_change()

    def _drop(self, uid: str) -> None:
        pod = self._pending.pop(uid, None)
        if pod is not None:
            os.close(pod.netns)


def _netns_of(fd: int) -> NetnsInode:
    found = os.fstat(fd)
    return NetnsInode(found.st_dev, found.st_ino)


def _is_netns(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False
