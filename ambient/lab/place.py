"""A place where code can run: what nodes and pods have in common, and the two themselves."""

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambient.lab.errors import LabCommandFailed, LabSpecError
from ambient.lab.netns import NETNS_DIR, entered, open_socket, read_sysctl, write_sysctls
from ambient.lab.processes import MARKER
from ambient.lab.state import NodeState, PodState

if TYPE_CHECKING:
    from ambient.lab.lab import Lab

__all__ = ["Node", "Place", "Pod"]

Command = Sequence[str | os.PathLike[str]]


class Place:
    """A network namespace of a lab."""

    def __init__(self, lab: "Lab", name: str, netns_name: str) -> None:
        self._lab = lab
        self.name = name
        self.netns_name = netns_name
        self.netns: Path = NETNS_DIR / netns_name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._lab.name}/{self.name}>"

    def enter(self) -> AbstractContextManager[None]:
        """The calling thread is in this namespace within the block: make sockets there, never await there."""
        return entered(self.netns)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0) -> "socket.socket":
        """A socket of this namespace, usable from anywhere."""
        return open_socket(self.netns, family, kind, proto)

    def popen(self, args: Command, *, env: Mapping[str, str] | None = None, **kwargs: Any) -> "subprocess.Popen[Any]":
        """Start a process here. It and what it starts are ended when the lab closes, and its pipes closed.

        ``kwargs`` are those of :class:`subprocess.Popen`, hence ``Any``. The process leads a session of its own unless
        ``start_new_session=False``, so that a Ctrl-C meant for the test does not race with the lab's own end. The file system,
        /sys included, is the caller's: only the network is the lab's.
        """
        if isinstance(args, str):
            raise LabSpecError(f"the command {args!r} is a string", "give a list of words")
        kwargs.setdefault("start_new_session", True)
        marked = {**(os.environ if env is None else env), MARKER: self._lab.marker}
        with self._lab.starting() as track:
            with self.enter():
                process = subprocess.Popen(args, env=marked, **kwargs)
            track(process)
        return process

    def run(
        self,
        args: Command,
        *,
        input: str | None = None,
        timeout: float | None = 30,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command here to its end, output captured as text; ``timeout`` in seconds.

        Raises :class:`LabCommandFailed` for an exit status other than 0 if ``check``, :class:`subprocess.TimeoutExpired` after
        killing it.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        process = self.popen(args, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            self._lab.end_group(process)
            raise
        finally:
            self._lab.forget(process)
        if check and process.returncode != 0:
            raise LabCommandFailed(process.returncode, list(args), out, err)
        return subprocess.CompletedProcess(list(args), process.returncode, out, err)

    def sysctl(self, name: str) -> str:
        """Read ``net.ipv4.…``; a name part that holds a dot is written with slashes: ``net/ipv4/conf/eth0.1/rp_filter``."""
        return read_sysctl(self.netns, name)

    def set_sysctl(self, name: str, value: str | int) -> None:
        """Write a sysctl of this namespace only."""
        write_sysctls(self.netns, [(name, str(value))])


class Pod(Place):
    """A workload's namespace: ``eth0`` with one /32 and one /128. Make it by :meth:`Lab.add_pod`."""

    def __init__(self, lab: "Lab", state: PodState, node: "Node") -> None:
        super().__init__(lab, state.name, state.netns)
        self.node = node
        self.namespace = state.namespace
        self.service_account = state.service_account
        self.uid = state.uid
        self.ipv4 = state.ipv4
        self.ipv6 = state.ipv6
        self.veth = state.veth
        """The node's end of the pod's link."""


class Node(Place):
    """A machine's namespace: forwards between its pods and the other nodes; its own processes reach its pods, as a kubelet does."""

    def __init__(self, lab: "Lab", state: NodeState) -> None:
        super().__init__(lab, state.name, state.netns)
        self.uplink = state.uplink
        self.underlay_ipv4 = state.underlay_ipv4
        self.underlay_ipv6 = state.underlay_ipv6

    @property
    def pods(self) -> dict[str, Pod]:
        """The pods that are on this node now, by name."""
        return {name: pod for name, pod in self._lab.pods.items() if pod.node is self}
