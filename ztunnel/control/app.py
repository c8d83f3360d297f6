"""The control half: everything that is slow, waits, reads files or speaks to people, composed.

The data plane starts it and holds the other end of its link. When it starts it sends the whole state and adopts what the data
plane holds; when the link ends, it ends.
"""

import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib import metadata
from pathlib import Path
from typing import Final

import trio

from ztunnel.admin import readiness as ready
from ztunnel.admin.dump import DumpParts, PodView, version_info
from ztunnel.admin.errors import AdminError
from ztunnel.admin.readiness import Readiness, readiness_routes
from ztunnel.admin.routes import admin_routes
from ztunnel.admin.server import Port, bind, serve
from ztunnel.admin.stats import stats_routes
from ztunnel.config import Config
from ztunnel.control.issuers import AbsentIssuer
from ztunnel.control.link import DataLink, LinkEnded
from ztunnel.control.pods import Pods
from ztunnel.control.static_source import StaticSource
from ztunnel.control.views import config_view, policy_dumps, service_dumps, workload_dumps
from ztunnel.identity.errors import IdentityError
from ztunnel.identity.issued import IssuedCertificate, Issuer
from ztunnel.identity.issuer_local import LocalCaIssuer
from ztunnel.identity.manager import CertificateManager
from ztunnel.identity.priority import Priority
from ztunnel.link import messages as m
from ztunnel.state import delta
from ztunnel.state.model import Protocol
from ztunnel.state.static import StaticState
from ztunnel.state.store import State
from ztunnel.telemetry import log as logs
from ztunnel.telemetry.accesslog import AccessLog
from ztunnel.telemetry.metrics import MetricStore
from ztunnel.telemetry.process import update_process
from ztunnel.telemetry.recorder import Recorder
from ztunnel.telemetry.writer import LineWriter
from ztunnel.zds.client import ZdsClient
from ztunnel.zds.errors import ZdsError

__all__ = ["NICENESS", "App", "run"]

NICENESS: Final = 10
"""Where cores are short, bytes go first: with a scrape in a loop and state changing ten times a second the p99 of traffic rises
by half instead of nearly three times. A tenth of a core is left for this half even then."""

log = logs.get_logger("ztunnel::control")


def run(link_fd: int) -> int:
    """The process's life. Exit status: 0 when the data plane ended the link, 1 when we cannot go on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the data plane drains; we end with it
    os.nice(NICENESS)
    config = Config.from_env(os.environ)
    status = 0
    try:
        trio.run(App(config, link_fd).run, strict_exception_groups=True)
    except* LinkEnded:
        pass
    except* (IdentityError, AdminError, ZdsError) as group:
        status = 1
        for error in group.exceptions:
            print(f"ztunnel: {error}", file=sys.stderr)  # noqa: T201
    return status


class App:
    """One run of the control half."""

    def __init__(self, config: Config, link_fd: int) -> None:
        json = config.log_format == "json"
        self._config = config
        self._logs = logs.LogControl(config.rust_log, json=json)
        logs.setup(self._logs)
        self._link = DataLink(link_fd)
        self._writer = LineWriter(1)
        self._metrics = MetricStore(build=metadata.version("ambient-mesh"))
        self._recorder = Recorder(self._metrics, AccessLog(json=json), self._writer.put, lambda: self._logs.filter)
        self._readiness = Readiness((ready.STATE_MANAGER, ready.PROXY, ready.WORKLOAD_PROXY_MANAGER))
        self._pods = Pods(self._link, self._want_certificates)
        self._static = StaticSource(config.local_xds_path, config.local_xds, self._apply)
        self._now: StaticState | None = None
        self._state = State()
        self._generation = 0
        self._wanted: set[str] = set()
        self._requests: dict[int, _Dump] = {}
        self._ended = trio.Event()
        self._quitting: trio.Event | None = None
        self._certificates = CertificateManager(
            self._issuer(), self._on_certificate, self._on_no_certificate, time.time, random.random
        )
        self._zds: ZdsClient | None = None

    def _issuer(self) -> Issuer:
        if self._config.local_ca_dir:
            return LocalCaIssuer(Path(self._config.local_ca_dir), time.time, self._config.secret_ttl)
        return AbsentIssuer()

    async def run(self) -> None:
        """Until the link ends."""
        config = self._config
        for name, why in config.ignored:
            log.warning("variable has no effect", variable=name, why=why)
        if config.xds_address:
            log.warning("no xDS client is built yet: state comes from LOCAL_XDS_PATH alone", xds_address=config.xds_address)
        if config.ca_address and not config.local_ca_dir:
            log.warning("no CA client is built yet: certificates come from LOCAL_CA_DIR alone", ca_address=config.ca_address)
        admin = bind(Port("admin", config.admin_port, "ADMIN_PORT", loopback=True), ipv6=config.ipv6)
        stats = bind(Port("metrics", config.stats_port, "STATS_PORT"), ipv6=config.ipv6)
        healthy = bind(Port("readiness", config.readiness_port, "READINESS_PORT"), ipv6=config.ipv6)
        async with aclosing(self._link.messages()) as messages, trio.open_nursery() as nursery:
            nursery.start_soon(self._writer.run)
            nursery.start_soon(self._link.run)
            self._link.post(m.ControlHello(m.VERSION, os.getpid()))
            await self._greeted(messages)
            self._readiness.done(ready.PROXY)
            nursery.start_soon(self._certificates.run)
            nursery.start_soon(self._static.run)
            if config.workload_info is not None:
                nursery.start_soon(self._dedicated)
            else:
                self._zds = ZdsClient(config.inpod_uds, self._pods, random.random, self._zds_changed)
                nursery.start_soon(self._zds.run)
            nursery.start_soon(serve, admin, admin_routes(self, self._logs, self._quit))
            nursery.start_soon(serve, stats, stats_routes(self._metrics, self._refresh))
            nursery.start_soon(serve, healthy, readiness_routes(self._readiness))
            nursery.start_soon(self._end, nursery.cancel_scope)
            try:
                async for message in messages:
                    self._take(message)
            except LinkEnded:
                self._ended.set()

    async def _greeted(self, messages: AsyncIterator[m.UpMessage]) -> None:
        """Adopt what the data plane holds. Raises LinkEnded when we do not speak its language."""
        held: tuple[m.HeldProxy, ...] = ()
        async for hello in messages:
            if not isinstance(hello, m.DataHello) or hello.version != m.VERSION:
                said = f"version {hello.version}" if isinstance(hello, m.DataHello) else type(hello).__name__
                log.error("the data plane speaks another link version; restart ztunnel as a whole", ours=m.VERSION, said=said)
                raise LinkEnded("the data plane is of another version")
            held += hello.proxies
            if hello.last:
                self._generation = hello.generation
                self._pods.adopt(held)
                return

    async def _end(self, scope: trio.CancelScope) -> None:
        await self._ended.wait()
        if self._quitting is not None:
            with trio.move_on_after(1):
                await self._quitting.wait()
        scope.cancel()

    # --- from the data plane ------------------------------------------------------------------------------------------

    def _take(self, message: m.UpMessage) -> None:
        if self._recorder.take(message):
            return
        match message:
            case m.ProxyStarted() | m.ProxyFailed() | m.ProxyStopped():
                self._pods.answered(message)
            case m.NeedCertificate():
                self._certificates.request(message.identity, Priority.REAL_TIME)
            case m.Connections():
                dump = self._requests.get(message.request)
                if dump is not None:
                    dump.parts.extend(message.connections)
                    if message.last:
                        dump.done.set()
            case m.Drained():
                self._ended.set()
            case _:
                pass

    # --- state --------------------------------------------------------------------------------------------------------

    async def _apply(self, state: StaticState) -> None:
        """A new state: tell the data plane what differs, the whole of it the first time. Raises StateError."""
        first = self._now is None
        changes = delta.diff(self._now, state)
        if changes.empty and not first:
            return
        self._generation += 1
        parts = list(delta.messages(changes, self._generation, full=first))
        for workload in changes.workloads_upsert:
            self._state.upsert_workload(workload)
        for uid in changes.workloads_remove:
            self._state.remove_workload(uid)
        for service in changes.services_upsert:
            self._state.upsert_service(service)
        for key in changes.services_remove:
            self._state.remove_service(key)
        self._now = state
        self._want_certificates()
        for part in parts:
            await self._link.send((part,))
        self._readiness.done(ready.STATE_MANAGER)
        log.info(
            "state in force",
            generation=self._generation,
            workloads=len(state.workloads),
            services=len(state.services),
            policies=len(state.policies),
        )

    # --- certificates -------------------------------------------------------------------------------------------------

    def _want_certificates(self) -> None:
        """One certificate for each identity that a workload of this node has, asked for before it is needed."""
        wanted = {w.identity for info in self._pods.infos().values() if (w := self._state.local_workload(info)) is not None}
        node = self._config.node_name
        if node and self._now is not None:
            wanted |= {
                w.identity for w in self._now.workloads if w.node == node and (w.protocol is Protocol.HBONE or w.native_tunnel)
            }
        for identity in wanted - self._wanted:
            self._certificates.request(identity, Priority.WARMUP)
        for identity in self._wanted - wanted:
            self._certificates.forget(identity)
        self._wanted = wanted

    def _on_certificate(self, c: IssuedCertificate) -> None:
        message = m.Certificate(c.identity, b"".join(c.chain), c.key, c.roots, c.not_after)
        size = len(m.encode((message,)))
        if size > m.MAX_PACKET:
            remedy = f"at most {m.MAX_PACKET} fit; put fewer roots into root-cert.pem"
            self._on_no_certificate(c.identity, f"the certificate, its chain and its roots are {size} bytes, {remedy}")
            return
        self._link.post(message)

    def _on_no_certificate(self, identity: str, error: str) -> None:
        log.warning("no certificate", identity=identity, error=error)
        self._link.post(m.CertificateUnavailable(identity, error))

    # --- pods ---------------------------------------------------------------------------------------------------------

    def _zds_changed(self) -> None:
        if self._zds is not None and self._zds.ready:
            self._readiness.done(ready.WORKLOAD_PROXY_MANAGER)
        else:
            self._readiness.lost(ready.WORKLOAD_PROXY_MANAGER)

    async def _dedicated(self) -> None:
        """PROXY_MODE=dedicated: one workload, in our own network namespace."""
        info = self._config.workload_info
        assert info is not None
        fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._pods.add(f"{info.namespace}/{info.name}", info, fd)
        finally:
            os.close(fd)
        self._readiness.done(ready.WORKLOAD_PROXY_MANAGER)

    # --- admin --------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        update_process(self._metrics.registry)
        registry = self._metrics.registry
        registry.set("workload_manager_active_proxy_count", len(self._pods.held()))
        registry.set("workload_manager_pending_proxy_count", len(self._zds.pending) if self._zds else 0)
        registry.set("workload_manager_proxies_started", self._pods.started)
        registry.set("workload_manager_proxies_stopped", self._pods.stopped)

    async def dump_parts(self) -> DumpParts:
        """See DumpSource. Waits for the data plane's connections."""
        connections = await self._connections()
        await self._writer.flush(1)  # what has ended by this dump is in the access log when it is answered
        now = self._now or StaticState()
        workloads, services, policies = workload_dumps(now), service_dumps(now, self._state), policy_dumps(now)
        own = {"workloads": workloads, "services": services, "policies": policies}
        pending = self._zds.pending if self._zds is not None else {}
        return DumpParts(
            workloads=workloads,
            services=services,
            policies=policies,
            certificates=[dict(c) for c in self._certificates.dump()],
            static_config=own,
            config={**config_view(self._config), "stateProblem": self._static.problem, "podsPending": pending},
            version=version_info(metadata.version("ambient-mesh")),
            pods=[PodView(uid, info) for uid, info in self._pods.infos().items()],
            connections=connections,
        )

    async def _connections(self) -> list[m.ConnectionView]:
        number = random.getrandbits(32)
        dump = self._requests[number] = _Dump()
        self._link.post(m.Dump(number))
        try:
            await dump.done.wait()
        finally:
            del self._requests[number]
        return dump.parts

    async def _quit(self) -> None:
        """Drain; answered when it is over."""
        self._quitting = trio.Event()
        self._link.post(m.Drain(self._config.termination_deadline))
        await self._ended.wait()
        trio.lowlevel.current_trio_token().run_sync_soon(self._quitting.set)


class _Dump:
    def __init__(self) -> None:
        self.parts: list[m.ConnectionView] = []
        self.done = trio.Event()
