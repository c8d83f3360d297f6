"""The lab: builds what the plan says, hands out nodes and pods, and takes everything away at the end.

``with Lab.create(LabSpec.simple(nodes=2, pods=2)) as lab: lab.pods["pod-1-1"].run(["ping", ...])``. Used by tests, ``perf/``, the
demo and ``ambient lab``. Blocking throughout: a lab of 2 nodes with 4 pods each takes some 0.1 s to build.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ambient.lab import plan
from ambient.lab.errors import LabBusy, LabError, LabUnknown, LabUnsupported
from ambient.lab.netns import NETNS_DIR, add_namespaces, delete_namespaces, ip_batch, namespace_inode, write_sysctls
from ambient.lab.place import Node, Place, Pod
from ambient.lab.processes import TERM_GRACE, end_marked, myself
from ambient.lab.removal import demolish, remove_stale
from ambient.lab.sniff import Capture, sniffed
from ambient.lab.spec import LabSpec, PodSpec
from ambient.lab.state import LabState
from ambient.lab.store import Store

__all__ = ["Lab"]

_PARALLEL = 4
"""``ip`` runs at a time; the kernel does one at a time anyway, this hides the starting of processes."""


class Lab:
    """Nodes and pods made of network namespaces. Make one with :meth:`create`; find a kept one with :meth:`attach`."""

    def __init__(self, state: LabState, store: Store, *, owned: bool) -> None:
        self._state = state
        self._store = store
        self._owned = owned
        self._creator = os.getpid()
        self._lock = threading.RLock()
        self._processes: list[subprocess.Popen[Any]] = []
        self._closed = False
        self.nodes: dict[str, Node] = {}
        """By name."""
        self.pods: dict[str, Pod] = {}
        """By name, of all nodes."""
        for node_state in state.nodes:
            node = self.nodes[node_state.name] = Node(self, node_state)
            for pod_state in node_state.pods:
                self.pods[pod_state.name] = Pod(self, pod_state, node)

    @classmethod
    def create(cls, spec: LabSpec, *, store: Store | None = None) -> "Lab":
        """Build a lab, after removing what killed runs have left. Nothing stays behind if it fails.

        Raises :class:`LabUnsupported` for a machine without root rights, iproute2, IPv6 (if asked for), veth or bridge;
        :class:`LabBusy` for a name that is taken; :class:`LabSpecError`; :class:`LabBroken`.
        """
        if os.geteuid() != 0:
            raise LabUnsupported("a lab needs root rights: it makes network namespaces", "run it with sudo")
        if spec.ipv6 and not Path("/proc/sys/net/ipv6").exists():
            raise LabUnsupported("this kernel has no IPv6", "ask for a lab without it: LabSpec(ipv6=False), --no-ipv6")
        store = store or Store()
        remove_stale(store)
        state = cls._claim(spec, store)
        lab = cls(state, store, owned=True)
        try:
            lab._build()
        except BaseException:
            # The first error is the one to tell; what cannot be removed now is found by the next sweep.
            with contextlib.suppress(LabError):
                lab.close(grace=0)
            raise
        return lab

    @staticmethod
    def _claim(spec: LabSpec, store: Store) -> LabState:
        with store.locked():
            taken = set(store.names())
            name = spec.name or next(n for n in iter(lambda: secrets.token_hex(3), "") if n not in taken)
            if name in taken:
                raise LabBusy(f"there is a lab {name!r} already", f"take another name, or `ambient lab down {name}`")
            state = plan.lay_out(spec, name, secrets.token_hex(8), myself())
            # A lab "a" with a node "b-c" and a lab "a-b" with a node "c" would meet.
            if found := [n for n in state.netns_names() if (NETNS_DIR / n).exists()]:
                raise LabBusy(f"there is a network namespace {found[0]!r} already", "take another lab name")
            store.save(state)
            return state

    @classmethod
    def attach(cls, name: str, *, store: Store | None = None) -> "Lab":
        """A handle on a lab that stands. Closing it ends nothing. Raises :class:`LabUnknown`, :class:`LabBroken`."""
        store = store or Store()
        state = store.load(name)
        if state is None:
            raise LabUnknown(f"there is no lab {name!r}", "`ambient lab list` shows those there are")
        return cls(state, store, owned=False)

    def _build(self) -> None:
        state = self._state
        add_namespaces(state.netns_names())
        for name in state.netns_names():
            self._prepare(name, forward=name in {node.netns for node in state.nodes})
        switch = NETNS_DIR / state.switch_netns
        ip_batch(plan.switch_batch(state), switch)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda node: ip_batch(plan.node_batch(state, node), NETNS_DIR / node.netns), state.nodes))
            ip_batch([line for node in state.nodes for line in plan.node_port_batch(node)], switch)
            pods = [pod for node in state.nodes for pod in node.pods]
            list(pool.map(lambda pod: ip_batch(plan.pod_batch(state, pod), NETNS_DIR / pod.netns), pods))

    def _prepare(self, netns_name: str, *, forward: bool) -> None:
        values = plan.sysctls(ipv6=self._state.ipv6, forward=forward)
        if not Path("/proc/sys/net/ipv6").exists():
            values = tuple(pair for pair in values if not pair[0].startswith("net/ipv6/"))
        write_sysctls(NETNS_DIR / netns_name, values)

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def ipv6(self) -> bool:
        return self._state.ipv6

    @property
    def state(self) -> LabState:
        """The record as it is in the state file."""
        return self._state

    @property
    def marker(self) -> str:
        """Value of ``AMBIENT_LAB`` in the environment of the lab's processes."""
        return self._state.marker

    def place(self, name: str) -> Place:
        """The node or pod of that name. Raises :class:`LabUnknown`."""
        found: Place | None = self.nodes.get(name) or self.pods.get(name)
        if found is None:
            raise LabUnknown(f"lab {self.name} has no node or pod {name!r}", f"it has {', '.join([*self.nodes, *self.pods])}")
        return found

    def add_pod(self, node_name: str, spec: PodSpec) -> Pod:
        """One more pod on a node. Raises :class:`LabUnknown`, :class:`LabBusy`, :class:`LabBroken`."""
        with self._changing():
            before = self._state
            after, node_state, pod_state = plan.with_pod(before, node_name, spec)
            self._store.save(after)
            try:
                add_namespaces([pod_state.netns])
                self._prepare(pod_state.netns, forward=False)
                ip_batch(plan.pod_link_batch(node_state, pod_state), NETNS_DIR / node_state.netns)
                ip_batch(plan.pod_batch(after, pod_state), NETNS_DIR / pod_state.netns)
            except BaseException:
                delete_namespaces([pod_state.netns])
                self._store.save(before)
                raise
            self._state = after
            pod = self.pods[pod_state.name] = Pod(self, pod_state, self.nodes[node_name])
            return pod

    def remove_pod(self, name: str) -> None:
        """End the processes the lab started in the pod (SIGTERM, then SIGKILL), and take it away. Raises :class:`LabUnknown`."""
        with self._changing():
            after, node_state, pod_state = plan.without_pod(self._state, name)
            end_marked(self.marker, netns=namespace_inode(pod_state.netns))
            # By hand, as the kernel ends the namespace, and with it the link, some time later.
            ip_batch([f"link delete {pod_state.veth}"], NETNS_DIR / node_state.netns)
            delete_namespaces([pod_state.netns])
            self._store.save(after)
            self._state = after
            del self.pods[name]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise LabBusy(f"lab {self.name} is closed", "make a new one")
            yield

    def sniff(self, place: Place, interface: str = "eth0", filter: str = "") -> AbstractContextManager[Capture]:
        """Capture on an interface of a node or pod, with a filter in tcpdump's language: see :class:`Capture`."""
        return sniffed(place.netns, interface, filter)

    @contextmanager
    def starting(self) -> Iterator[Callable[[subprocess.Popen[Any]], None]]:
        """For :class:`Place`: no process is started in a lab that is closing."""
        with self._changing():
            yield self._processes.append

    def forget(self, process: "subprocess.Popen[Any]") -> None:
        """For :class:`Place`: the process has ended."""
        with self._lock:
            self._processes.remove(process)

    def end_group(self, process: "subprocess.Popen[Any]") -> None:
        """Kill a process that is not reaped yet with its session's first group, and reap it."""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(process.pid) == process.pid:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
        self._reap(process)

    @staticmethod
    def _reap(process: "subprocess.Popen[Any]") -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def keep(self) -> None:
        """Let the lab and its processes outlive this process: it stands until ``ambient lab down``."""
        with self._changing():
            self._state = msgspec.structs.replace(self._state, persistent=True)
            self._store.save(self._state)
            self._owned = False

    def close(self, *, grace: float = TERM_GRACE) -> None:
        """End the processes the lab started (SIGTERM, ``grace`` seconds, SIGKILL), remove its namespaces and its state file.

        May be called twice. A child that the owner forked, and a lab that was kept or attached, is left alone.
        """
        if os.getpid() != self._creator:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if not self._owned:
            return
        try:
            with self._store.locked():
                current = self._store.load(self.name)
                if current is not None and current.token == self._state.token:
                    demolish(self._state, grace=grace)
                    self._store.delete(self.name)
                else:  # `ambient lab down --force` came first; the name may be another lab's by now
                    end_marked(self.marker, grace=grace)
        finally:
            for process in self._processes:
                self.end_group(process)
            self._processes.clear()

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
