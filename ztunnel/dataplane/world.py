"""Everything the data plane shares between connections, and how messages of the control half change it."""

import errno
import os
import resource
import socket
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from policy.index import PolicyIndex
from ztunnel.config import Config
from ztunnel.dataplane.buffers import OutboxPool
from ztunnel.dataplane.conn import Conn
from ztunnel.dataplane.errors import DataPlaneError
from ztunnel.dataplane.identities import Identities
from ztunnel.dataplane.loop import Loop
from ztunnel.dataplane.netns import Netns, NetnsSwitch
from ztunnel.dataplane.pair import SCRATCH
from ztunnel.dataplane.proxy import PodProxy
from ztunnel.dataplane.recheck import Recheck
from ztunnel.dataplane.registry import Registry
from ztunnel.dataplane.sockets import SocketOptions, dial, family_of, reset_on_close
from ztunnel.hbone.limits import SessionLimits
from ztunnel.hbone.tls import Buffers
from ztunnel.link.messages import HeldProxy, Log, UpMessage
from ztunnel.reasons import CloseReason
from ztunnel.route.outbound import NodeContext
from ztunnel.state.model import Workload, WorkloadInfo
from ztunnel.state.store import State

if TYPE_CHECKING:
    from ztunnel.dataplane.tunnel import Tunnel

__all__ = ["World"]

DIALS: Final = 4
"""Sockets tried for one connection; the last one's port is the kernel's choice."""
_FAULTS: Final = 100
"""Internal faults logged with their trace; more are counted only, so that a fault on the hot path does not flood the log."""


MAX_TEXT: Final = 4_000
"""Characters of a log line's message and of each of its fields."""


class _Timed(Protocol):
    def on_timeout(self) -> None:
        """What was expected did not come."""


class World:
    """One per process. ``epoch`` changes whenever a decision might: state, policies, or who is served here."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.loop = Loop(self.fault)
        self.netns = NetnsSwitch()
        self.state = State()
        self.policies = PolicyIndex()
        self.registry = Registry()
        self.identities = Identities(self)
        self.proxies: dict[str, PodProxy] = {}
        self.tunnels: dict[Tunnel, None] = {}
        self.tls_buffers = Buffers()
        self.outboxes = OutboxPool()
        self.scratch = memoryview(bytearray(SCRATCH))
        self.session_limits = SessionLimits(
            stream_window=config.stream_window,
            connection_window=config.connection_window,
            frame=config.frame_size,
            assumed_peer_streams=config.pool_max_streams,
        )
        self.socket_options = SocketOptions(
            mark=config.packet_mark or 0,
            keepalive=config.keepalive,
            keepalive_idle=int(config.keepalive_time),
            keepalive_interval=int(config.keepalive_interval),
            keepalive_probes=config.keepalive_retries,
            user_timeout=int(1000 * (config.keepalive_time + config.keepalive_retries * config.keepalive_interval))
            if config.user_timeout
            else 0,
        )
        self.node = NodeContext(config.network, config.node_name, config.encrypt_same_node, self._is_local)
        self.epoch = 0
        self.max_connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
        """Of one workload."""
        self.complete = False
        """A whole state has arrived at least once."""
        self.draining = False
        self.faults = 0
        self._spare: int | None = None
        self._take_spare()
        self._expected: dict[float, dict[_Timed, float]] = {}
        self._where: dict[_Timed, dict[_Timed, float]] = {}
        self._uids: dict[str, PodProxy] = {}
        self._outbox: list[UpMessage] = []
        self.recheck = Recheck(self)
        self.on_drain: Callable[[float], None] = lambda _: None
        self.loop.every(1.0, self._tick)

    # --- time ---------------------------------------------------------------------------------------------------------

    def wall(self) -> float:
        """Unix seconds at the batch's start."""
        return self.loop.now + self.loop.wall_offset

    def expect(self, who: _Timed, seconds: float) -> None:
        """Call ``who.on_timeout()`` unless :meth:`unexpect` is called before; checked once a second.

        One ordered dictionary for each duration: a timer that is set and dropped for every connection costs two dictionary
        operations, and nothing of the connection outlives it.
        """
        self.unexpect(who)
        queue = self._expected.setdefault(seconds, {})
        queue[who] = self.loop.now + seconds
        self._where[who] = queue

    def unexpect(self, who: _Timed) -> bool:
        """What was expected came. Whether it was expected."""
        queue = self._where.pop(who, None)
        if queue is None:
            return False
        del queue[who]
        return True

    def _tick(self) -> None:
        now = self.loop.now
        self.loop.wall_offset = time.time() - now
        if self._spare is None:
            self._take_spare()
        for queue in list(self._expected.values()):
            while queue:
                who, deadline = next(iter(queue.items()))
                if deadline > now:
                    break
                del queue[who]
                self._where.pop(who, None)
                self._guard(who, who.on_timeout)
        self.netns.enter(self.netns.home)  # an idle proxy is in nobody's namespace: whoever ends what is in a pod's would end us
        for tunnel in list(self.tunnels):
            self._guard(tunnel, tunnel.tick, now)
        for proxy in list(self.proxies.values()):
            self._guard(proxy, proxy.tick)

    def _guard(self, owner: object, callback: Callable[..., None], *args: float) -> None:
        """A fault of one must not keep the others from their timeouts."""
        try:
            callback(*args)
        except Exception as e:  # noqa: BLE001 as in the loop
            self.fault(owner, e)

    # --- who is here --------------------------------------------------------------------------------------------------

    def add_proxy(self, uid: str, info: WorkloadInfo, fd: int) -> PodProxy:
        """Serve a pod; ``fd`` is ours from here on. Raises DataPlaneError.

        The same uid in the same namespace is left as it is; in another one the old is stopped first.
        """
        netns = Netns(fd)
        held = self.proxies.get(uid)
        if held is not None:
            if held.netns.identity == netns.identity and held.info == info:
                netns.close()
                return held
            self.remove_proxy(uid, CloseReason.WORKLOAD_REMOVED)
        try:
            proxy = PodProxy(self, uid, info, netns)
        except (DataPlaneError, OSError):
            netns.close()
            raise
        self.proxies[uid] = proxy
        self.bump()
        return proxy

    def remove_proxy(self, uid: str, reason: CloseReason = CloseReason.WORKLOAD_REMOVED) -> None:
        """Stop serving a pod; unknown is fine."""
        proxy = self.proxies.pop(uid, None)
        if proxy is not None:
            proxy.stop(reason)
            self.bump()

    def held(self) -> tuple[HeldProxy, ...]:
        """What a fresh control half is told."""
        return tuple(HeldProxy(p.uid, p.info, p.netns.identity) for p in self.proxies.values())

    def _is_local(self, uid: str) -> bool:
        """Whether this proxy serves the workload with this uid of the state."""
        workload = self.state.workload(uid)
        return workload is not None and self.proxy_of(workload) is not None

    def proxy_of(self, workload: Workload) -> PodProxy | None:
        """The proxy of a workload of the state; the node agent's uids need not be the control plane's."""
        found = self._uids.get(workload.uid)
        if found is None and not self._uids:
            for proxy in self.proxies.values():
                mine = self.state.local_workload(proxy.info)
                if mine is not None:
                    self._uids[mine.uid] = proxy
            found = self._uids.get(workload.uid)
        return found

    def ipv6_in(self, netns: Netns) -> bool:
        """Whether the namespace has IPv6 on lo."""
        if not self.config.ipv6:
            return False
        try:
            with self.netns.socket(netns, socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except (OSError, DataPlaneError):
            return False
        return True

    def dial(self, netns: Netns, ip: str, port: int, source: str, *, local: bool) -> tuple[socket.socket, bool]:
        """A socket on its way to ``ip:port`` from ``source`` (see sockets.dial), and whether it is there.

        ``local``: the far end is in the same namespace. A source port in use costs another try. Raises OSError, NetnsError.
        """
        family = family_of(ip)
        tries = DIALS if source and source != ip else 1
        for left in reversed(range(tries)):
            sock = self.netns.socket(netns, family)
            try:
                if local:
                    self.socket_options.apply_local(sock)
                else:
                    self.socket_options.apply(sock)
                return sock, dial(sock, family, ip, port, source, any_port=left == 0)
            except OSError as e:
                sock.close()
                if e.errno != errno.EADDRNOTAVAIL or not left:
                    raise
        raise AssertionError("the last try returns or raises")

    # --- changes ------------------------------------------------------------------------------------------------------

    def bump(self) -> None:
        """Something changed that decisions depend on."""
        self.epoch += 1
        self._uids.clear()

    def state_complete(self, generation: int) -> None:
        """A whole update is in: look at the open connections again, and let waiting ones go on."""
        self.state.generation = generation
        self.complete = True
        self.bump()
        self.recheck.start()
        for proxy in list(self.proxies.values()):
            self._guard(proxy, proxy.state_changed)

    def drain(self) -> None:
        """Take nothing new."""
        if not self.draining:
            self.draining = True
            for proxy in self.proxies.values():
                proxy.drain()

    @property
    def idle(self) -> bool:
        """No connection is open."""
        return not self.registry.conns

    # --- trouble ------------------------------------------------------------------------------------------------------

    def shed(self, listener: socket.socket) -> str | None:
        """Refuse one connection with the spare descriptor. Its peer's address, or None if it was gone."""
        if self._spare is None:
            return None
        os.close(self._spare)
        self._spare = None
        try:
            sock, address = listener.accept()
            reset_on_close(sock)
            sock.close()
            return str(address[0])
        except OSError:
            return None
        finally:
            self._take_spare()

    def _take_spare(self) -> None:
        """Hold a descriptor in reserve; when none is to be had now, the next tick tries again."""
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = None

    def fault(self, owner: Any, error: Exception) -> None:
        """A bug of ours in a handler of ``owner``, whose ``fail`` ends it."""
        self.faults += 1
        if self.faults <= _FAULTS:
            trace = "".join(traceback.format_exception(error))[-4000:]
            self.log("error", f"internal fault in {type(owner).__name__}", trace=trace)
        fail = getattr(owner, "fail", None)
        if fail is not None:
            try:
                fail(error)
            except Exception as e:  # noqa: BLE001 the fault's handling is at fault too: the connection may leak, the rest goes on
                self.log("error", f"internal fault after a fault: {e!r}")

    def log(self, level: str, message: str, **fields: str) -> None:
        """A line for the proxy's log; texts are cut at :data:`MAX_TEXT` characters."""
        cut = {name: text[:MAX_TEXT] for name, text in fields.items()}
        self.tell(Log(level, "ztunnel::dataplane", message[:MAX_TEXT], cut))

    def tell(self, message: UpMessage) -> None:
        """Queue a message for the control half; bounded."""
        if len(self._outbox) < 10_000:
            self._outbox.append(message)

    def take_messages(self) -> list[UpMessage]:
        """The queued messages."""
        messages, self._outbox = self._outbox, []
        return messages

    def conns(self) -> list[Conn]:
        """All open connections."""
        return list(self.registry.conns)
