"""The data plane's end of the link: applies what the control half says, tells it what it counted."""

import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from policy.model import PolicyKey
from ztunnel.dataplane.errors import DataPlaneError
from ztunnel.dataplane.gauges import gauges
from ztunnel.dataplane.loop import ERR, HUP, IN, OUT
from ztunnel.hbone.errors import TlsError
from ztunnel.link import messages as m
from ztunnel.link.packets import packets
from ztunnel.state.model import Service, Workload

if TYPE_CHECKING:
    from ztunnel.dataplane.world import World

__all__ = ["ControlLink"]

MAX_QUEUED: Final = 512
"""Packets that wait for the control half (80 MiB at the very most; a counters packet is a few KiB). Then records are dropped."""
CONNECTIONS_PER_MESSAGE: Final = 200


class ControlLink:
    """One connection to one control half. ``alive`` until it ends; its owner then makes another."""

    def __init__(self, world: "World", sock: socket.socket) -> None:
        """``sock``: SOCK_SEQPACKET, connected; ours from here on."""
        self._world = world
        self._sock = sock
        self._queue: deque[bytes] = deque()
        self._stalled_since = 0.0
        self._seen: tuple[set[str], set[str], set[str]] | None = None
        self._dumps: list[tuple[int, list[m.ConnectionView]]] = []
        self.alive = True
        self.greeted = False
        sock.setblocking(False)
        world.loop.add(sock.fileno(), IN, self.on_event)
        world.registry.forget_told()
        self.send([m.DataHello(m.VERSION, os.getpid(), world.state.generation, world.held(), world.identities.held())])
        world.identities.ask_again()

    # --- up -----------------------------------------------------------------------------------------------------------

    def report(self) -> None:
        """Ten times a second: what ended, and what else there is to say."""
        if not self.alive or len(self._queue) >= MAX_QUEUED:
            return
        world = self._world
        registry = world.registry
        if registry.pending or registry.dropped:
            self.send(registry.take_definitions())
            for closed in registry.take_records():
                self.send([closed])
        self.send(world.take_messages())
        if self._dumps:
            self._dump_slice()

    def count(self) -> None:
        """Once a second: counters and gauges."""
        if self.alive and len(self._queue) < MAX_QUEUED:
            self._counters()
            self.send([m.Gauges(gauges(self._world))])

    def _counters(self) -> None:
        registry = self._world.registry
        self.send(registry.take_definitions())
        for counters in registry.take_counters():
            self.send([counters])

    def send(self, messages: Sequence[m.UpMessage]) -> None:
        """Queue messages, in packets that fit."""
        if not messages:
            return
        for packet in packets(messages, self._misfit):
            if not self.alive:
                return
            self._queue.append(packet)
            if len(self._queue) == 1:
                self._stalled_since = self._world.loop.now
                self._flush()

    def _misfit(self, message: m.UpMessage) -> None:
        self._world.log(
            "error", f"a message for the control half is longer than {m.MAX_PACKET} bytes and left out", kind=type(message).__name__
        )

    def _flush(self) -> None:
        while self._queue:
            try:
                self._sock.send(self._queue[0])
            except BlockingIOError:
                self._world.loop.change(self._sock.fileno(), IN | OUT)
                return
            except OSError:
                self.close()
                return
            self._queue.popleft()
            self._stalled_since = self._world.loop.now
        self._world.loop.change(self._sock.fileno(), IN)

    @property
    def stalled(self) -> float:
        """Seconds for which the control half has taken nothing of what waits for it."""
        return self._world.loop.now - self._stalled_since if self._queue else 0.0

    # --- down ---------------------------------------------------------------------------------------------------------

    def on_event(self, event: int) -> None:
        """One packet: a slice of work between two batches."""
        if event & OUT:
            self._flush()
        if not event & (IN | ERR | HUP) or not self.alive:
            return
        try:
            packet, fds, flags, _ = socket.recv_fds(self._sock, m.MAX_PACKET, 4)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        try:
            for fd in fds:
                os.set_inheritable(fd, False)  # recv_fds takes flags and does not pass them on
            if not packet:
                self.close()
                return
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise msgspec.DecodeError("truncated packet")
            for message in m.decode_down(packet):
                self._apply(message, fds)
        except msgspec.MsgspecError as e:
            self._world.log("error", f"the control half sent what we cannot read, its link is closed: {e}")
            self.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _apply(self, message: m.DownMessage, fds: list[int]) -> None:
        world = self._world
        match message:
            case m.ControlHello():
                if message.version != m.VERSION:
                    raise msgspec.DecodeError(f"link version {message.version}, not {m.VERSION}")
                self.greeted = True
            case m.StateBegin():
                self._seen = (set(), set(), set()) if message.full else None
            case m.Workloads():
                self._workloads(message)
            case m.Services():
                self._services(message)
            case m.Policies():
                self._policies(message)
            case m.StateEnd():
                self._remove_unseen()
                world.state_complete(message.generation)
            case m.AddProxy():
                self._add_proxy(message, fds)
            case m.DelProxy():
                world.remove_proxy(message.uid)
                self.send([m.ProxyStopped(message.uid)])
            case m.Certificate():
                try:
                    world.identities.arrived(message)
                except TlsError as e:
                    world.log("error", f"certificate of {message.identity} is unusable, the old one is kept: {e.detail}")
                    world.identities.unavailable(message.identity, f"what the issuer gave is unusable: {e.detail}")
            case m.CertificateUnavailable():
                world.identities.unavailable(message.identity, message.error)
            case m.Drain():
                world.on_drain(message.deadline)
            case m.Dump():
                # Who reads the dump finds the records and counts of what it no longer shows.
                self.report()
                self._counters()
                self._dumps.append((message.request, [c.view() for c in world.conns()]))
                self._dump_slice()

    def _workloads(self, message: m.Workloads) -> None:
        world = self._world
        for workload in message.upsert:
            world.state.upsert_workload(workload)
        for uid in message.remove:
            world.state.remove_workload(uid)
        if self._seen is not None:
            self._seen[0].update(w.uid for w in message.upsert)
        world.bump()

    def _services(self, message: m.Services) -> None:
        world = self._world
        for service in message.upsert:
            world.state.upsert_service(service)
        for key in message.remove:
            world.state.remove_service(key)
        if self._seen is not None:
            self._seen[1].update(s.key for s in message.upsert)
        world.bump()

    def _policies(self, message: m.Policies) -> None:
        world = self._world
        for policy in message.upsert:
            world.policies.upsert(policy)
        for key in message.remove:
            world.policies.remove(PolicyKey(key))
        if self._seen is not None:
            self._seen[2].update(p.key for p in message.upsert)
        world.bump()

    def _remove_unseen(self) -> None:
        """A full state is in: what it did not mention is gone."""
        if self._seen is None:
            return
        world = self._world
        workloads, services, policies = self._seen
        self._seen = None
        gone_workloads: list[Workload] = [w for w in world.state.workloads() if w.uid not in workloads]
        for workload in gone_workloads:
            world.state.remove_workload(workload.uid)
        gone_services: list[Service] = [s for s in world.state.services() if s.key not in services]
        for service in gone_services:
            world.state.remove_service(service.key)
        for key in [p.key for p in world.policies.policies() if p.key not in policies]:
            world.policies.remove(PolicyKey(key))

    def _add_proxy(self, message: m.AddProxy, fds: list[int]) -> None:
        if len(fds) != 1:
            self.send([m.ProxyFailed(message.uid, "no network namespace descriptor came with it")])
            return
        if self._world.draining:
            self.send([m.ProxyFailed(message.uid, "this ztunnel is shutting down and takes no new pods")])
            return
        try:
            proxy = self._world.add_proxy(message.uid, message.info, fds.pop())
        except (DataPlaneError, OSError) as e:
            self.send([m.ProxyFailed(message.uid, str(e))])
            return
        self.send([m.ProxyStarted(message.uid, proxy.netns.identity)])

    def _dump_slice(self) -> None:
        """One message of each dump in progress; the rest with the next report."""
        left = []
        for request, views in self._dumps:
            part, rest = views[:CONNECTIONS_PER_MESSAGE], views[CONNECTIONS_PER_MESSAGE:]
            self.send([m.Connections(request, tuple(part), not rest)])
            if rest:
                left.append((request, rest))
        self._dumps = left

    def close(self) -> None:
        """The control half is gone; what it told us stays."""
        if self.alive:
            self.alive = False
            self._world.loop.close(self._sock)

    def hang_up(self, seconds: float) -> None:
        """The process ends: let the control half have the last records and tell it that no more will come."""
        try:
            self._sock.settimeout(seconds)
            while self.alive and self._queue:
                self._sock.send(self._queue.popleft())
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was first
        self.close()

    def recover(self, theirs: socket.socket | None) -> None:
        """The control half is dead: keep the records and lines it has not read for the next one; counters are told anew anyway."""
        unread: list[bytes] = []
        while theirs is not None:
            try:
                packet = theirs.recv(m.MAX_PACKET, socket.MSG_DONTWAIT)
            except OSError:
                break
            if not packet:
                break
            unread.append(packet)
        closed: list[m.Closed] = []
        for packet in [*unread, *self._queue]:
            for message in m.decode_up(packet):
                if isinstance(message, m.Closed):
                    closed.append(message)
                elif isinstance(message, m.Log):
                    self._world.tell(message)
        self._queue.clear()
        self._world.registry.put_back(closed)

    def fail(self, error: Exception) -> None:
        """A bug while applying: start over with a fresh control half."""
        self.close()
