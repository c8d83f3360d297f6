"""One of the things compared: a two-node lab of its own, with echo and iperf3 servers, and a mesh in it or none.

All sides of a run stand side by side for its whole length; only one is under load at a time. Blocking; every command it runs
is bounded, and every process it starts carries the lab's marker and is ended with the lab.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from ambient.lab import Lab, LabSpec, LabUnknown
from ambient.lab.mesh import Mesh
from ambient.lab.place import Pod
from perf import procfs
from perf.errors import LoadFailed, PerfError
from perf.generator import BULK_PORT, FIRST_PORT, PORTS, Load, iperf_command, parse_iperf, parse_load

__all__ = ["MARGIN", "Cpu", "Side", "policies"]

MARGIN: Final = 20.0
"""Seconds a load may take beyond those it was asked for: to connect, to warm up, to give up."""
_CLIENT: Final = "pod-1-1"
_SERVERS: Final = {"cross": "pod-2-1", "same": "pod-1-2"}
_SERVERS_READY: Final = 10.0
_POD_SYSCTLS: Final = (
    # Short connections by the hundred thousand: enough ports, and those of a second ago are used again.
    ("net.ipv4.ip_local_port_range", "20000 65535"),
    ("net.ipv4.tcp_tw_reuse", "1"),
    # The table of tracked connections is one for the machine; 120 s of dead ones would fill it.
    ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "5"),
)

Cpu = dict[str, dict[str, float]]
"""Seconds by node, then "data" and "control"."""


def policies(filler: int) -> list[dict[str, Any]]:
    """A namespace ALLOW that lets every identity in, a DENY that matches nobody, and ``filler`` more ALLOW of strangers."""

    def policy(name: str, action: str, match: dict[str, Any]) -> dict[str, Any]:
        scope = {"namespace": "default", "scope": "Namespace", "action": action, "dryRun": False}
        return {"name": name, **scope, "rules": [[[match]]]}

    found = [
        policy("allow-all-identities", "Allow", {"principals": [{"Presence": []}]}),
        policy("deny-nobody", "Deny", {"namespaces": [{"Exact": "nobody"}]}),
    ]
    names = [f"cluster.local/ns/filler/sa/f{n}" for n in range(filler)]
    return found + [policy(f"filler-{n}", "Allow", {"principals": [{"Exact": name}]}) for n, name in enumerate(names)]


class Side:
    """``name`` is its column. ``command`` None: no mesh; else the proxy's, [] for ours. Use as a context manager."""

    def __init__(
        self, name: str, generator: Path, directory: Path, command: list[str] | None, env: dict[str, str], filler: int
    ) -> None:
        self.name = name
        self.mesh: Mesh | None = None
        self.restarts = 0
        """Proxies that were found dead and started again."""
        self._generator = str(generator)
        self._directory = directory
        self._command = command
        self._env = env
        self._filler = filler
        self._stack = ExitStack()

    def __enter__(self) -> "Side":
        with ExitStack() as stack:
            self.lab = stack.enter_context(Lab.create(LabSpec.simple(nodes=2, pods=2)))
            if self._command is not None:
                self._directory.mkdir(parents=True, exist_ok=True)
                # RUST_LOG: the access log is written at info, into the proxy's log file.
                env = {"RUST_LOG": "info", **self._env}
                self.mesh = Mesh(self.lab, self._directory, env=env, command=self._command or None)
                self.mesh.policies = policies(self._filler)
                stack.enter_context(self.mesh)
            for pod in self.lab.pods.values():
                for key, value in _POD_SYSCTLS:
                    with suppress(LabUnknown):  # connection tracking is not loaded
                        pod.set_sysctl(key, value)
            for name in _SERVERS.values():
                self._serve(self.lab.pods[name])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _serve(self, pod: Pod) -> None:
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        pod.popen([self._generator, "serve", str(FIRST_PORT), str(PORTS)], **quiet)
        ports = [FIRST_PORT + PORTS - 1]
        if shutil.which("iperf3"):
            pod.popen(["iperf3", "-s", "-p", str(BULK_PORT)], **quiet)
            ports.append(BULK_PORT)
        deadline = time.monotonic() + _SERVERS_READY
        for port in ports:
            wanted = f":{port:04X} "
            # The pod's own list of listeners: to dial it would be seen by iperf3 as a test that failed.
            while not any(wanted in line and " 0A " in line for line in self._sockets(pod)):
                if time.monotonic() > deadline:
                    raise PerfError(
                        f"nothing listens on port {port} of {pod.name}", "the server that was to listen there has ended"
                    )
                time.sleep(0.02)

    def _sockets(self, pod: Pod) -> list[str]:
        with pod.enter():
            return [line for name in ("tcp", "tcp6") for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()]

    # --- load ---------------------------------------------------------------------------------------------------------

    def address(self, where: str) -> str:
        """Of the server the client is to use: ``where`` is cross or same."""
        return str(self.lab.pods[_SERVERS[where]].ipv4)

    def _run(self, command: list[str], seconds: float) -> str:
        try:
            done = self.lab.pods[_CLIENT].run(command, check=False, timeout=seconds + MARGIN)
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"{Path(command[0]).name} did not end in time", "see the proxies' logs") from error
        return done.stdout or done.stderr

    def pingpong(self, where: str, connections: int, size: int, seconds: float) -> Load:
        """Round trips of ``size`` bytes on ``connections`` connections."""
        words = [self.address(where), str(FIRST_PORT), str(connections), str(size), str(seconds)]
        return parse_load(self._run([self._generator, "pingpong", *words], seconds))

    def crr(self, where: str, threads: int, seconds: float) -> Load:
        """Short connections."""
        words = [self.address(where), str(FIRST_PORT), str(PORTS), str(threads), str(seconds)]
        return parse_load(self._run([self._generator, "crr", *words], seconds))

    def bulk(self, where: str, streams: int, seconds: float, *, reverse: bool) -> tuple[float, float]:
        """(Gbit/s, bytes) of iperf3."""
        return parse_iperf(self._run(iperf_command(self.address(where), seconds, streams, reverse=reverse), seconds))

    def hold(self, count: int) -> "subprocess.Popen[str]":
        """Idle connections, cross-node: see ``load idle``. The caller ends it."""
        words = [self._generator, "idle", self.address("cross"), str(FIRST_PORT), str(PORTS), str(count)]
        pipe = subprocess.PIPE
        return self.lab.pods[_CLIENT].popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def scrapers(self, port: int, path: str, seconds: float, pause: float) -> "list[subprocess.Popen[str]]":
        """One ``load scrape`` of each node's proxy, on the node's loopback; ``pause`` ms between two."""
        words = [self._generator, "scrape", "127.0.0.1", str(port), path, str(seconds), str(pause)]
        nodes: Iterable[Any] = self.lab.nodes.values()
        return [node.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for node in nodes]

    # --- the proxies --------------------------------------------------------------------------------------------------

    def proxies(self) -> dict[str, tuple[list[int], list[int]]]:
        """By node: processes of the data plane, processes of the control half. A peer is data plane altogether."""
        everyone = procfs.processes()
        found = {}
        for node, process in (self.mesh.proxies if self.mesh else {}).items():
            pids = procfs.descendants(process.pid, everyone)
            control = [pid for pid in pids if _is_control(pid)]
            found[node] = ([pid for pid in pids if pid not in control], control)
        return found

    def cpu(self) -> Cpu:
        """CPU time of the proxies up to now."""
        return {
            node: {"data": sum(procfs.cpu_seconds(data).values()), "control": sum(procfs.cpu_seconds(control).values())}
            for node, (data, control) in self.proxies().items()
        }

    def memory(self) -> dict[str, tuple[int, int]]:
        """By node: (PSS, what its processes would take alone), bytes."""
        found = {}
        for node, (data, control) in self.proxies().items():
            each = [procfs.mappings(pid) for pid in (*data, *control)]
            found[node] = (procfs.pss(each), procfs.alone(each))
        return found

    def heal(self, say: Callable[[str], None]) -> None:
        """Start again what has died, so that one crash costs one figure and not the rest of the run."""
        if self.mesh is None:
            return
        for name, process in list(self.mesh.proxies.items()):
            if process.poll() is not None:
                self.restarts += 1
                say(f"{self.name}: the proxy on {name} ended with status {process.returncode}; starting it again")
                self.mesh.start_proxy(self.lab.nodes[name])
                self.mesh.wait_ready(self.lab.nodes[name])


def _is_control(pid: int) -> bool:
    try:
        return b"ztunnel.control" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
