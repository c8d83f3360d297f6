"""Data planes in the test's own process: real loops, TLS and sockets over loopback, without pods, privileges or threads.

``turn`` runs one batch of events and returns; ``until`` takes turns between worlds until something holds.
"""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.certs import authority, mint
from ztunnel.config import Config
from ztunnel.dataplane import proxy as proxy_module
from ztunnel.dataplane.outbound import OutboundConn
from ztunnel.dataplane.plans import OutboundPlan, plan_outbound
from ztunnel.dataplane.proxy import PodProxy
from ztunnel.dataplane.world import World
from ztunnel.link.messages import Certificate, Record, UpMessage
from ztunnel.route.decision import Tunnel as TunnelDecision
from ztunnel.state.model import Protocol, Workload, WorkloadInfo

__all__ = [
    "CLIENT",
    "LOCAL",
    "SERVER",
    "Mesh",
    "accept",
    "add_pod",
    "certificate",
    "config",
    "listener",
    "records",
    "said",
    "tcp_pair",
    "turn",
    "until",
    "without_listeners",
    "world",
]

LOCAL = "127.0.0.1"
ROOT = authority("the mesh's root")


def workload(name: str, address: str) -> Workload:
    return Workload(
        uid=f"cluster//Pod/default/{name}",
        namespace="default",
        name=name,
        workload_name=name,
        canonical_name=name,
        addresses=(address,),
        service_account=name,
        protocol=Protocol.HBONE,
    )


CLIENT, SERVER = workload("client", "127.0.0.7"), workload("server", LOCAL)


def certificate(identity: str, lifetime: float = 3600.0) -> Certificate:
    minted = mint(ROOT, identity)
    return Certificate(identity, b"".join(minted.chain), minted.key, minted.roots, time.time() + lifetime)


def config(**values: Any) -> Config:
    """ztunnel's defaults, without marks (they need a capability)."""
    plain = {"packet_mark": None, "orig_src": False, **values}
    return dataclasses.replace(Config.from_env({"NODE_NAME": "node"}), **plain)


class _NoListeners:
    """Stands in for the listeners of a pod, whose ports may be in use on the machine."""

    transparent = False

    def __init__(self, *_: object, **__: object) -> None:
        self.closed = False

    def close(self, *, take_waiting: bool = False) -> None:
        self.closed = True


def without_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "Listeners", _NoListeners)


@contextlib.contextmanager
def world(**values: Any) -> Iterator[World]:
    """A world whose descriptors are closed afterwards."""
    made = World(config(**values))
    try:
        yield made
    finally:
        for uid in list(made.proxies):
            made.remove_proxy(uid)
        for tunnel in list(made.tunnels):
            tunnel.close()
        if made._spare is not None:
            os.close(made._spare)
        made.loop.close_all()
        made.netns.home.close()


def add_pod(to: World, local: Workload, *others: Workload) -> PodProxy:
    """A pod in the test's own network namespace, its state and its certificate."""
    for known in (local, *others):
        to.state.upsert_workload(known)
    to.state_complete(to.state.generation + 1)
    to.identities.arrived(certificate(local.identity))
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return to.add_proxy(local.name, WorkloadInfo(local.name, local.namespace, local.service_account), fd)


def turn(*worlds: World) -> None:
    """One batch of events in each, without waiting."""
    for one in worlds:
        one.loop.stopped = False
        one.loop.soon(lambda loop=one.loop: setattr(loop, "stopped", True))  # type: ignore[misc]
        one.loop.run()


def until(condition: Callable[[], object], *worlds: World, seconds: float = 10.0) -> None:
    """Turns until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        turn(*worlds)


def listener(backlog: int = 16) -> socket.socket:
    """Listens on loopback; its accepted sockets do not block."""
    sock = socket.create_server((LOCAL, 0), backlog=backlog)
    sock.setblocking(False)
    return sock


def accept(listening: socket.socket) -> socket.socket:
    sock, _ = listening.accept()
    sock.setblocking(False)
    return sock


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over loopback, neither blocking."""
    with listener() as listening:
        near = socket.create_connection(listening.getsockname())
        near.setblocking(False)
        return near, accept(listening)


def records(of: World) -> list[Record]:
    """The access log of a world so far; takes them."""
    return [record for closed in of.registry.take_records() for record in closed.records]


def said(of: World) -> list[UpMessage]:
    """What a world has to tell; takes it."""
    return of.take_messages()


class Mesh:
    """A client's and a server's world with a tunnel's both ends between them, and applications at both far ends.

    ``connect`` gives (client application's socket, server application's socket or None until it is accepted).
    """

    def __init__(self, client: World, server: World) -> None:
        self.client, self.server = client, server
        self.client_pod = add_pod(client, CLIENT, SERVER)
        self.server_pod = add_pod(server, SERVER, CLIENT)
        self.hbone, self.app = listener(), listener()
        self.port = int(self.app.getsockname()[1])
        server.loop.add(self.hbone.fileno(), 1, self._accept)
        self.sockets: list[socket.socket] = []

    def _accept(self, _: int) -> None:
        sock, peer = self.hbone.accept()
        sock.setblocking(False)
        self.server_pod.accept_hbone(sock, socket.AF_INET, peer)

    def plan(self, port: int | None = None) -> OutboundPlan:
        decision = TunnelDecision(
            peer_ip=LOCAL,
            peer_port=int(self.hbone.getsockname()[1]),
            identities=(SERVER.identity,),
            authority=f"{LOCAL}:{port or self.port}",
            destination=SERVER,
        )
        plan = plan_outbound(self.client_pod, CLIENT, decision)
        assert isinstance(plan, OutboundPlan)
        return plan

    def open(self, port: int | None = None) -> tuple[socket.socket, OutboundConn]:
        """An application connects and is captured."""
        app, captured = tcp_pair()
        self.sockets.append(app)
        conn = OutboundConn(self.client_pod, captured, "127.0.0.7:1", f"{LOCAL}:{port or self.port}", self.plan(port))
        conn.begin()
        return app, conn

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Both applications' sockets, connected through the tunnel."""
        app, conn = self.open()
        self.until(lambda: conn.connected)
        there = accept(self.app)
        self.sockets.append(there)
        return app, there

    def turn(self) -> None:
        turn(self.client, self.server)

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        until(condition, self.client, self.server, seconds=seconds)

    def close(self) -> None:
        self.server.loop.remove(self.hbone.fileno())
        for sock in (*self.sockets, self.hbone, self.app):
            sock.close()
