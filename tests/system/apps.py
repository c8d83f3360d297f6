"""A town: a small mesh in a lab with names for its pods, and what tests of the mesh do there.

Applications are sockets of the test process made in the pods' namespaces: a test sees each FIN and RST exactly and waits for no
program to start. Used by tests/system/test_mesh_*.py through the fixture ``town`` of conftest.py.
"""

import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ambient.lab import Lab, LabSpec, Node, NodeSpec, Pod, PodSpec
from ambient.lab.mesh import Mesh

PORT = 8080
PATIENCE = 5.0
"""Seconds within which what must happen has to happen."""


_T = TypeVar("_T")


def until(what: Callable[[], _T], seconds: float = PATIENCE, said: str = "") -> _T:
    """The first true value of ``what``; AssertionError when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, said or f"not within {seconds} s"
        time.sleep(0.005)


def connect(pod: Pod, ip: str, port: int = PORT, seconds: float = PATIENCE) -> socket.socket:
    """A TCP connection out of a pod."""
    sock = pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    sock.settimeout(seconds)
    try:
        sock.connect((ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def ending(sock: socket.socket) -> str:
    """How the other side ends: "fin", "reset", "silence", or the first byte it sends as "data"."""
    try:
        return "data" if sock.recv(1) else "fin"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silence"


def attempt(pod: Pod, ip: str, port: int = PORT, seconds: float = PATIENCE) -> str:
    """What a client without words sees: see :func:`ending`; also "refused", "reset" and "silence" of connect() itself."""
    try:
        with connect(pod, ip, port, seconds) as sock:
            return ending(sock)
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silence"


def noise(n: int, seed: int = 1) -> bytes:
    """``n`` bytes that repeat nowhere near."""
    return hashlib.shake_128(str(seed).encode()).digest(n)


def read_all(sock: socket.socket) -> bytes:
    """Everything up to FIN."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def read_exactly(sock: socket.socket, n: int) -> bytes:
    """``n`` bytes, or fewer and then FIN."""
    parts, left = [], n
    while left and (part := sock.recv(min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def sent_meanwhile(sock: socket.socket, data: bytes) -> threading.Thread:
    """Send in a thread; join it. An error ends the thread: what arrived tells."""

    def send() -> None:
        with suppress(OSError):
            sock.sendall(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


class Server:
    """A listening application in a pod, both families. Accepted by hand, or by :meth:`echo` in a thread."""

    def __init__(self, pod: Pod, port: int = PORT, backlog: int = 1024) -> None:
        self.pod, self.port = pod, port
        self.listeners = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            sock = pod.socket(family)
            self.listeners.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((wildcard, port))
            sock.listen(backlog)

    def accept(self, seconds: float = PATIENCE) -> tuple[socket.socket, str]:
        """The next connection and the address it comes from."""
        ready, _, _ = select.select(self.listeners, [], [], seconds)
        assert ready, f"no connection reached {self.pod.name}:{self.port} within {seconds} s"
        sock, address = ready[0].accept()
        sock.settimeout(PATIENCE)
        return sock, str(address[0])

    def idle(self) -> bool:
        """No connection waits to be accepted."""
        return not select.select(self.listeners, [], [], 0)[0]

    def echo(self, greeting: bytes = b"") -> "Server":
        """Serve: greet, send back all that comes, FIN after FIN."""

        def serve() -> None:
            while not self._stop.is_set():
                ready, _, _ = select.select(self.listeners, [], [], 0.05)
                for listener in ready:
                    with suppress(OSError):
                        sock, _ = listener.accept()
                        threading.Thread(target=talk, args=(sock,), daemon=True).start()

        def talk(sock: socket.socket) -> None:
            with sock, suppress(OSError):
                sock.settimeout(60)
                if greeting:
                    sock.sendall(greeting)
                while data := sock.recv(1 << 16):
                    sock.sendall(data)

        self._threads.append(threading.Thread(target=serve, daemon=True))
        self._threads[-1].start()
        return self

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for sock in self.listeners:
            sock.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_FIELD = re.compile(r'([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S*)')


class Line(dict[str, str]):
    """An access-log line's fields."""

    @classmethod
    def parse(cls, text: str) -> "Line":
        fields = text.split("\t", 4)[-1]
        return cls({k: json.loads(v) if v.startswith('"') else v for k, v in _FIELD.findall(fields)})


SPEC = LabSpec(
    nodes=(
        NodeSpec(
            "node-1",
            (
                PodSpec("client", "shop", "client"),
                PodSpec("near", "shop", "near"),
                PodSpec("other", "bank", "other"),
                PodSpec("plain-1", "shop", "plain"),
            ),
        ),
        NodeSpec("node-2", (PodSpec("far", "shop", "far"), PodSpec("far-2", "shop", "far-2"), PodSpec("plain-2", "shop", "plain"))),
    )
)


class Town:
    """Lab and mesh, with what tests ask of them. Of the pods there are those of the lab's spec."""

    client: Pod
    near: Pod
    other: Pod
    plain_1: Pod
    far: Pod
    far_2: Pod
    plain_2: Pod

    def __init__(self, lab: Lab, mesh: Mesh) -> None:
        self.lab, self.mesh = lab, mesh
        self.node_1, self.node_2 = lab.nodes["node-1"], lab.nodes["node-2"]
        for name, pod in lab.pods.items():
            setattr(self, name.replace("-", "_"), pod)
        self._marks: dict[str, int] = {}
        self._state = mesh.state_path.read_text()
        self.mark()

    # --- state --------------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Write the state and return when both data planes have it."""
        before = {name: self.log(node).count("\tstate in force\t") for name, node in self.lab.nodes.items()}
        self.mesh.write_state()
        text = self.mesh.state_path.read_text()
        if text == self._state:
            return
        self._state = text
        for name, node in self.lab.nodes.items():
            if name in self.mesh.proxies:
                until(
                    lambda node=node, name=name: self.log(node).count("\tstate in force\t") > before[name],
                    said=f"{name} does not take the state: {self.log(node)[-500:]}",
                )
                self.dump(node)  # answered by the data plane after everything that was sent to it before

    def clean(self) -> None:
        """Proxies up, the state of the beginning, no connection open, and the log marked."""
        for node in self.lab.nodes.values():
            proxy = self.mesh.proxies.get(node.name)
            if proxy is None or proxy.poll() is not None:
                self.mesh.start_proxy(node)
                self.mesh.wait_ready(node)
        self.mesh.policies.clear()
        self.mesh.services.clear()
        self.mesh.overrides.clear()
        self.apply()
        until(lambda: not self.open_connections(), said="the test before has left connections open")
        self.mark()

    def policy(self, name: str, action: str, rules: list[Any], namespace: str = "shop", scope: str = "Namespace") -> None:
        """One more policy; :meth:`apply` is the caller's."""
        self.mesh.policies.append(
            {"name": name, "namespace": namespace, "scope": scope, "action": action, "rules": rules, "dryRun": False}
        )

    # --- what the proxies say -----------------------------------------------------------------------------------------

    def log(self, node: Node) -> str:
        return self.mesh.log_path(node).read_text()

    def mark(self) -> None:
        """What is logged from here on is the test's."""
        self._marks = {name: len(self.log(node)) for name, node in self.lab.nodes.items()}

    def since(self, node: Node) -> str:
        """What was logged since :meth:`mark`."""
        return self.log(node)[self._marks[node.name] :]

    def lines(self, node: Node) -> list[Line]:
        """Access-log lines since :meth:`mark`."""
        return [Line.parse(line) for line in self.since(node).splitlines() if "\taccess\t" in line]

    def logged(self, node: Node, reason: str, **fields: str) -> Line:
        """The access-log line with that reason and fields (underscores for dots), waited for."""
        wanted = {"reason": reason, **{k.replace("_", "."): v for k, v in fields.items()}}
        return until(
            lambda: next((line for line in self.lines(node) if wanted.items() <= line.items()), None),
            said=f"no line with {wanted} on {node.name}:\n{self.since(node)[-3000:]}",
        )

    def metric(self, node: Node, name: str, **labels: str) -> float:
        """Sum of the samples that have these labels."""
        status, body = self.mesh.get(node, 15020, "/metrics")
        assert status == 200
        total = 0.0
        for line in body.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                found = dict(re.findall(r'(\w+)="([^"]*)"', line))
                if labels.items() <= found.items():
                    total += float(line.rsplit(" ", 1)[1])
        return total

    def ends(self, node: Node, reason: str) -> float:
        """Connections that the metrics say ended or were refused with this reason."""
        return self.metric(node, "ambient_connections_closed_total", reason=reason) + self.metric(
            node, "ambient_refusals_total", reason=reason
        )

    @contextmanager
    def counted(self, *expected: tuple[Node, str]) -> Iterator[None]:
        """Within the block at least one connection ends with each (node, reason), says the metric and the log."""
        self.mark()
        for node in {node.name: node for node, _ in expected}.values():
            self.dump(node)
        before = [self.ends(node, reason) for node, reason in expected]
        yield
        for node, reason in expected:
            self.logged(node, reason)
        for node in {node.name: node for node, _ in expected}.values():
            self.dump(node)  # the data plane tells its counts with it
        for (node, reason), was in zip(expected, before, strict=True):
            until(
                lambda node=node, reason=reason, was=was: self.ends(node, reason) > was,
                said=f"{node.name} does not count {reason}",
            )

    def dump(self, node: Node) -> dict[str, Any]:
        """``config_dump``."""
        status, body = self.mesh.get(node, 15000, "/config_dump")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def open_connections(self) -> list[dict[str, Any]]:
        """All that the proxies have open."""
        views = [v for n in self.lab.nodes.values() if n.name in self.mesh.proxies for v in self.dump(n)["workloadState"].values()]
        return [c for v in views for c in v["connections"]["inbound"] + v["connections"]["outbound"]]

    # --- processes ----------------------------------------------------------------------------------------------------

    def proxy(self, node: Node) -> int:
        """Process id of the data plane."""
        return self.mesh.proxies[node.name].pid

    def control(self, node: Node) -> int | None:
        """Process id of the control half."""
        pid = self.proxy(node)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None

    def kill_control(self, node: Node) -> None:
        """SIGKILL it, and return when it is gone."""
        pid = until(lambda: self.control(node))
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.control(node) != pid)

    # --- is all well? -------------------------------------------------------------------------------------------------

    def works(self, client: Pod | None = None, server: Pod | None = None) -> None:
        """The next connection works."""
        client, server = client or self.client, server or self.far
        with Server(server, 9099) as app, connect(client, server.ipv4, 9099) as sock:
            sock.sendall(b"well?")
            there, source = app.accept()
            with there:
                assert read_exactly(there, 5) == b"well?"
                there.sendall(b"well!")
                assert read_exactly(sock, 5) == b"well!"
                assert source == client.ipv4


def cpu(pid: int) -> float:
    """Seconds of CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def new_town(
    directory: Path, *, spec: LabSpec = SPEC, env: Mapping[str, str] | None = None, backend: str = "auto"
) -> Iterator[Town]:
    """Build lab and mesh, and take them away. Pods named plain-* are not enrolled."""
    with Lab.create(spec) as lab:
        meshed = [name for name in lab.pods if not name.startswith("plain")]
        with Mesh(lab, directory, env=env, backend=backend, meshed=meshed) as mesh:
            yield Town(lab, mesh)


@contextmanager
def lone_proxy(town: "Town", **env: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A second proxy on node-1, without agent, on ports of its own: the process, and what it has said so far."""
    log = town.mesh.directory / "lone.log"
    ports = {"ADMIN_PORT": "17000", "STATS_PORT": "17020", "READINESS_PORT": "17021"}
    with log.open("wb") as out:
        proxy = town.node_1.popen(
            [sys.executable, "-m", "ztunnel.cli", "run"],
            env={**os.environ, **ports, "INPOD_UDS": "/nonexistent/zds", "XDS_ADDRESS": "", "CA_ADDRESS": "", **env},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield proxy, log.read_text
    finally:
        if proxy.poll() is None:
            proxy.kill()
            proxy.wait()


def command(node: Node, *args: str) -> subprocess.CompletedProcess[str]:
    """The ``ztunnel`` command on a node."""
    return node.run([sys.executable, "-m", "ztunnel.cli", *args], check=False)
