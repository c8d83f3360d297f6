"""The stage: a lab of two nodes with four pods, the mesh in it, and what every step needs of both.

Made by ``run``, used by the steps. Everything lies in one folder, ``/run/ambient/demo/<lab>``, for root only.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from ambient.demo.commands import Held, Shell
from ambient.demo.excerpt import field_of, table_excerpt
from ambient.demo.record import Step
from ambient.lab import Capture, Lab, LabBusy, LabSpec, Node, NodeSpec, Pod, PodSpec
from ambient.lab.mesh import Mesh
from ambient.lab.processes import MARKER
from ambient.lab.store import Store

__all__ = ["BASE", "PORT", "SERVICE_VIP", "Scene", "until"]

BASE: Final = Path("/run/ambient/demo")
PORT: Final = 8080
SERVICE_VIP: Final = "10.96.0.10"
WAIT: Final = 4.0
"""Seconds for what happens by itself: a log line, a counter (they come every 0.1 s and every second), a state in force."""
_POLL: Final = 0.02
_TRIES: Final = 5
_HOST: Final = "orders.shop.svc.cluster.local"


def until(condition: Callable[[], bool], seconds: float = WAIT) -> bool:
    """Look again until it holds, for at most ``seconds``; whether it does."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return met


def _spec(name: str, ipv6: bool) -> LabSpec:
    def pods(*names: str) -> tuple[PodSpec, ...]:
        return tuple(PodSpec(pod, "shop", pod) for pod in names)

    return LabSpec((NodeSpec("node-a", pods("web", "cart")), NodeSpec("node-b", pods("orders", "intruder"))), name, ipv6)


def _create_lab() -> Lab:
    """A lab with a name of its own, so that demos do not meet."""
    ipv6 = Path("/proc/sys/net/ipv6").exists()
    for _ in range(_TRIES):
        try:
            return Lab.create(_spec(f"demo-{secrets.token_hex(2)}", ipv6))
        except LabBusy:
            continue
    raise LabBusy(f"{_TRIES} names for the lab are all taken", "end labs: `ambient lab list`, `ambient lab down NAME`")


class Scene:
    """Lab, mesh, commands and files of one run."""

    def __init__(self) -> None:
        self.lab = _create_lab()
        self.directory = BASE / self.lab.name
        try:
            with Store().locked():  # against the sweep of another demo
                BASE.mkdir(parents=True, exist_ok=True)
                self.directory.mkdir(mode=0o700)
        except BaseException:
            self.lab.close()
            raise
        self.shell = Shell((MARKER, self.lab.marker))
        # By its name, so that what is shown and what is run are one; found by the PATH that is given along.
        self.mesh = Mesh(
            self.lab, self.directory, env={"PATH": self.shell.env["PATH"]}, command=[*self.shell.words("ztunnel"), "run"]
        )
        self.mesh.services = [
            {"name": "orders", "namespace": "shop", "hostname": _HOST, "vips": [f"/{SERVICE_VIP}"], "ports": {"80": PORT}}
        ]
        self.mesh.overrides = {"orders": {"services": {f"shop/{_HOST}": {"80": PORT}}}}
        self.secret = ""
        """The word that the last step sent and that must, or must not, be on the wire."""
        self.live: Held | None = None
        """A connection web -> orders that several steps keep open."""
        self.meshed = False

    def pod(self, name: str) -> Pod:
        return self.lab.pods[name]

    def node(self, name: str) -> Node:
        return self.lab.nodes[name]

    def addresses(self, pod: str) -> list[tuple[str, str]]:
        """(IPv4 or IPv6, address) of a pod."""
        found = [("IPv4", self.pod(pod).ipv4)]
        ipv6 = self.pod(pod).ipv6
        return [*found, ("IPv6", ipv6)] if ipv6 else found

    # --- commands -----------------------------------------------------------------------------------------------------

    def in_place(self, place: str, program: str, *words: str) -> list[str]:
        """The words of a command within a pod or on a node."""
        return [*self.shell.words("ambient"), "lab", "exec", f"{self.lab.name}/{place}", "--", *self.shell.words(program), *words]

    def new_secret(self) -> str:
        """A fresh word, found nowhere else."""
        self.secret = f"secret-{secrets.token_hex(4)}"
        return self.secret

    def say(self, step: Step, pod: str, address: str, port: int = PORT) -> str:
        """One connection from ``pod``: what the client printed."""
        return self.shell.run(self.in_place(pod, "python", "-m", "ambient.demo.say", address, str(port), self.secret), step)

    def say_and_hold(self, step: Step, pod: str, address: str) -> Held:
        """A connection that stays open. Shown as run once it is answered."""
        words = self.in_place(pod, "python", "-m", "ambient.demo.say", address, str(PORT), "hello", "--hold")
        held = self.shell.hold(words)
        held.wait_line("server: hello")
        step.note(f"kept open in the background: {held.text}", *held.lines)
        return held

    def serve(self, pod: str) -> Held:
        """Start the echo server in a pod."""
        held = self.shell.hold(self.in_place(pod, "python", "-m", "ambient.demo.echo", str(PORT)))
        held.wait_line("listening")
        return held

    def ztunnel(self, step: Step, node: str, *words: str) -> str:
        """A ``ztunnel`` command on a node, shown with its table."""
        show = table_excerpt if "connections" in words else None  # its last column is what matters; others may be cut
        return self.shell.run(self.in_place(node, "ztunnel", *words), step, show=show)

    def get(self, step: Step, node: str, *words: str, show: Callable[[str], Sequence[str]]) -> str:
        """Lines of the metrics page of a node's proxy."""
        url = "http://localhost:15020/metrics"
        return self.shell.run(self.in_place(node, "python", "-m", "ambient.demo.get", url, *words), step, show=show)

    def set_policy(self, step: Step, *words: str) -> float:
        """Change the policy by command and wait until both proxies have it. Unix time at which the file was in place."""
        path = self.mesh.state_path
        self.shell.run([*self.shell.words("python"), "-m", "ambient.demo.policy", str(path), *words], step)
        wanted = [policy["name"] for policy in json.loads(path.read_text())["policies"]]
        for node in self.lab.nodes.values():
            until(lambda node=node: self._policies(node) == wanted)  # type: ignore[misc]
        return path.stat().st_mtime

    def _policies(self, node: Node) -> list[str] | None:
        dump = self.dump(node)
        return None if dump is None else [str(policy.get("name")) for policy in dump.get("policies", [])]

    def dump(self, node: Node) -> dict[str, Any] | None:
        """The proxy's config_dump; None while it does not answer."""
        try:
            status, body = self.mesh.get(node, 15000, "/config_dump")
            return json.loads(body) if status == 200 else None
        except (OSError, ValueError):
            return None

    # --- what is to be seen -------------------------------------------------------------------------------------------

    def sniff(self) -> AbstractContextManager[Capture]:
        """Everything on the uplink of node-a: all that goes between the nodes."""
        node = self.node("node-a")
        return self.lab.sniff(node, node.uplink)

    def log(self, node: str) -> Path:
        """The node's ztunnel log."""
        return self.mesh.log_path(self.node(node))

    def marks(self) -> dict[str, int]:
        """Ends of the logs, to look only at what comes after."""
        return {name: os.path.getsize(self.log(name)) for name in self.lab.nodes}

    def log_line(self, node: str, marks: dict[str, int], *needles: str) -> str:
        """The first line after the mark with every needle, waiting for it; "" if none comes."""
        found: list[str] = []

        def look() -> bool:
            with self.log(node).open("rb") as file:
                file.seek(marks[node])
                lines = file.read().decode("utf-8", "replace").splitlines()
            found[:] = [line for line in lines if all(needle in line for needle in needles)]
            return bool(found)

        return found[0] if until(look) else ""

    def last_error(self, node: str) -> str:
        """What the node's access log says about the last connection that failed; "" if it says nothing."""
        found: list[str] = []

        def look() -> bool:
            lines = self.log(node).read_text(errors="replace").splitlines()
            found[:] = [error for line in lines if (error := field_of(line, "error"))]
            return bool(found)

        return found[-1] if until(look, 1.0) else ""

    def wait_metric(self, node: str, *needles: str) -> bool:
        """Wait until the metrics page has a line with every needle: counters come once a second."""

        def look() -> bool:
            try:
                _, page = self.mesh.get(self.node(node), 15020, "/metrics")
            except OSError:
                return False
            return any(all(needle in line for needle in needles) for line in page.splitlines())

        return until(look)

    def ready(self, node: str) -> bool:
        """Does the node's control half answer?"""
        try:
            return self.mesh.get(self.node(node), 15021, "/healthz/ready", timeout=1.0)[0] == 200
        except OSError:
            return False
