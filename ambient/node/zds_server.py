"""The agent's ZDS server: hands pods to every proxy of this node that connects (two of them during an upgrade).

The enroller calls :meth:`ZdsServer.add` and :meth:`~ZdsServer.remove`; the server holds each pod's netns until it is removed. A new
proxy gets a snapshot of all; afterwards an Add goes to the newest proxy, a Del to all. When the newest goes away the one before
is the newest again, and is given what it has not been told.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
import trio

from ambient.node.errors import EnrolError
from ambient.node.socket_file import listening
from ambient.node.zds_connection import ACK_TIMEOUT, Connection
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.codec import Add, Del, Keep, Request, Snapshot, encode_request
from ztunnel.zds.errors import ZdsError
from ztunnel.zds.seqpacket import PacketSocket

__all__ = ["MAX_CONNECTIONS", "ZdsServer"]

MAX_CONNECTIONS: Final = 8
"""Proxies at a time; an upgrade has two."""
ACCEPT_INTERVAL: Final = 0.2
"""Seconds between accepts (istio-cni: at most 5 a second)."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("ambient.node")


@dataclass(slots=True, eq=False)
class _Pod:
    """A pod to be served; owns its netns descriptor. ``netns`` -1: not known (Keep)."""

    info: WorkloadInfo
    netns: int

    def close(self) -> None:
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1


class ZdsServer:
    """``path``: where proxies connect. ``timeout``: seconds for each answer.

    ``hold``: proxies wait, connected, until :meth:`release`. An agent that starts holds them until it has added every pod it
    finds: a proxy stops what a snapshot does not name, so an early one would cut the connections of all pods it serves.
    """

    def __init__(self, path: str, timeout: float = ACK_TIMEOUT, *, hold: bool = False) -> None:
        self._path = path
        self._timeout = timeout
        self._pods: dict[str, _Pod] = {}
        self._connections: list[Connection] = []
        self._accepted = 0
        self._released = trio.Event()
        if not hold:
            self._released.set()

    @property
    def connections(self) -> int:
        """Proxies connected now."""
        return len(self._connections)

    def release(self) -> None:
        """Every pod there is has been added: let proxies in."""
        self._released.set()

    async def add(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        """Hand a pod to the newest proxy and wait until it serves it. ``netns`` is duplicated; the caller's stays the caller's.

        Raises EnrolError when no proxy serves it yet. The pod is held all the same: the next proxy gets it, and adding it again is
        how to find out.
        """
        try:
            encode_request(Add(uid, info))
        except ZdsError as error:
            raise EnrolError(str(error), retryable=False) from error
        old = self._pods.get(uid)
        if old is not None and old.info == info and _same(old.netns, netns):
            pod = old
        else:
            pod = self._pods[uid] = _Pod(info, os.dup(netns))
            if old is not None:
                old.close()
            for connection in self._connections:
                connection.acked.discard(uid)
        if not self._connections:
            raise EnrolError("no ztunnel is connected; the pod stays closed until one is. Is ztunnel running on this node?")
        newest = self._connections[-1]
        if uid in newest.acked:
            return
        refusal = await self._send_add(newest, uid, pod)
        if refusal:
            raise EnrolError(f"{newest.name} cannot serve the pod: {refusal}")

    def keep(self, uid: str) -> None:
        """A pod that is served from before this agent started, and whose netns is not known yet."""
        self._pods.setdefault(uid, _Pod(WorkloadInfo("", "", ""), -1))

    async def remove(self, uid: str) -> None:
        """Tell every proxy to stop serving a pod, and let go of its netns. A proxy that does not answer is disconnected."""
        pod = self._pods.pop(uid, None)
        if pod is not None:
            pod.close()
        async with trio.open_nursery() as nursery:
            for connection in self._connections:
                nursery.start_soon(self._send_del, connection, uid)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started once proxies can connect. Raises AgentSocketError."""
        try:
            async with listening(self._path) as listener, trio.open_nursery() as nursery:
                task_status.started()
                await self._released.wait()
                while True:
                    try:
                        sock, _ = await listener.accept()
                    except OSError as error:  # out of descriptors, or the proxy was gone already: the next one may work
                        log.warning("a proxy could not be accepted", error=str(error))
                    else:
                        nursery.start_soon(self._proxy, sock)
                    await trio.sleep(ACCEPT_INTERVAL)
        finally:
            for pod in self._pods.values():
                pod.close()
            self._pods.clear()

    async def _proxy(self, sock: trio.socket.SocketType) -> None:
        self._accepted += 1
        connection = Connection(PacketSocket(sock), f"ztunnel {_peer(sock)} (connection {self._accepted})", self._timeout)
        try:
            if len(self._connections) >= MAX_CONNECTIONS:
                connection.close(f"{MAX_CONNECTIONS} proxies are connected already")
            else:
                await connection.hello()
                self._connections.append(connection)
                log.info("proxy connected", proxy=connection.name)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._catch_up, connection, True)
                    await connection.read()
                    nursery.cancel_scope.cancel()
        except ZdsError as error:
            connection.close(str(error))
        finally:
            connection.close("the agent stops")
            log.info("proxy disconnected", proxy=connection.name, why=connection.closed)
            was_newest = bool(self._connections) and self._connections[-1] is connection
            if connection in self._connections:
                self._connections.remove(connection)
        if was_newest and self._connections:
            await self._catch_up(self._connections[-1], False)

    async def _catch_up(self, connection: Connection, snapshot: bool) -> None:
        """Tell a proxy every pod it has not taken yet; for a new one that is its snapshot."""
        try:
            for uid, pod in list(self._pods.items()):
                if uid not in connection.acked:
                    error = await self._send_add(connection, uid, pod)
                    if error:
                        log.warning("proxy cannot serve a pod yet", proxy=connection.name, uid=uid, error=error)
            if snapshot:
                await self._send(connection, Snapshot())
        except EnrolError as error:
            log.warning("proxy lost while it was told of pods", proxy=connection.name, error=str(error))

    async def _send_add(self, connection: Connection, uid: str, pod: _Pod) -> str:
        """Add, or Keep for one without netns; nothing if the pod was removed or replaced meanwhile."""

        @contextmanager
        def prepare() -> Iterator[tuple[Request, tuple[int, ...]] | None]:
            if self._pods.get(uid) is not pod:
                yield None
            elif pod.netns < 0:
                yield Keep(uid), ()
            else:
                # A duplicate, as a removal may close the pod's own while this waits to be sent.
                netns = os.dup(pod.netns)
                try:
                    yield Add(uid, pod.info), (netns,)
                finally:
                    os.close(netns)

        error = await connection.exchange(prepare)
        if error == "" and self._pods.get(uid) is pod:
            connection.acked.add(uid)
        return error or ""

    async def _send_del(self, connection: Connection, uid: str) -> None:
        connection.acked.discard(uid)
        try:
            await self._send(connection, Del(uid))
        except EnrolError as error:
            log.warning("proxy was not told to stop serving a pod; it is when it reconnects", uid=uid, error=str(error))

    async def _send(self, connection: Connection, request: Request) -> None:
        error = await connection.exchange(partial(_plain, request))
        if error:
            log.warning("proxy refused a request", proxy=connection.name, request=type(request).__name__, error=error)


@contextmanager
def _plain(request: Request) -> Iterator[tuple[Request, tuple[int, ...]]]:
    yield request, ()


def _same(held: int, offered: int) -> bool:
    return held >= 0 and os.path.samestat(os.fstat(held), os.fstat(offered))


def _peer(sock: trio.socket.SocketType) -> str:
    pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
    return f"pid {pid}"
