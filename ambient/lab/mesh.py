"""A mesh in a lab: a ztunnel on every node, every pod enrolled, state in one file. For the demo, system tests and perf.

What a node agent and a control plane do in a real installation is done here by the smallest thing that will: the static state
file stands for the control plane, ``ambient.node.lab_agent`` for the node agent. The proxies are real processes in their node's
network namespace.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ambient.lab.errors import LabError
from ambient.lab.lab import Lab
from ambient.lab.place import Node, Pod
from ztunnel.identity.ca_files import create_ca

__all__ = ["Mesh"]

READY_SECONDS: Final = 30.0
_POLL: Final = 0.02


class Mesh:
    """``directory`` gets CA, state, sockets and logs; it is the caller's. Use as a context manager, or call start and stop."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        *,
        backend: str = "auto",
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        meshed: Iterable[str] | None = None,
    ) -> None:
        """``command``: another proxy than ours. ``meshed``: pods that are enrolled; default all."""
        self.lab = lab
        self.directory = directory
        self.backend = backend
        self.env = dict(env or {})
        self.command = list(command or [sys.executable, "-m", "ztunnel.cli", "run"])
        self.meshed = set(lab.pods if meshed is None else meshed)
        self.state_path = directory / "state.yaml"
        self.ca_dir = directory / "ca"
        self.services: list[dict[str, Any]] = []
        self.policies: list[dict[str, Any]] = []
        self.overrides: dict[str, dict[str, Any]] = {}
        """Per pod: fields of its workload that are to differ."""
        self.node_env: dict[str, dict[str, str]] = {}
        """Per node: settings of its proxy that are to differ."""
        self.proxies: dict[str, subprocess.Popen[Any]] = {}
        self.agents: dict[str, subprocess.Popen[Any]] = {}

    # --- state --------------------------------------------------------------------------------------------------------

    def workload(self, pod: Pod) -> dict[str, Any]:
        """The pod as the static file has it."""
        entry = {
            "uid": pod.uid,
            "name": pod.name,
            "namespace": pod.namespace,
            "serviceAccount": pod.service_account,
            "trustDomain": "cluster.local",
            "workloadIps": [ip for ip in (pod.ipv4, pod.ipv6) if ip],
            "node": pod.node.name,
            "protocol": "HBONE" if pod.name in self.meshed else "TCP",
            "workloadName": pod.name,
            "workloadType": "deployment",
            "canonicalName": pod.name,
            "canonicalRevision": "v1",
            "clusterId": "Kubernetes",
            "services": {},
            "status": "Healthy",
        }
        return {**entry, **self.overrides.get(pod.name, {})}

    def write_state(self) -> None:
        """Put the state file in place, atomically."""
        state = {
            "workloads": [self.workload(p) for p in self.lab.pods.values()],
            "services": self.services,
            "policies": self.policies,
        }
        temporary = self.state_path.with_suffix(".new")
        temporary.write_text(json.dumps(state, indent=1))
        temporary.replace(self.state_path)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """CA, state, agents, proxies; returns when all are ready. Raises LabError with the end of the log that says why."""
        if not self.ca_dir.exists():
            create_ca(self.ca_dir, "lab root", time.time())
        self.write_state()
        for node in self.lab.nodes.values():
            progress(f"starting node agent and ztunnel on {node.name}")
            self.start_agent(node)
            self.start_proxy(node)
        for node in self.lab.nodes.values():
            self.wait_ready(node)

    def socket_path(self, node: Node) -> Path:
        """The ZDS socket of a node."""
        return self.directory / f"{node.name}.sock"

    def log_path(self, node: Node) -> Path:
        """Standard output and error of the node's ztunnel: its log and access log."""
        return self.directory / f"{node.name}.log"

    def write_pods(self, node: Node) -> None:
        """Tell the agent which pods of its node are enrolled."""
        pods = [
            {
                "uid": pod.uid,
                "name": pod.name,
                "namespace": pod.namespace,
                "service_account": pod.service_account,
                "netns": str(pod.netns),
            }
            for pod in node.pods.values()
            if pod.name in self.meshed
        ]
        path = self.directory / f"{node.name}-pods.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(pods))
        temporary.replace(path)

    def start_agent(self, node: Node) -> None:
        """Start the node's agent."""
        self.write_pods(node)
        log = self.directory / f"{node.name}-agent.log"
        args = [sys.executable, "-m", "ambient.node.lab_agent", "--socket", str(self.socket_path(node))]
        args += ["--pods", str(self.directory / f"{node.name}-pods.json"), "--backend", self.backend]
        args += ["--lock-dir", str(self.directory / "locks")]  # nothing of the lab is left outside its folder
        with log.open("ab") as out:
            self.agents[node.name] = node.popen(args, stdout=out, stderr=subprocess.STDOUT)

    def settings(self, node: Node) -> dict[str, str]:
        """The environment variables that the node's ztunnel is given on top of ours."""
        return {
            "LOCAL_XDS_PATH": str(self.state_path),
            "LOCAL_CA_DIR": str(self.ca_dir),
            "INPOD_UDS": str(self.socket_path(node)),
            "NODE_NAME": node.name,
            "XDS_ADDRESS": "",
            "CA_ADDRESS": "",
            **self.env,
            **self.node_env.get(node.name, {}),
        }

    def start_proxy(self, node: Node) -> None:
        """Start the node's ztunnel."""
        env = {**os.environ, **self.settings(node)}
        with self.log_path(node).open("ab") as out:
            self.proxies[node.name] = node.popen(self.command, env=env, stdout=out, stderr=subprocess.STDOUT)

    def wait_ready(self, node: Node, seconds: float = READY_SECONDS) -> None:
        """Until the node's ztunnel says so on 15021, and serves all of its pods."""
        deadline = time.monotonic() + seconds
        said = "nothing listens on 15021"
        while time.monotonic() < deadline:
            proxy = self.proxies[node.name]
            if proxy.poll() is not None:
                said = f"it ended with status {proxy.returncode}"
                break
            try:
                status, body = self.get(node, 15021, "/healthz/ready")
            except OSError:
                pass
            else:
                said = body.strip()
                if status == 200:
                    return
            time.sleep(_POLL)
        tail = self.log_path(node).read_text(errors="replace")[-2000:]
        agent = (self.directory / f"{node.name}-agent.log").read_text(errors="replace")[-1000:]
        raise LabError(f"ztunnel on {node.name} is not ready: {said}", f"see its log\n{tail}\n--- and its agent's\n{agent}")

    def get(self, node: Node, port: int, path: str, *, method: str = "GET", timeout: float = 5.0) -> tuple[int, str]:
        """Ask the node's ztunnel over HTTP on its loopback: (status, body)."""
        with node.socket() as sock:
            sock.settimeout(timeout)
            sock.connect(("127.0.0.1", port))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            connection.sock = sock
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def control_pid(self, node: Node) -> int:
        """Process id of the control half of the node's ztunnel, which is its data plane's child; 0 while there is none."""
        pid = self.proxies[node.name].pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return 0
        return int(children[0]) if children else 0

    def stop_proxy(self, node: Node, *, kill: bool = False, seconds: float = 15.0) -> None:
        """SIGTERM, or SIGKILL, and wait."""
        proxy = self.proxies.pop(node.name)
        if kill:
            proxy.kill()
        else:
            proxy.terminate()
        proxy.wait(seconds)

    def stop(self) -> None:
        """End proxies and agents; the lab's namespaces go with the lab."""
        for process in [*self.proxies.values(), *self.agents.values()]:
            process.terminate()
        for process in [*self.proxies.values(), *self.agents.values()]:
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.proxies.clear()
        self.agents.clear()

    def __enter__(self) -> "Mesh":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
